//! Disks between two executors over TLS on the loopback.

use crate::commands::{Ask, access, back_up_image, draft, order, write_image};
use crate::world::{Site, point_id};
use base::id::StreamId;
use base::os::{OsClock, OsRandom};
use base::random::Random;
use base::size::{ByteCount, MIB};
use mount::nbd::{Export, ExportTable, Listen, NbdServer};
use mover::agent::Ports;
use mover::executor::{Executor, Network};
use protocol::words::agent::{
    AgentRequest as Q, AgentResponse as A, DiskOrder, DiskSource, ImageTarget, ReadMode,
    StreamTicket, TaskEnd,
};
use protocol::words::point::PointKind;
use protocol::words::repository::{Compression, RepositoryOptions};
use protocol::words::secret::Secret;
use protocol::{Role, StreamToken};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Two agents' executors of one site.
pub struct Pair {
    pub source: Executor,
    pub target: Executor,
    /// Of the same site, for those who play an agent themselves.
    pub site: Site,
    /// Where links live.
    pub runtime: Runtime,
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

pub fn network(site: &Site, runtime: &Runtime) -> Network {
    Network {
        identity: site.identity(Role::Agent),
        runtime: runtime.handle().clone(),
        listen: "127.0.0.1".parse().unwrap(),
        ports: Ports {
            from: 20_000,
            to: 29_999,
        },
        reached_at: "127.0.0.1".to_owned(),
    }
}

impl Pair {
    pub fn new() -> Self {
        let (site, runtime) = (Site::new(), runtime());
        Self {
            source: Executor::of_this_machine().with_network(network(&site, &runtime)),
            target: Executor::of_this_machine().with_network(network(&site, &runtime)),
            site,
            runtime,
        }
    }

    pub fn create(&self, repository_folder: &Path) {
        let options = RepositoryOptions::default();
        self.target
            .ask(Q::CreateRepository {
                access: access(repository_folder, None),
                options,
            })
            .unwrap();
    }

    /// Sends a disk; how both ends came out.
    fn send(&self, receive: DiskOrder, send: DiskOrder) -> (TaskEnd, TaskEnd, ByteCount) {
        let stream = ticket();
        let order = Q::ReceiveDisk {
            order: receive,
            stream: stream.clone(),
        };
        let A::Listening(receiving, to) = self.target.ask(order).unwrap() else {
            panic!()
        };
        let sending = Q::SendDisk {
            order: send,
            to,
            stream,
        };
        let A::Started(sending) = self.source.ask(sending).unwrap() else {
            panic!()
        };
        let sent = self.source.end(sending);
        let received = self.target.end(receiving);
        (
            sent.end.unwrap(),
            received.end.unwrap(),
            received.counters.transferred,
        )
    }
}

pub fn ticket() -> StreamTicket {
    let id = StreamId::generate(&OsClock, &OsRandom);
    StreamToken::generate(id, &OsRandom).ticket()
}

pub fn code(end: &TaskEnd) -> &str {
    match end {
        TaskEnd::Failed { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_is_backed_up_and_restored_from_agent_to_agent() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    let size = 40 * MIB + 512;
    write_image(&image, size, 11);
    let pair = Pair::new();
    pair.create(&folder.path().join("repository"));
    let point = point_id();
    pair.target
        .ask(Q::BeginPoint {
            point,
            compression: Compression::Fast,
        })
        .unwrap();
    let whole = order("vda", &image, size);
    let blind = |order: &DiskOrder| DiskOrder {
        source: None,
        ..order.clone()
    };
    let (sent, received, first_bytes) = pair.send(blind(&whole), whole.clone());
    assert_eq!(sent, TaskEnd::Sent);
    let TaskEnd::Disk(disk) = received else {
        panic!("{received:?}")
    };
    let made = pair.target.ask(Q::CommitPoint {
        draft: draft(),
        trackers: BTreeMap::new(),
    });
    let A::Point(made) = made.unwrap() else {
        panic!()
    };
    assert!(made.counters.read.0 > 0 && made.counters.processed == ByteCount(size));

    // The same in one process gives the same root in the same repository, and nothing new.
    let again = point_id();
    pair.target
        .ask(Q::BeginPoint {
            point: again,
            compression: Compression::Fast,
        })
        .unwrap();
    let report = pair.target.run(Q::CopyDisk {
        order: whole.clone(),
    });
    let Some(TaskEnd::Disk(local)) = &report.end else {
        panic!()
    };
    assert_eq!(
        (local.root, report.counters.stored),
        (disk.root, ByteCount::ZERO)
    );
    // And once more over the network, only questions and answers flow.
    let known = DiskOrder {
        name: "vdb".to_owned(),
        ..whole
    };
    let (_, received, second_bytes) = pair.send(blind(&known), known.clone());
    assert!(matches!(received, TaskEnd::Disk(known) if known.root == disk.root));
    assert!(
        second_bytes.0 < first_bytes.0 / 20,
        "{second_bytes} of {first_bytes}"
    );
    pair.target.ask(Q::AbortPoint).unwrap();

    for (name, format) in [("back.raw", "raw"), ("back.qcow2", "qcow2")] {
        let path = folder.path().join(name);
        let target = ImageTarget {
            path: path.display().to_string(),
            format: format.to_owned(),
            overwrite: false,
        };
        let stream = ticket();
        let receive = Q::ReceiveImage {
            size: ByteCount(size),
            target,
            stream: stream.clone(),
        };
        let A::Listening(receiving, to) = pair.source.ask(receive).unwrap() else {
            panic!()
        };
        let send = Q::SendPointDisk {
            point,
            disk: "vda".to_owned(),
            to,
            stream,
        };
        let A::Started(sending) = pair.target.ask(send).unwrap() else {
            panic!()
        };
        assert_eq!(pair.target.end(sending).end, Some(TaskEnd::Sent));
        let end = pair.source.end(receiving).end;
        assert_eq!(end, Some(TaskEnd::Restored { root: disk.root }));
        let back = disk::open(&path).unwrap();
        let mut bytes = vec![0; size as usize];
        base::block::BlockRead::read_at(&back, base::size::ByteOffset(0), &mut bytes).unwrap();
        assert!(bytes == std::fs::read(&image).unwrap(), "{format}");
    }
}

#[test]
fn only_changes_travel_where_a_bitmap_marks_them() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    let size = 64 * MIB;
    let run = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program).args(arguments).status();
        let status = status.unwrap_or_else(|error| {
            panic!("{program}: {error}; install it: apt-get install qemu-utils")
        });
        assert!(status.success(), "{program} {arguments:?}");
    };
    let path = image.display().to_string();
    run("qemu-img", &["create", "-q", "-f", "qcow2", &path, "64M"]);
    let write = |pattern: &str, place: &str, length: &str| {
        let command = format!("write -q -P {pattern} {place} {length}");
        run("qemu-io", &["-f", "qcow2", "-c", &command, &path]);
    };
    for (pattern, place) in [("1", "0"), ("2", "9M"), ("3", "30M"), ("4", "60M")] {
        write(pattern, place, "2M");
    }
    let pair = Pair::new();
    pair.create(&folder.path().join("repository"));
    let base = point_id();
    pair.target
        .ask(Q::BeginPoint {
            point: base,
            compression: Compression::Fast,
        })
        .unwrap();
    let report = pair.target.run(Q::CopyDisk {
        order: order("vda", &image, size),
    });
    assert!(matches!(report.end, Some(TaskEnd::Disk(_))), "{report:?}");
    pair.target
        .ask(Q::CommitPoint {
            draft: draft(),
            trackers: BTreeMap::new(),
        })
        .unwrap();
    run("qemu-img", &["bitmap", "--add", "-f", "qcow2", &path, "b0"]);
    write("9", "9M", "1M");
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -q -z 30M 1M", &path],
    );

    let socket = folder.path().join("nbd.sock");
    let mut server = std::process::Command::new("qemu-nbd")
        .args([
            "-f", "qcow2", "-r", "-A", "-B", "b0", "-x", "vda", "-t", "-k",
        ])
        .arg(&socket)
        .arg(&image)
        .spawn()
        .unwrap();
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let changed = DiskOrder {
        source: Some(DiskSource::NbdUnix {
            socket: socket.display().to_string(),
            export: "vda".to_owned(),
            changed: Some("qemu:dirty-bitmap:b0".to_owned()),
        }),
        base: Some(base),
        mode: ReadMode::Changed,
        ..order("vda", &image, size)
    };
    let point = point_id();
    pair.target
        .ask(Q::BeginPoint {
            point,
            compression: Compression::Fast,
        })
        .unwrap();
    let blind = DiskOrder {
        source: None,
        ..changed.clone()
    };
    let (sent, received, _) = pair.send(blind, changed.clone());
    assert_eq!(sent, TaskEnd::Sent);
    let TaskEnd::Disk(remote) = received else {
        panic!("{received:?}")
    };
    assert_eq!(remote.kind, PointKind::Incremental);
    // The same through one process, and by reading everything.
    let named = |name: &str, order: &DiskOrder| DiskOrder {
        name: name.to_owned(),
        ..order.clone()
    };
    let full = DiskOrder {
        mode: ReadMode::All,
        base: None,
        ..changed.clone()
    };
    let report = pair.target.run(Q::CopyDisk {
        order: named("vdx", &full),
    });
    assert!(matches!(&report.end, Some(TaskEnd::Disk(disk)) if disk.root == remote.root));
    pair.target.ask(Q::AbortPoint).unwrap();
    pair.target
        .ask(Q::BeginPoint {
            point,
            compression: Compression::Fast,
        })
        .unwrap();
    let report = pair.target.run(Q::CopyDisk { order: changed });
    assert!(matches!(&report.end, Some(TaskEnd::Disk(disk)) if disk.root == remote.root));
    // 1 MiB of data was read of the 2 MiB that are marked: the zeros were not.
    assert_eq!(report.counters.changed, ByteCount(2 * MIB));
    assert_eq!(report.counters.read, ByteCount(MIB));
    drop(server.kill());
    drop(server.wait());
}

#[test]
fn our_own_nbd_server_is_a_source_too() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    write_image(&image, 16 * MIB, 21);
    let exported = Arc::new(disk::raw::open(&image).unwrap());
    let table = ExportTable::new();
    table.add("x", Export::read_only(exported)).unwrap();
    let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let running = NbdServer::new(table).start(&listen).unwrap();
    let port = running.tcp_address().unwrap().port();
    let executor = Executor::of_this_machine();
    let (truth, nbd) = (
        order("vda", &image, 16 * MIB),
        order("vdb", &image, 16 * MIB),
    );
    let nbd = DiskOrder {
        source: Some(DiskSource::NbdTcp {
            host: "127.0.0.1".to_owned(),
            port,
            export: "x".to_owned(),
            changed: None,
        }),
        ..nbd
    };
    let repository_folder = folder.path().join("repository");
    let options = RepositoryOptions::default();
    executor
        .ask(Q::CreateRepository {
            access: access(&repository_folder, None),
            options,
        })
        .unwrap();
    let begin = Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    executor.ask(begin).unwrap();
    let roots = [truth, nbd].map(|order| match executor.run(Q::CopyDisk { order }).end {
        Some(TaskEnd::Disk(disk)) => disk.root,
        other => panic!("{other:?}"),
    });
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn a_source_that_vanishes_ends_the_task_and_one_that_is_slow_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    let size = 256 * MIB;
    std::fs::write(&image, vec![5; size as usize]).unwrap();
    let executor = Executor::of_this_machine();
    let options = RepositoryOptions::default();
    let access = access(&folder.path().join("repository"), None);
    executor
        .ask(Q::CreateRepository { access, options })
        .unwrap();
    let begin = Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    executor.ask(begin).unwrap();
    for vanish in [true, false] {
        let slow = disk::layer::FaultDisk::new(disk::raw::open(&image).unwrap());
        let delay = disk::layer::Fault::Delay(std::time::Duration::from_millis(100));
        slow.arm(base::size::ByteRange::new(0, size), delay, u64::MAX);
        let table = ExportTable::new();
        table.add("x", Export::read_only(Arc::new(slow))).unwrap();
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let running = NbdServer::new(table).start(&listen).unwrap();
        let source = DiskSource::NbdTcp {
            host: "127.0.0.1".to_owned(),
            port: running.tcp_address().unwrap().port(),
            export: "x".to_owned(),
            changed: None,
        };
        let order = DiskOrder {
            source: Some(source),
            ..order("vda", &image, size)
        };
        let A::Started(task) = executor.ask(Q::CopyDisk { order }).unwrap() else {
            panic!()
        };
        loop {
            let progress = Q::Progress {
                task,
                wait_millis: 5,
            };
            let A::Task(report) = executor.ask(progress).unwrap() else {
                panic!()
            };
            assert!(report.end.is_none(), "{report:?}");
            if report.counters.read.0 > 0 {
                break;
            }
        }
        let start = std::time::Instant::now();
        if vanish {
            running.stop(std::time::Duration::ZERO);
            let end = executor.end(task).end.unwrap();
            let TaskEnd::Failed { kind, message, .. } = end else {
                panic!("{end:?}")
            };
            assert_eq!(kind, base::Kind::Unreachable, "{message}");
        } else {
            executor.ask(Q::Cancel { task }).unwrap();
            assert_eq!(code(&executor.end(task).end.unwrap()), "base.cancelled");
        }
        assert!(start.elapsed().as_secs() < 20);
    }
}

#[test]
fn a_wrong_token_another_site_and_a_wrong_size_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    write_image(&image, 8 * MIB, 12);
    let pair = Pair::new();
    pair.create(&folder.path().join("repository"));
    let begin = Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    pair.target.ask(begin).unwrap();
    let whole = order("vda", &image, 8 * MIB);
    let stream = ticket();
    let receive = Q::ReceiveDisk {
        order: whole.clone(),
        stream: stream.clone(),
    };
    let A::Listening(receiving, to) = pair.target.ask(receive).unwrap() else {
        panic!()
    };
    let mut wrong = [0; 32];
    OsRandom.fill(&mut wrong);
    let token = Secret::new(base::digest::Digest(wrong).to_string());
    let forged = StreamTicket {
        id: stream.id,
        token,
    };
    let send = Q::SendDisk {
        order: whole.clone(),
        to: to.clone(),
        stream: forged,
    };
    let report = pair.source.run(send);
    assert_eq!(code(&report.end.unwrap()), "protocol.stream.denied");
    let (other_site, runtime) = (Site::new(), runtime());
    let stranger = Executor::of_this_machine().with_network(network(&other_site, &runtime));
    let send = Q::SendDisk {
        order: whole.clone(),
        to: to.clone(),
        stream: stream.clone(),
    };
    let report = stranger.run(send);
    assert!(
        matches!(report.end, Some(TaskEnd::Failed { .. })),
        "{report:?}"
    );
    // Neither has spoilt it for the right one.
    let report = pair.source.run(Q::SendDisk {
        order: whole.clone(),
        to,
        stream,
    });
    assert_eq!(report.end, Some(TaskEnd::Sent));
    assert!(matches!(
        pair.target.end(receiving).end,
        Some(TaskEnd::Disk(_))
    ));

    let larger = DiskOrder {
        name: "vdb".to_owned(),
        size: ByteCount(9 * MIB),
        source: None,
        ..whole.clone()
    };
    let (sent, received, _) = pair.send(larger, whole.clone());
    assert_eq!(code(&sent), "mover.stream.size");
    assert_eq!(code(&received), "mover.stream.size");
    let lonely = Executor::of_this_machine();
    let stream = ticket();
    let error = lonely.ask(Q::SendDisk {
        order: whole,
        to: "127.0.0.1:1".to_owned(),
        stream,
    });
    assert_eq!(error.unwrap_err().code(), "mover.stream.no-network");
}

#[test]
fn stopping_one_end_ends_the_other_soon_and_nothing_stays() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(8 * MIB)
        .unwrap();
    let pair = Pair::new();
    pair.create(&folder.path().join("repository"));
    let begin = Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    pair.target.ask(begin).unwrap();
    let whole = order("vda", &image, 8 * MIB);
    // Nobody comes, and the receiver is told to stop.
    let receive = Q::ReceiveDisk {
        order: whole.clone(),
        stream: ticket(),
    };
    let A::Listening(receiving, _) = pair.target.ask(receive).unwrap() else {
        panic!()
    };
    pair.target.ask(Q::Cancel { task: receiving }).unwrap();
    let start = std::time::Instant::now();
    assert_eq!(
        code(&pair.target.end(receiving).end.unwrap()),
        "base.cancelled"
    );
    // The receiver stops while the sender sends a large disk.
    write_image(&image, 512 * MIB, 4);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    for at in 0..512 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], at * MIB).unwrap();
    }
    let whole = order("vda", &image, 512 * MIB);
    let stream = ticket();
    let receive = Q::ReceiveDisk {
        order: whole.clone(),
        stream: stream.clone(),
    };
    let A::Listening(receiving, to) = pair.target.ask(receive).unwrap() else {
        panic!()
    };
    let send = Q::SendDisk {
        order: whole,
        to,
        stream,
    };
    let A::Started(sending) = pair.source.ask(send).unwrap() else {
        panic!()
    };
    loop {
        let progress = Q::Progress {
            task: receiving,
            wait_millis: 1,
        };
        let A::Task(report) = pair.target.ask(progress).unwrap() else {
            panic!()
        };
        assert!(report.end.is_none(), "too fast to be stopped: {report:?}");
        if report.counters.transferred.0 > 0 {
            break;
        }
    }
    pair.target.ask(Q::AbortPoint).unwrap();
    assert!(matches!(
        pair.source.end(sending).end,
        Some(TaskEnd::Failed { .. })
    ));
    assert!(matches!(
        pair.target.end(receiving).end,
        Some(TaskEnd::Failed { .. })
    ));
    assert!(start.elapsed().as_secs() < 30);
    let points = crate::commands::all_points(&pair.target);
    assert!(points.is_empty());
}

#[test]
fn an_encrypted_repository_serves_agents_too() {
    let folder = tempfile::tempdir().unwrap();
    let (image, repository_folder) = (
        folder.path().join("disk.raw"),
        folder.path().join("repository"),
    );
    write_image(&image, 8 * MIB, 31);
    let pair = Pair::new();
    let made = back_up_image(&pair.target, &repository_folder, &image, 8 * MIB);
    let point = point_id();
    pair.target
        .ask(Q::BeginPoint {
            point,
            compression: Compression::High,
        })
        .unwrap();
    let whole = order("vda", &image, 8 * MIB);
    let (_, received, _) = pair.send(
        DiskOrder {
            source: None,
            ..whole.clone()
        },
        whole,
    );
    assert!(matches!(received, TaskEnd::Disk(disk) if disk.root == made.disks[0].root));
}

/// Plays an agent that waits for one stream.
pub struct Listening {
    /// Where.
    pub address: String,
    /// With which right.
    pub ticket: StreamTicket,
    stream: protocol::stream::ExpectedStream,
}

impl Listening {
    /// Begins to listen.
    pub fn new(pair: &Pair) -> Self {
        let ticket = ticket();
        let register = protocol::stream::StreamRegister::new();
        let token = StreamToken::from_ticket(&ticket).unwrap();
        let stream = register
            .expect(&token, protocol::stream::BulkOptions::default())
            .unwrap();
        let identity = pair.site.identity(Role::Agent);
        let mut listener = pair
            .runtime
            .block_on(protocol::Listener::bind(
                "127.0.0.1:0".parse().unwrap(),
                &identity,
                protocol::Expect::role(Role::Agent),
                protocol::LinkOptions::default(),
            ))
            .unwrap();
        let address = listener.address().unwrap().to_string();
        pair.runtime.spawn(async move {
            let link = listener.accept().await.unwrap();
            register.admit(link).await
        });
        Self {
            address,
            ticket,
            stream,
        }
    }

    /// The stream that somebody began.
    pub fn accept(self) -> protocol::stream::BulkHalves {
        self.stream
            .wait(std::time::Duration::from_secs(30))
            .unwrap()
    }
}
