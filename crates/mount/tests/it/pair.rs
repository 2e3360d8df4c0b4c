//! Our client against our server: what no foreign peer lets us see.

use crate::peers::{disk_bytes, folder};
use base::block::{BlockRead, BlockWrite, Extent};
use base::memory::MemoryDisk;
use base::size::{ByteCount, ByteOffset, ByteRange, KIB, MIB};
use base::{Error, Kind, Result};
use mount::nbd::{
    ConnectOptions, Export, ExportTable, Listen, NbdAddress, NbdClient, NbdServer, RunningServer,
    ServerLimits, list_exports,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

fn start(folder: &Path, export: Export, limits: ServerLimits) -> (RunningServer, NbdAddress) {
    let table = ExportTable::new();
    table.add("vda", export).unwrap();
    let socket = folder.join("ours.sock");
    let server = NbdServer::new(table).limits(limits);
    let server = server.start(&Listen::Unix(socket.clone())).unwrap();
    (server, NbdAddress::unix(socket, "vda"))
}

fn all_ways() -> [ConnectOptions; 2] {
    let narrow = ConnectOptions {
        extended_headers: false,
        ..ConnectOptions::default()
    };
    [ConnectOptions::default(), narrow]
}

#[test]
fn whatever_is_written_is_read_by_both_headers() {
    let folder = folder();
    let memory = Arc::new(MemoryDisk::new(ByteCount(9 * MIB)).unwrap());
    let export = Export::writable(Arc::clone(&memory) as Arc<dyn BlockWrite>);
    let (_server, address) = start(folder.path(), export, ServerLimits::default());
    for (seed, options) in all_ways().into_iter().enumerate() {
        let wide = options.extended_headers;
        let disk = NbdClient::connect(&address, options).unwrap();
        assert_eq!(disk.has_extended_headers(), wide);
        let bytes = disk_bytes(seed as u64, 9 * MIB as usize);
        disk.write_at(ByteOffset(0), &bytes).unwrap();
        disk.flush().unwrap();
        assert!(memory.to_vec() == bytes);
        let mut back = vec![1; bytes.len()];
        disk.read_at(ByteOffset(0), &mut back).unwrap();
        assert!(back == bytes);
        // One read of several chunks, of which some are holes.
        let read = disk
            .start_read(ByteOffset(0), vec![1; bytes.len()])
            .unwrap();
        assert!(read.wait().unwrap() == bytes);
        disk.write_zeroes(ByteRange::new(0, 9 * MIB)).unwrap();
        let extents = disk.extents(ByteRange::new(10, 9 * MIB - 20)).unwrap();
        assert_eq!(extents, vec![Extent::zero(10, 9 * MIB - 20)]);
        disk.close();
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let folder = folder();
    let socket = folder.path().join("ours.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let memory = Arc::new(MemoryDisk::new(ByteCount(512)).unwrap());
    let (server, address) = start(
        folder.path(),
        Export::read_only(memory),
        ServerLimits::default(),
    );
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = NbdServer::new(ExportTable::new()).start(&Listen::Unix(socket.clone()));
    assert_eq!(second.err().unwrap().kind(), Kind::Conflict);
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let third = NbdServer::new(ExportTable::new()).start(&Listen::Unix(file.clone()));
    assert_eq!(third.err().unwrap().kind(), Kind::Exists);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert_eq!(
        list_exports(&address, &ConnectOptions::default()).unwrap()[0].name,
        "vda"
    );
    server.stop(Duration::from_secs(1));
    assert!(!socket.exists());
}

/// A disk whose reads take their time, or fail.
struct Slow(Duration, Option<Kind>);

impl BlockRead for Slow {
    fn size(&self) -> ByteCount {
        ByteCount(64 * MIB)
    }
    fn read_at(&self, _: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        std::thread::sleep(self.0);
        match self.1 {
            Some(kind) => Err(Error::new(kind, "test.disk.broken", "the disk is broken")),
            None => {
                buffer.fill(7);
                Ok(())
            }
        }
    }
}

#[test]
fn stopping_lets_a_read_in_work_finish() {
    let folder = folder();
    let slow = Export::read_only(Arc::new(Slow(Duration::from_millis(400), None)));
    let (server, address) = start(folder.path(), slow, ServerLimits::default());
    let disk = NbdClient::connect(&address, ConnectOptions::default()).unwrap();
    let read = disk.start_read(ByteOffset(0), vec![0; 4096]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    server.stop(Duration::from_secs(20));
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(read.wait().unwrap(), vec![7; 4096]);
    let error = disk.read_at(ByteOffset(0), &mut [0]).unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
}

/// A disk whose reads return only when a number of them are inside at one time.
struct Meeting {
    guests: Mutex<usize>,
    came: Condvar,
    wanted: usize,
}

impl BlockRead for Meeting {
    fn size(&self) -> ByteCount {
        ByteCount(MIB)
    }
    fn read_at(&self, _: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let mut guests = self.guests.lock().unwrap();
        *guests += 1;
        self.came.notify_all();
        let patience = Duration::from_secs(20);
        let wait = self
            .came
            .wait_timeout_while(guests, patience, |guests| *guests < self.wanted);
        if wait.unwrap().1.timed_out() {
            return Err(Error::new(
                Kind::Timeout,
                "test.disk.alone",
                "nobody else came",
            ));
        }
        buffer.fill(7);
        Ok(())
    }
}

#[test]
fn requests_of_one_connection_are_worked_on_together() {
    let folder = folder();
    let limits = ServerLimits::default();
    let meeting = Meeting {
        guests: Mutex::new(0),
        came: Condvar::new(),
        wanted: limits.requests,
    };
    let (_server, address) = start(folder.path(), Export::read_only(Arc::new(meeting)), limits);
    let disk = NbdClient::connect(&address, ConnectOptions::default()).unwrap();
    let reads: Vec<_> = (0..limits.requests as u64)
        .map(|i| {
            disk.start_read(ByteOffset(i * 4096), vec![0; 4096])
                .unwrap()
        })
        .collect();
    reads
        .into_iter()
        .for_each(|read| assert_eq!(read.wait().unwrap(), vec![7; 4096]));
}

#[test]
fn errors_of_a_disk_keep_their_kind_over_the_wire() {
    let folder = folder();
    for (kind, arrives) in [
        (Kind::Io, Kind::Io),
        (Kind::Corrupt, Kind::Io),
        (Kind::Full, Kind::Full),
        (Kind::Denied, Kind::Denied),
        (Kind::Invalid, Kind::Invalid),
        (Kind::Cancelled, Kind::Unreachable),
    ] {
        let broken = Export::read_only(Arc::new(Slow(Duration::ZERO, Some(kind))));
        let (_server, address) = start(folder.path(), broken, ServerLimits::default());
        for options in all_ways() {
            let disk = NbdClient::connect(&address, options).unwrap();
            for length in [1, 5 * MIB as usize] {
                let error = disk
                    .read_at(ByteOffset(0), &mut vec![0; length])
                    .unwrap_err();
                assert_eq!(error.kind(), arrives);
                assert!(error.to_string().contains("the disk is broken"), "{error}");
            }
            disk.check().unwrap();
        }
    }
}

#[test]
fn connections_beyond_the_limit_are_closed_and_places_are_given_back() {
    let folder = folder();
    let memory = Arc::new(MemoryDisk::new(ByteCount(64 * KIB)).unwrap());
    let limits = ServerLimits {
        connections: 2,
        ..ServerLimits::default()
    };
    let (server, address) = start(folder.path(), Export::read_only(memory), limits);
    let open = || NbdClient::connect(&address, ConnectOptions::default());
    let (first, _second) = (open().unwrap(), open().unwrap());
    assert_eq!(open().err().unwrap().kind(), Kind::Unreachable);
    assert_eq!(server.connections(), 2);
    first.close();
    let patience = Instant::now() + Duration::from_secs(10);
    while server.connections() > 1 {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(5));
    }
    open()
        .unwrap()
        .read_at(ByteOffset(0), &mut [0; 10])
        .unwrap();
}

#[test]
fn a_disk_that_panics_ends_the_connection_and_nothing_else() {
    struct Panics;
    impl BlockRead for Panics {
        fn size(&self) -> ByteCount {
            ByteCount(4096)
        }
        fn read_at(&self, _: ByteOffset, _: &mut [u8]) -> Result<()> {
            panic!("on purpose, for the test");
        }
    }
    let folder = folder();
    let (server, address) = start(
        folder.path(),
        Export::read_only(Arc::new(Panics)),
        ServerLimits::default(),
    );
    for _ in 0..3 {
        let disk = NbdClient::connect(&address, ConnectOptions::default()).unwrap();
        let error = disk.read_at(ByteOffset(0), &mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
    }
    server.stop(Duration::from_secs(5));
}
