//! The service and its agents as real processes, led over TLS, killed at will.

use crate::commands::{Ask, access, draft, order, write_image};
use crate::world::{Site, point_id};
use base::Result;
use base::id::SessionId;
use base::os::{OsClock, OsRandom};
use base::random::{Random, SeededRandom};
use base::size::MIB;
use protocol::paging;
use protocol::words::agent::{AgentRequest, AgentResponse, TaskEnd};
use protocol::words::mover::{MoverRequest as M, MoverResponse as R, RunningAgent};
use protocol::words::point::Point;
use protocol::words::repository::{Compression, RepositoryOptions};
use protocol::{BlockingClient, Dialer, Expect, Identity, LinkOptions, Role};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The mover's roles as a program: `examples/mover.rs`, which cargo builds with the tests.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/mover");
    assert!(
        program.exists(),
        "{} is not there; build it: cargo build -p mover --examples",
        program.display()
    );
    program
}

/// A port that nothing else of these tests uses.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = 30_000 + u16::try_from(std::process::id() % 2000).unwrap();
    from + NEXT.fetch_add(1, Ordering::SeqCst)
}

/// A host with a mover service.
struct Host {
    folder: tempfile::TempDir,
    site: Site,
    manager: Identity,
    runtime: Runtime,
    port: u16,
    patience: u64,
    service: Option<Child>,
}

impl Host {
    fn new(patience: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::new();
        site.save(Role::Mover, &folder.path().join("identity/mover"));
        site.save(Role::Agent, &folder.path().join("identity/agent"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let manager = site.identity(Role::Manager);
        let mut host = Self {
            folder,
            site,
            manager,
            runtime,
            port: port(),
            patience,
            service: None,
        };
        host.start();
        host
    }

    fn start(&mut self) {
        let child = Command::new(program())
            .arg("mover")
            .arg("--state")
            .arg(self.folder.path())
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--ports", "33000-39999"])
            .args(["--patience", &self.patience.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.service = Some(child);
    }

    /// kill -9 to the service alone.
    fn kill_service(&mut self) {
        let mut service = self.service.take().unwrap();
        service.kill().unwrap();
        service.wait().unwrap();
    }

    fn dial<Q, A>(
        &self,
        as_whom: &Identity,
        address: &str,
        role: Role,
    ) -> Result<BlockingClient<Q, A>>
    where
        Q: serde::Serialize + Send + Sync + 'static,
        A: serde::de::DeserializeOwned + Send + 'static,
    {
        let dialer = Dialer::new(as_whom.clone(), LinkOptions::default());
        BlockingClient::dial(self.runtime.handle(), &dialer, address, Expect::role(role))
    }

    /// Asks the service, waiting until it is up.
    fn ask(&self, request: M) -> R {
        let start = Instant::now();
        loop {
            let address = format!("127.0.0.1:{}", self.port);
            match self.dial::<M, R>(&self.manager, &address, Role::Mover) {
                Ok(client) => return client.call(&request).unwrap(),
                Err(error) => {
                    assert!(start.elapsed().as_secs() < 30, "{error}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn agent(&self, session: SessionId) -> (RunningAgent, Agent) {
        let purpose = "web1/vda --odd".to_owned();
        let R::Started(agent) = self.ask(M::StartAgent { session, purpose }) else {
            panic!()
        };
        let link = self
            .dial(&self.manager, &agent.address, Role::Agent)
            .unwrap();
        (agent, Agent(link))
    }

    fn agents(&self) -> Vec<RunningAgent> {
        match self.ask(M::ListAgents { session: None }) {
            R::Agents(agents) => agents,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.service.is_some() {
            self.kill_service();
        }
    }
}

struct Agent(BlockingClient<AgentRequest, AgentResponse>);

impl Ask for Agent {
    fn ask(&self, request: AgentRequest) -> Result<AgentResponse> {
        self.0.call(&request)
    }
}

fn session() -> SessionId {
    SessionId::generate(&OsClock, &OsRandom)
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .unwrap()
            .1
            .trim_start()
            .starts_with('Z')
    })
}

fn wait_gone(pid: u32, patience: Duration) {
    let start = Instant::now();
    while is_alive(pid) {
        assert!(start.elapsed() < patience, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_agent_is_started_obeys_its_manager_alone_and_is_stopped() {
    let host = Host::new(30);
    let R::Health(health) = host.ask(M::Health) else {
        panic!()
    };
    assert_eq!(health.agents, 0);
    let session = session();
    let (agent, link) = host.agent(session);
    assert_eq!(host.agents(), std::slice::from_ref(&agent));
    // Another manager of the same site is refused.
    let other = host.site.identity(Role::Manager);
    let refused = host
        .dial::<AgentRequest, AgentResponse>(&other, &agent.address, Role::Agent)
        .and_then(|link| link.call(&AgentRequest::ListPoints { after: None }));
    assert_eq!(refused.unwrap_err().code(), "mover.agent.not-yours");

    let repository_folder = host.folder.path().join("repository");
    let image = host.folder.path().join("disk.raw");
    write_image(&image, 8 * MIB, 51);
    let made = crate::commands::back_up_image(&link, &repository_folder, &image, 8 * MIB);
    assert_eq!(made.disks.len(), 1);
    assert_eq!(host.ask(M::StopAgents { session }), R::Stopped(1));
    assert!(!is_alive(agent.pid));
    assert_eq!(host.ask(M::StopAgents { session }), R::Stopped(0));
    assert!(host.agents().is_empty());
}

#[test]
fn a_killed_service_finds_its_agents_again_and_they_go_on() {
    let mut host = Host::new(30);
    let session = session();
    let (agent, link) = host.agent(session);
    let (repository_folder, image) = (
        host.folder.path().join("repository"),
        host.folder.path().join("disk.raw"),
    );
    write_image(&image, 8 * MIB, 52);
    let options = RepositoryOptions::default();
    link.ask(AgentRequest::CreateRepository {
        access: access(&repository_folder, None),
        options,
    })
    .unwrap();
    let begin = AgentRequest::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    link.ask(begin).unwrap();
    host.kill_service();
    // The agent works on while there is no service.
    let report = link.run(AgentRequest::CopyDisk {
        order: order("vda", &image, 8 * MIB),
    });
    assert!(matches!(report.end, Some(TaskEnd::Disk(_))));
    host.start();
    assert_eq!(host.agents(), std::slice::from_ref(&agent));
    let commit = AgentRequest::CommitPoint {
        draft: draft(),
        trackers: BTreeMap::new(),
    };
    assert!(matches!(link.ask(commit).unwrap(), AgentResponse::Point(_)));
    // A service that did not start it can end it.
    assert_eq!(host.ask(M::StopAgents { session }), R::Stopped(1));
    wait_gone(agent.pid, Duration::from_secs(5));
}

#[test]
fn an_agent_whose_manager_is_gone_ends_and_leaves_no_half_point() {
    let mut host = Host::new(1);
    let (agent, link) = host.agent(session());
    let (repository_folder, image) = (
        host.folder.path().join("repository"),
        host.folder.path().join("disk.raw"),
    );
    write_image(&image, 8 * MIB, 53);
    let options = RepositoryOptions::default();
    link.ask(AgentRequest::CreateRepository {
        access: access(&repository_folder, None),
        options,
    })
    .unwrap();
    let begin = AgentRequest::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    link.ask(begin).unwrap();
    link.run(AgentRequest::CopyDisk {
        order: order("vda", &image, 8 * MIB),
    });
    // With its link it stays, however long it waits for orders.
    std::thread::sleep(Duration::from_secs(3));
    assert!(is_alive(agent.pid));
    host.kill_service();
    drop(link);
    wait_gone(agent.pid, Duration::from_secs(30));
    let writers = std::fs::read_dir(repository_folder.join("writers"))
        .unwrap()
        .count();
    assert_eq!(writers, 0, "the writer left its folder");
    assert_eq!(
        std::fs::read_dir(repository_folder.join("points"))
            .unwrap()
            .count(),
        0
    );
    host.start();
    assert!(host.agents().is_empty());
}

#[test]
fn an_agent_that_is_killed_leaves_a_repository_that_works() {
    let host = Host::new(30);
    let (repository_folder, image) = (
        host.folder.path().join("repository"),
        host.folder.path().join("disk.raw"),
    );
    write_image(&image, 64 * MIB, 54);
    let session = session();
    let (_, link) = host.agent(session);
    let options = RepositoryOptions::default();
    link.ask(AgentRequest::CreateRepository {
        access: access(&repository_folder, None),
        options,
    })
    .unwrap();
    for wait in [0, 20, 60, 150] {
        let (agent, link) = host.agent(session);
        link.ask(AgentRequest::OpenRepository {
            access: access(&repository_folder, None),
        })
        .unwrap();
        let begin = AgentRequest::BeginPoint {
            point: point_id(),
            compression: Compression::Fast,
        };
        link.ask(begin).unwrap();
        link.ask(AgentRequest::CopyDisk {
            order: order("vda", &image, 64 * MIB),
        })
        .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let kill = Command::new("kill")
            .args(["-9", &agent.pid.to_string()])
            .status();
        assert!(kill.unwrap().success());
        wait_gone(agent.pid, Duration::from_secs(5));
    }
    let end = link
        .run(AgentRequest::Verify {
            point: None,
            read_data: true,
        })
        .end;
    assert!(
        matches!(&end, Some(TaskEnd::Verified { damages, .. }) if damages.is_empty()),
        "{end:?}"
    );
    assert!(crate::commands::all_points(&link).is_empty());
    let begin = AgentRequest::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    link.ask(begin).unwrap();
    link.run(AgentRequest::CopyDisk {
        order: order("vda", &image, 64 * MIB),
    });
    let commit = AgentRequest::CommitPoint {
        draft: draft(),
        trackers: BTreeMap::new(),
    };
    link.ask(commit).unwrap();
    assert!(matches!(host.ask(M::StopAgents { session }), R::Stopped(_)));
}

#[test]
fn what_is_longer_than_a_message_travels_all_the_same() {
    let host = Host::new(30);
    let session = session();
    let (_, link) = host.agent(session);
    let ask = |request: &AgentRequest| link.ask(request.clone());
    let folder = tempfile::tempdir().unwrap();
    let create = AgentRequest::CreateRepository {
        access: access(&folder.path().join("repository"), None),
        options: RepositoryOptions::default(),
    };
    link.ask(create).unwrap();
    let image = folder.path().join("disk.raw");
    write_image(&image, MIB, 5);

    // A kernel as guests have that are started without a boot loader.
    let mut kernel = vec![0; 14_000_000];
    SeededRandom::new(9).fill(&mut kernel);
    let path = folder.path().join("vmlinuz").display().to_string();
    paging::write_host_file(ask, &path, &kernel).unwrap();
    assert!(std::fs::read(&path).unwrap() == kernel);
    assert!(paging::read_host_file(ask, &path).unwrap() == kernel);

    // Points whose records alone have more bytes than one message may have.
    let mut made = Vec::new();
    for number in 0..24 {
        let begin = AgentRequest::BeginPoint {
            point: point_id(),
            compression: Compression::Fast,
        };
        link.ask(begin).unwrap();
        let mut order = order("vda", &image, MIB);
        let note = format!("{number}").repeat(150_000);
        order.attributes.insert("note".to_owned(), note);
        let report = link.run(AgentRequest::CopyDisk { order });
        assert!(
            matches!(report.end, Some(TaskEnd::Disk(_))),
            "{:?}",
            report.end
        );
        if number == 0 {
            let file = paging::put_file(ask, "vmlinuz", &kernel).unwrap();
            assert_eq!(file.size.0, kernel.len() as u64);
        }
        let commit = AgentRequest::CommitPoint {
            draft: draft(),
            trackers: BTreeMap::new(),
        };
        match link.ask(commit).unwrap() {
            AgentResponse::Point(point) => made.push(*point),
            other => panic!("{other:?}"),
        }
    }
    let listed = paging::points(ask).unwrap();
    assert!(paging::encoded_size(&listed).unwrap() > base::limit::MESSAGE_SIZE_MAX);
    let ids = |points: &[Point]| points.iter().map(|point| point.id).collect::<Vec<_>>();
    assert_eq!(ids(&listed), ids(&made));
    assert!(paging::read_file(ask, made[0].id, "vmlinuz").unwrap() == kernel);
    assert!(matches!(host.ask(M::StopAgents { session }), R::Stopped(_)));
}
