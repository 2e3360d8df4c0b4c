//! What managers say, and what becomes of sessions whose manager is gone.

use crate::scene::{Scene, attached, create_repository, finish, identified, point};
use base::Kind;
use base::id::RepositoryId;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A};
use protocol::words::job::Schedule;
use protocol::words::manager::{LeaseAnswer, ManagerRequest as M, ManagerResponse as R, Resource};
use protocol::words::session::{SessionKind, SessionState};
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
        complete: false,
    };
    manager
        .answer(&scene.site, found(vec![point(1, repository, job)]))
        .unwrap();
    let foreign = point(2, RepositoryId::new(8, [8; 10]), job);
    let error = manager
        .answer(&scene.site, found(vec![foreign]))
        .unwrap_err();
    assert_eq!(error.code(), "repository.point-foreign");
    let A::Points(points) = scene
        .ask(Q::PointList {
            machine: None,
            repository: None,
        })
        .await
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(points.len(), 1);
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
