//! What the command line gets for good and bad requests.

use crate::scene::{Scene, attached, create_repository, finish, settings};
use base::Kind;
use base::id::{RepositoryId, SessionId};
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A};
use protocol::words::job::{PlatformAddress, Schedule, Selection};
use protocol::words::manager::ManagerRequest;
use protocol::words::repository::RepositoryOptions;
use protocol::words::session::{SessionState, Stop};
use server::clockwork;

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_of_one_job_at_once_are_refused_and_nothing_is_lost() {
    let scene = Scene::with_program(std::path::Path::new("/bin/true"));
    let repository = scene.repository("main").await;
    scene.job("nightly", repository, Schedule::Manual).await;
    let run = || Q::JobRun {
        key: "nightly".into(),
        read_all: false,
    };
    let first = scene.session(run()).await;
    let error = scene.ask(run()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Conflict, "job.already-running")
    );
    attached(&scene, first.id)
        .answer(&scene.site, finish())
        .unwrap();
    let second = scene.session(run()).await;
    assert_ne!(first.id, second.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_exist_and_input_without_sense_say_so() {
    let scene = Scene::new();
    let repository = scene.repository("main").await;
    let mut relative = create_repository("other");
    if let Q::RepositoryCreate { location, .. } = &mut relative {
        *location = protocol::words::repository::RepositoryLocation::Folder { path: "x/y".into() };
    }
    let mut open_door = create_repository("other");
    if let Q::RepositoryCreate {
        password, options, ..
    } = &mut open_door
    {
        (*password, *options) = (
            None,
            RepositoryOptions {
                encrypted: true,
                ..Default::default()
            },
        );
    }
    let mut same_place = create_repository("main");
    if let Q::RepositoryCreate { name, .. } = &mut same_place {
        *name = "again".into();
    }
    let good = || settings("j", scene.host, repository, Schedule::Manual);
    let job = |change: &dyn Fn(&mut protocol::words::job::JobSettings)| {
        let mut settings = good();
        change(&mut settings);
        Q::JobCreate(settings)
    };
    let gone = RepositoryId::new(9, [9; 10]);
    let cases = [
        (relative, "repository.path-relative"),
        (open_door, "repository.password-missing"),
        (same_place, "repository.place-taken"),
        (create_repository("main"), "repository.place-taken"),
        (create_repository(" x"), "repository.name-invalid"),
        (
            Q::RepositoryRescan { key: "no".into() },
            "repository.not-found",
        ),
        (
            Q::JobRun {
                key: "no".into(),
                read_all: false,
            },
            "job.not-found",
        ),
        (
            Q::SessionShow {
                key: "12345678".into(),
            },
            "session.not-found",
        ),
        (
            Q::PointShow {
                key: "12345678".into(),
            },
            "point.not-found",
        ),
        (Q::PointDelete { keys: vec![] }, "point.none-named"),
        (
            Q::HostRemove {
                key: "local".into(),
            },
            "host.in-use",
        ),
        (job(&|s| s.keep_points = 0), "job.keep-invalid"),
        (
            job(&|s| s.selection = Selection::Machines(vec![])),
            "job.selection-empty",
        ),
        (job(&|s| s.repository = gone), "repository.not-found"),
        (job(&|s| s.name = "a\nb".into()), "job.name-invalid"),
        (
            job(&|s| {
                s.schedule = Schedule::Daily {
                    hour: 25,
                    minute: 0,
                    zone: "UTC".into(),
                }
            }),
            "job.schedule.invalid",
        ),
        (
            job(&|s| {
                s.platform = PlatformAddress::Libvirt {
                    uri: "esx://x".into(),
                }
            }),
            "job.platform-uri",
        ),
    ];
    for (request, code) in cases {
        let shown = format!("{request:?}");
        let error = scene.ask(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_use_stays_and_a_free_one_is_forgotten() {
    let scene = Scene::new();
    let repository = scene.repository("main").await;
    scene.job("nightly", repository, Schedule::Manual).await;
    let remove = || Q::RepositoryRemove { key: "main".into() };
    assert_eq!(
        scene.ask(remove()).await.unwrap_err().code(),
        "repository.in-use"
    );
    assert_eq!(
        scene
            .ask(Q::JobDelete {
                key: "nightly".into()
            })
            .await
            .unwrap(),
        A::Done
    );
    assert_eq!(scene.ask(remove()).await.unwrap(), A::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn due_jobs_run_once_a_slot_and_a_run_at_work_swallows_the_next() {
    let scene = Scene::new();
    let repository = scene.repository("main").await;
    let daily = Schedule::Daily {
        hour: 22,
        minute: 0,
        zone: "UTC".into(),
    };
    let job = scene.job("nightly", repository, daily).await;
    let runs = async || match scene
        .ask(Q::SessionList {
            job: Some("nightly".into()),
            limit: 100,
            after: None,
        })
        .await
        .unwrap()
    {
        A::Sessions { sessions, .. } => sessions,
        other => panic!("{other:?}"),
    };
    clockwork::tick(&scene.site).unwrap();
    assert_eq!(runs().await.len(), 0);
    scene.clock.set("2026-11-22T22:00:00Z");
    clockwork::tick(&scene.site).unwrap();
    clockwork::tick(&scene.site).unwrap();
    assert_eq!(runs().await.len(), 1);
    // Still running a day later: that slot is skipped, not queued.
    scene.clock.set("2026-11-23T22:00:00Z");
    clockwork::tick(&scene.site).unwrap();
    assert_eq!(runs().await.len(), 1);
    attached(&scene, runs().await[0].id)
        .answer(&scene.site, finish())
        .unwrap();
    clockwork::tick(&scene.site).unwrap();
    assert_eq!(runs().await.len(), 1, "the skipped slot is not caught up");
    // No server for three days: one run when it is back.
    scene.clock.set("2026-11-27T09:00:00Z");
    clockwork::tick(&scene.site).unwrap();
    clockwork::tick(&scene.site).unwrap();
    let all = runs().await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].initiator, "schedule");
    let _ = job;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_reaches_the_manager_and_the_stronger_one_wins() {
    let scene = Scene::new();
    let repository = scene.repository("main").await;
    let _ = repository;
    let session = scene
        .session(Q::RepositoryCollect { key: "main".into() })
        .await;
    let manager = attached(&scene, session.id);
    let beat = || {
        manager
            .answer(&scene.site, ManagerRequest::Heartbeat)
            .unwrap()
    };
    use protocol::words::manager::ManagerResponse::Alive;
    assert_eq!(beat(), Alive(None));
    let stop = |stop| Q::SessionStop {
        key: session.id.short(),
        stop,
    };
    scene.ask(stop(Stop::Now)).await.unwrap();
    scene.ask(stop(Stop::AfterCurrent)).await.unwrap();
    assert_eq!(beat(), Alive(Some(Stop::Now)));
    manager
        .answer(
            &scene.site,
            ManagerRequest::Finish {
                state: SessionState::Stopped,
                outcome: None,
            },
        )
        .unwrap();
    assert_eq!(
        scene.ask(stop(Stop::Now)).await.unwrap_err().code(),
        "session.ended"
    );
    let unknown = Q::SessionFollow {
        session: SessionId::new(1, [1; 10]),
        seen: 0,
        line: 0,
    };
    assert_eq!(
        scene.ask(unknown).await.unwrap_err().code(),
        "session.not-found"
    );
}
