//! What managers say, and what becomes of sessions whose manager is gone.

use crate::scene::{Scene, attached, create_repository, finish, identified, point};
use base::Kind;
use base::clock::Timestamp;
use base::digest::Digest;
use base::id::{PointId, RepositoryId};
use base::limit::MESSAGE_SIZE_MAX;
use base::size::ByteCount;
use protocol::paging;
use protocol::words::agent::{AgentRequest, AgentResponse};
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A};
use protocol::words::job::Schedule;
use protocol::words::manager::{
    FoundMachine, LeaseAnswer, ManagerRequest as M, ManagerResponse as R, Resource,
};
use protocol::words::point::{Point, PointDisk, PointKind};
use protocol::words::session::{SessionKind, SessionState};
use protocol::words::span::Span;
use server::api::manager::Attached;
use server::{db, sessions};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_a_session_without_attaching_or_after_its_end() {
    let scene = Scene::new();
    scene.repository("main").await;
    let session = scene
        .session(Q::RepositoryRescan { key: "main".into() })
        .await;
    let stranger = Attached::default();
    assert_eq!(
        stranger
            .answer(&scene.site, M::Heartbeat)
            .unwrap_err()
            .kind(),
        Kind::Denied
    );
    let manager = attached(&scene, session.id);
    manager.answer(&scene.site, finish()).unwrap();
    let late = Attached::default().answer(
        &scene.site,
        M::Attach {
            session: session.id,
            pid: 8,
        },
    );
    assert_eq!(late.unwrap_err().code(), "session.ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_reaches_the_manager_and_lies_nowhere_in_the_open() {
    let scene = Scene::new();
    scene.repository("main").await;
    let session = scene
        .session(Q::RepositoryRescan { key: "main".into() })
        .await;
    let order = sessions::order_for_manager(&scene.site, session.id).unwrap();
    let password = order.repository.unwrap().access.password.unwrap();
    assert_eq!(password.reveal(), "open sesame");
    let state = &scene.site.launch.state;
    for file in ["server/backstay.db", "server/backstay.db-wal"] {
        let bytes = std::fs::read(state.join(file)).unwrap_or_default();
        assert!(
            !bytes.windows(11).any(|window| window == b"open sesame"),
            "{file}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repository_in_the_same_place_is_refused() {
    let scene = Scene::new();
    let known = scene.repository("main").await;
    let session = scene
        .session(Q::RepositoryRescan { key: "main".into() })
        .await;
    let manager = attached(&scene, session.id);
    manager
        .answer(&scene.site, identified(known, known))
        .unwrap();
    let other = RepositoryId::new(77, [7; 10]);
    let error = manager
        .answer(&scene.site, identified(known, other))
        .unwrap_err();
    assert_eq!(error.code(), "repository.changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_could_not_be_made_is_not_remembered() {
    let scene = Scene::new();
    let session = scene.session(create_repository("bad")).await;
    let failed = M::Finish {
        state: SessionState::Failed,
        outcome: None,
    };
    attached(&scene, session.id)
        .answer(&scene.site, failed)
        .unwrap();
    let begun = Instant::now();
    loop {
        match scene.ask(Q::RepositoryList).await.unwrap() {
            A::Repositories(repositories) if repositories.is_empty() => break,
            _ => assert!(
                begun.elapsed() < Duration::from_secs(20),
                "still remembered"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The name is free again.
    scene.session(create_repository("bad")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_of_another_repository_are_not_taken_in() {
    let scene = Scene::new();
    let repository = scene.repository("main").await;
    let job = scene.job("nightly", repository, Schedule::Manual).await;
    let run = scene
        .session(Q::JobRun {
            key: "nightly".into(),
            read_all: false,
        })
        .await;
    let manager = attached(&scene, run.id);
    let found = |points| M::PointsFound {
        repository,
        points,
        complete: None,
    };
    manager
        .answer(&scene.site, found(vec![point(1, repository, job)]))
        .unwrap();
    let foreign = point(2, RepositoryId::new(8, [8; 10]), job);
    let error = manager
        .answer(&scene.site, found(vec![foreign]))
        .unwrap_err();
    assert_eq!(error.code(), "repository.point-foreign");
    assert_eq!(scene.points().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_keep_to_their_limits_and_end_with_the_session() {
    let scene = Scene::new();
    let repository = scene.repository("main").await;
    let _ = repository;
    let a = scene
        .session(Q::RepositoryRescan { key: "main".into() })
        .await;
    let b = scene
        .session(Q::RepositoryCollect { key: "main".into() })
        .await;
    let (first, second) = (attached(&scene, a.id), attached(&scene, b.id));
    let machine = || Resource::Machine {
        host: scene.host,
        platform_id: "x".into(),
    };
    let lease = |manager: &Attached| manager.answer(&scene.site, M::Lease(machine())).unwrap();
    assert_eq!(lease(&first), R::Lease(LeaseAnswer::Granted));
    assert_eq!(lease(&first), R::Lease(LeaseAnswer::Granted));
    assert!(matches!(lease(&second), R::Lease(LeaseAnswer::Wait(_))));
    first.answer(&scene.site, finish()).unwrap();
    assert_eq!(lease(&second), R::Lease(LeaseAnswer::Granted));
    second.answer(&scene.site, finish()).unwrap();
    assert_eq!(
        scene.site.database.transaction(db::lease::total).unwrap(),
        0
    );
}

/// The program that plays the manager ends at once without a word, again and again: the session is
/// given up as failed, says why, and holds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_managers_die_ends_as_failed() {
    let scene = Scene::with_program(std::path::Path::new("/bin/false"));
    let session = scene.session(create_repository("main")).await;
    assert!(matches!(session.kind, SessionKind::CreateRepository { .. }));
    let begun = Instant::now();
    loop {
        let key = session.id.to_string();
        let now = scene
            .site
            .database
            .transaction(|t| db::session::find(t, &key))
            .unwrap();
        if now.state.is_final() {
            assert_eq!(now.state, SessionState::Failed);
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", now.state);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lines = scene
        .site
        .database
        .transaction(|t| db::log::list(t, session.id, 0, 100))
        .unwrap();
    let codes: Vec<_> = lines.iter().map(|line| line.code.as_str()).collect();
    assert_eq!(codes, ["session.manager-lost", "session.recovery-failed"]);
    assert_eq!(
        scene.site.database.transaction(db::lease::total).unwrap(),
        0
    );
}

/// An agent whose repository has these points, in order of their ids.
fn listing(points: &[Point]) -> impl Fn(&AgentRequest) -> base::Result<AgentResponse> {
    move |request| {
        let AgentRequest::ListPoints { after } = request else {
            panic!("{request:?}");
        };
        let rest = points
            .iter()
            .filter(|point| after.is_none_or(|after| point.id > after));
        let page = paging::page(rest.cloned().map(Ok))?;
        Ok(AgentResponse::Points {
            points: page.items,
            more: page.more,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_points_are_found_listed_and_forgotten_page_by_page() {
    let scene = Scene::new();
    let repository = scene.repository("main").await;
    let job = scene.job("nightly", repository, Schedule::Manual).await;
    let points: Vec<Point> = (1..=5000u32)
        .map(|number| Point {
            id: PointId::new(u64::from(number), [7; 10]),
            // Some of one moment.
            created: Timestamp(i64::from(number / 3)),
            disks: (0..10).map(disk).collect(),
            ..point(1, repository, job)
        })
        .collect();
    assert!(paging::encoded_size(&points).unwrap() > MESSAGE_SIZE_MAX);
    let session = scene
        .session(Q::RepositoryRescan { key: "main".into() })
        .await;
    let manager = attached(&scene, session.id);
    let tell = |points, span| {
        let found = M::PointsFound {
            repository,
            points,
            complete: Some(span),
        };
        assert!(paging::encoded_size(&found).unwrap() < MESSAGE_SIZE_MAX);
        manager.answer(&scene.site, found).map(drop)
    };
    paging::point_pages(listing(&points), tell).unwrap();
    let mut newest_first = points.clone();
    newest_first.reverse();
    assert!(scene.points().await == newest_first);

    // Every second is gone, but the manager dies after the first page: nothing beyond is touched.
    let half: Vec<Point> = points.iter().step_by(2).cloned().collect();
    let mut told = 0;
    let cut = paging::point_pages(listing(&half), |points, span| {
        if told > 0 {
            return Err(base::Error::invalid("test.died", "the manager is dead"));
        }
        told = points.len();
        tell(points, span)
    });
    assert_eq!(cut.unwrap_err().code(), "test.died");
    assert!(told > 0 && told < half.len());
    assert_eq!(scene.points().await.len(), 5000 - (told - 1));
    paging::point_pages(listing(&half), tell).unwrap();
    let mut newest_first = half;
    newest_first.reverse();
    assert!(scene.points().await == newest_first);
    paging::point_pages(listing(&[]), tell).unwrap();
    assert_eq!(scene.points().await.len(), 0);
}

fn disk(number: u8) -> PointDisk {
    PointDisk {
        name: format!("disk{number}"),
        size: ByteCount(1 << 40),
        root: Digest([number; 32]),
        kind: PointKind::Incremental,
        attributes: [(
            "path".to_owned(),
            "/var/lib/libvirt/images/a.qcow2".to_owned(),
        )]
        .into(),
        tracker: [("checkpoint".to_owned(), "backstay-0123456789ab".to_owned())].into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_one_page_replace_those_of_its_span_alone() {
    let scene = Scene::new();
    scene.repository("main").await;
    let session = scene
        .session(Q::RepositoryRescan { key: "main".into() })
        .await;
    let manager = attached(&scene, session.id);
    let tell = |names: &[&str], after: Option<&str>, to: Option<&str>| {
        let machine = |name: &&str| FoundMachine {
            platform_id: (*name).into(),
            name: (*name).into(),
            state: "off".into(),
            disks: Vec::new(),
            agent: None,
        };
        let found = M::MachinesFound {
            host: scene.host,
            platform: "libvirt".into(),
            machines: names.iter().map(machine).collect(),
            complete: Span {
                after: after.map(str::to_owned),
                to: to.map(str::to_owned),
            },
        };
        manager.answer(&scene.site, found).unwrap();
    };
    let names = async || match scene.ask(Q::MachineList { from: 0 }).await.unwrap() {
        A::Machines { machines, .. } => machines
            .into_iter()
            .map(|machine| machine.found.name)
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    tell(&["a", "b", "c", "d"], None, None);
    tell(&["a"], None, Some("b"));
    assert_eq!(names().await, ["a", "c", "d"]);
    tell(&["c1"], Some("b"), None);
    assert_eq!(names().await, ["a", "c1"]);
    match scene.ask(Q::MachineList { from: 1 }).await.unwrap() {
        A::Machines { machines, more } => {
            assert_eq!((machines.len(), more), (1, false));
        }
        other => panic!("{other:?}"),
    }
}
