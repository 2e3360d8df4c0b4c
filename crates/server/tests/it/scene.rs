//! A server in a temporary folder, with a clock to set and managers that do nothing.
//!
//! Knows: how to put one together. Refuses to know: what is tested.

use base::clock::{Clock, Timestamp};
use base::id::{HostId, JobId, MachineId, PointId, RepositoryId, SessionId};
use base::limit::MESSAGE_SIZE_MAX;
use base::os::OsRandom;
use base::size::ByteCount;
use protocol::paging;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A};
use protocol::words::counters::Counters;
use protocol::words::job::{JobSettings, PlatformAddress, Quiesce, Schedule, Selection};
use protocol::words::point::{Consistency, Point, PointDraft, PointKind, PointMachine};
use protocol::words::repository::{
    Compression, RepositoryLocation, RepositoryOptions, RepositorySummary,
};
use protocol::words::secret::Secret;
use protocol::words::session::Session;
use protocol::{Dialer, Identity, LinkOptions, Role};
use server::api::console;
use server::launch::Launch;
use server::site::{Parts, Site};
use server::{db, secrets::Secrets, state::State, up};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A clock that stands until it is set.
pub struct SetClock(AtomicI64);

impl SetClock {
    pub fn set(&self, text: &str) {
        let time: jiff::Timestamp = text.parse().unwrap();
        self.0.store(time.as_microsecond(), Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.now().0.unsigned_abs())
    }
    fn sleep(&self, _: Duration) {}
}

pub struct Scene {
    pub site: Arc<Site>,
    pub clock: Arc<SetClock>,
    pub host: HostId,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// Managers end at once and say nothing: the tests play them.
    pub fn new() -> Self {
        Self::with_program(Path::new("/bin/true"))
    }

    pub fn with_program(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        up::found(&state).unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(0)));
        clock.set("2026-11-22T10:00:00Z");
        let random = Arc::new(OsRandom);
        let identity = Identity::load(&state.identity(Role::Server)).unwrap();
        let database = db::Database::open(&state.server_file("backstay.db").unwrap()).unwrap();
        state.register_local_host(&database, "127.0.0.1:1").unwrap();
        let site = Site::new(Parts {
            database,
            secrets: Secrets::open(&state.server_file("secrets.key").unwrap(), random.as_ref())
                .unwrap(),
            launch: Launch {
                program: program.to_owned(),
                state: state.folder().to_owned(),
                server: "127.0.0.1:1".into(),
            },
            dialer: Dialer::new(identity, LinkOptions::default()),
            host: state.host().unwrap(),
            clock: clock.clone(),
            random,
        });
        Self {
            site: Arc::new(site),
            clock,
            host: state.host().unwrap(),
            _folder: folder,
        }
    }

    pub async fn ask(&self, request: Q) -> base::Result<A> {
        console::answer(&self.site, "tester", request).await
    }

    /// All points, as a console asks for them; no answer is too large for a message.
    pub async fn points(&self) -> Vec<Point> {
        let mut all: Vec<Point> = Vec::new();
        loop {
            let request = Q::PointList {
                machine: None,
                repository: None,
                after: all.last().map(|point| (point.created, point.id)),
            };
            let answer = self.ask(request).await.unwrap();
            assert!(paging::encoded_size(&answer).unwrap() < MESSAGE_SIZE_MAX);
            match answer {
                A::Points { points, more } => {
                    all.extend(points);
                    if !more {
                        return all;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn session(&self, request: Q) -> Session {
        match self.ask(request).await.unwrap() {
            A::Session(session) => *session,
            other => panic!("{other:?}"),
        }
    }

    /// A repository that has said who it is.
    pub async fn repository(&self, name: &str) -> RepositoryId {
        let session = self.session(create_repository(name)).await;
        let known_as = match session.kind {
            protocol::words::session::SessionKind::CreateRepository { repository, .. } => {
                repository
            }
            other => panic!("{other:?}"),
        };
        let id = RepositoryId::generate(self.clock.as_ref(), &OsRandom);
        let manager = attached(self, session.id);
        manager
            .answer(&self.site, identified(known_as, id))
            .unwrap();
        manager.answer(&self.site, finish()).unwrap();
        id
    }

    pub async fn job(&self, name: &str, repository: RepositoryId, schedule: Schedule) -> JobId {
        let settings = settings(name, self.host, repository, schedule);
        match self.ask(Q::JobCreate(settings)).await.unwrap() {
            A::Job(job) => job.id,
            other => panic!("{other:?}"),
        }
    }
}

pub fn attached(scene: &Scene, session: SessionId) -> server::api::manager::Attached {
    let manager = server::api::manager::Attached::default();
    let attach = protocol::words::manager::ManagerRequest::Attach { session, pid: 7 };
    manager.answer(&scene.site, attach).unwrap();
    manager
}

pub fn identified(
    repository: RepositoryId,
    id: RepositoryId,
) -> protocol::words::manager::ManagerRequest {
    protocol::words::manager::ManagerRequest::RepositoryIdentified {
        repository,
        summary: RepositorySummary {
            id,
            format_version: 1,
            encrypted: true,
            created: Timestamp(0),
            capacity: ByteCount(100),
            free: ByteCount(50),
            points: 0,
            stored: ByteCount(0),
            damaged_points: Vec::new(),
        },
    }
}

pub fn finish() -> protocol::words::manager::ManagerRequest {
    protocol::words::manager::ManagerRequest::Finish {
        state: protocol::words::session::SessionState::Success,
        outcome: None,
    }
}

pub fn create_repository(name: &str) -> Q {
    Q::RepositoryCreate {
        name: name.into(),
        host: "local".into(),
        location: RepositoryLocation::Folder {
            path: format!("/backup/{name}"),
        },
        password: Some(Secret::new("open sesame")),
        options: RepositoryOptions {
            encrypted: true,
            compression: Compression::Fast,
        },
    }
}

pub fn settings(
    name: &str,
    host: HostId,
    repository: RepositoryId,
    schedule: Schedule,
) -> JobSettings {
    JobSettings {
        name: name.into(),
        host,
        platform: PlatformAddress::Libvirt {
            uri: "qemu:///system".into(),
        },
        selection: Selection::Machines(vec!["web1".into()]),
        repository,
        schedule,
        keep_points: 3,
        quiesce: Quiesce::IfPossible,
        compression: Compression::Fast,
        enabled: true,
    }
}

pub fn point(number: u8, repository: RepositoryId, job: JobId) -> Point {
    Point {
        id: PointId::new(u64::from(number), [number; 10]),
        repository,
        created: Timestamp(i64::from(number) * 1_000_000),
        draft: PointDraft {
            machine: PointMachine {
                id: MachineId::of_platform("libvirt", "uuid-1"),
                name: "web1".into(),
                platform: "libvirt".into(),
                platform_id: "uuid-1".into(),
                host: "kvm1".into(),
            },
            job: Some((job, "nightly".into())),
            session: SessionId::new(1, [0; 10]),
            consistency: Consistency::FileSystem,
            parent: None,
        },
        kind: PointKind::Full,
        disks: Vec::new(),
        files: Vec::new(),
        counters: Counters::default(),
    }
}
