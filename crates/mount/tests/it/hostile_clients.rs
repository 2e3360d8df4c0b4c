//! Our server against clients that flood, stall, cut off or talk nonsense: the server stays up,
//! within its bounds, and serves the next honest client.

use crate::peers::folder;
use base::block::BlockRead;
use base::memory::MemoryDisk;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, MIB};
use mount::nbd::wire::option::{InfoQuery, OptionCode, OptionReply, ReplyCode, encode_option};
use mount::nbd::wire::reply::{ChunkKind, Reply, SIMPLE_SIZE, STRUCTURED_SIZE};
use mount::nbd::wire::request::{CMD_FLAG_DF, Command, Request};
use mount::nbd::wire::{Errno, PAYLOAD_MAX};
use mount::nbd::{
    ConnectOptions, Export, ExportTable, Listen, NbdAddress, NbdClient, NbdServer, RunningServer,
    ServerLimits,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SIZE: u64 = 4 * MIB;

struct Stage {
    _folder: tempfile::TempDir,
    server: RunningServer,
    address: NbdAddress,
    socket: std::path::PathBuf,
}

fn stage(limits: ServerLimits, writable: bool) -> Stage {
    let folder = folder();
    let socket = folder.path().join("ours.sock");
    let disk = Arc::new(MemoryDisk::from(vec![7; SIZE as usize]));
    let export = if writable {
        Export::writable(disk)
    } else {
        Export::read_only(disk)
    };
    let table = ExportTable::new();
    table.add("vda", export).unwrap();
    let server = NbdServer::new(table).limits(limits);
    let server = server.start(&Listen::Unix(socket.clone())).unwrap();
    let address = NbdAddress::unix(&socket, "vda");
    Stage {
        _folder: folder,
        server,
        address,
        socket,
    }
}

impl Stage {
    fn raw(&self) -> UnixStream {
        let peer = UnixStream::connect(&self.socket).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        peer.set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        peer
    }

    /// A client after an honest handshake with simple replies.
    fn transmitting(&self) -> UnixStream {
        self.transmitting_after(&[])
    }

    /// The same after some options without data.
    fn transmitting_after(&self, options: &[OptionCode]) -> UnixStream {
        let mut peer = self.raw();
        peer.read_exact(&mut [0; 18]).unwrap();
        peer.write_all(&3u32.to_be_bytes()).unwrap();
        for option in options {
            peer.write_all(&encode_option(*option, &[])).unwrap();
            assert_eq!(option_reply(&mut peer).code, ReplyCode::ACK);
        }
        let query = InfoQuery {
            export: "vda".to_owned(),
            wanted: vec![3],
        };
        peer.write_all(&encode_option(OptionCode::GO, &query.encode()))
            .unwrap();
        while option_reply(&mut peer).code != ReplyCode::ACK {}
        peer
    }

    /// The server is alive: an honest client reads from it.
    fn check(&self) {
        let disk = NbdClient::connect(&self.address, ConnectOptions::default()).unwrap();
        let mut bytes = [0; 100];
        disk.read_at(ByteOffset(5), &mut bytes).unwrap();
        assert_eq!(bytes, [7; 100]);
    }

    fn wait_until_alone(&self) {
        let patience = Instant::now() + Duration::from_secs(20);
        while self.server.connections() > 0 {
            assert!(Instant::now() < patience, "a connection is never given up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn option_reply(peer: &mut UnixStream) -> OptionReply {
    let mut header = [0; 20];
    peer.read_exact(&mut header).unwrap();
    let reply = OptionReply::decode(&header).unwrap();
    peer.read_exact(&mut vec![0; reply.length as usize])
        .unwrap();
    reply
}

fn send(peer: &mut UnixStream, flags: u16, command: Command, offset: u64, length: u64) {
    let mut bytes = Vec::new();
    Request {
        flags,
        command,
        cookie: 77,
        offset,
        length,
    }
    .encode(false, &mut bytes);
    peer.write_all(&bytes).unwrap();
}

fn simple(peer: &mut UnixStream) -> Errno {
    let mut header = [0; SIMPLE_SIZE];
    peer.read_exact(&mut header).unwrap();
    match Reply::decode(&header).unwrap() {
        Reply::Simple { error, cookie } => {
            assert_eq!(cookie, 77);
            error
        }
        other => panic!("not a simple reply: {other:?}"),
    }
}

#[test]
fn senseless_requests_get_the_documented_errors() {
    let stage_read = stage(ServerLimits::default(), false);
    let stage_write = stage(ServerLimits::default(), true);
    let read_only = &mut stage_read.transmitting();
    let writable = &mut stage_write.transmitting();
    let beyond = SIZE - 1;
    let largest = u64::from(PAYLOAD_MAX);
    for (command, flags, offset, length, expected) in [
        (Command::READ, 0, beyond, 2, Errno::INVAL),
        (Command::READ, 0, u64::MAX, 2, Errno::INVAL),
        (Command::READ, 0, 0, largest + 1, Errno::INVAL),
        (Command::READ, 0, 0, u64::from(u32::MAX), Errno::INVAL),
        (Command::READ, CMD_FLAG_DF, 0, 1, Errno::INVAL),
        (Command::READ, 1 << 9, 0, 1, Errno::INVAL),
        (Command::TRIM, 0, beyond, 2, Errno::INVAL),
        (Command::WRITE_ZEROES, 0, beyond, 2, Errno::NOSPC),
        (Command::WRITE_ZEROES, 16, 0, 2, Errno::INVAL),
        (Command::BLOCK_STATUS, 0, 0, 512, Errno::INVAL),
        (Command(99), 0, 0, 512, Errno::INVAL),
        (Command::FLUSH, 0, 0, 0, Errno(0)),
        (Command::READ, 0, 0, 0, Errno(0)),
    ] {
        send(writable, flags, command, offset, length);
        assert_eq!(simple(writable), expected, "{command:?} {offset} {length}");
    }
    for command in [Command::TRIM, Command::WRITE_ZEROES] {
        send(read_only, 0, command, 0, 512);
        assert_eq!(simple(read_only), Errno::PERM);
    }
    // The bytes of a write that is refused are passed over, not taken for requests.
    for (peer, offset, expected) in [
        (read_only, 0, Errno::PERM),
        (writable, beyond, Errno::NOSPC),
    ] {
        send(peer, 0, Command::WRITE, offset, 4096);
        peer.write_all(&[0x25; 4096]).unwrap();
        assert_eq!(simple(peer), expected);
        send(peer, 0, Command::READ, 0, 1);
        assert_eq!(simple(peer), Errno(0));
        peer.read_exact(&mut [0]).unwrap();
    }
    let peer = &mut stage_write.transmitting();
    send(peer, 0, Command::WRITE, 0, largest + 1);
    assert_eq!(
        peer.read(&mut [0]).unwrap(),
        0,
        "a payload beyond all bounds ends the connection"
    );
    stage_write.check();
}

#[test]
fn a_read_that_must_not_be_cut_comes_in_one_chunk() {
    let stage = stage(ServerLimits::default(), false);
    let mut peer = stage.transmitting_after(&[OptionCode::STRUCTURED_REPLY]);
    for (flags, expected) in [(CMD_FLAG_DF, vec![SIZE]), (0, vec![SIZE / 2, SIZE / 2])] {
        send(&mut peer, flags, Command::READ, 0, SIZE);
        let mut lengths = Vec::new();
        loop {
            let mut header = [0; STRUCTURED_SIZE];
            peer.read_exact(&mut header).unwrap();
            let Reply::Chunk(chunk) = Reply::decode(&header).unwrap() else {
                panic!("not a chunk: {header:?}");
            };
            let mut payload = vec![0; chunk.length as usize];
            peer.read_exact(&mut payload).unwrap();
            assert_eq!((chunk.kind, chunk.cookie), (ChunkKind::OFFSET_DATA, 77));
            assert!(payload[8..].iter().all(|byte| *byte == 7));
            lengths.push(payload.len() as u64 - 8);
            if chunk.is_last() {
                break;
            }
        }
        assert_eq!(lengths, expected);
    }
}

#[test]
fn options_that_make_no_sense_are_refused_and_the_handshake_goes_on() {
    let stage = stage(ServerLimits::default(), false);
    let mut peer = stage.raw();
    peer.read_exact(&mut [0; 18]).unwrap();
    peer.write_all(&3u32.to_be_bytes()).unwrap();
    let unknown = InfoQuery {
        export: "nobody".to_owned(),
        wanted: Vec::new(),
    }
    .encode();
    for (code, data, expected) in [
        (OptionCode(4), vec![], ReplyCode::ERR_UNSUP),
        (OptionCode(4_000_000), vec![1; 100], ReplyCode::ERR_UNSUP),
        (OptionCode::LIST, vec![0], ReplyCode::ERR_INVALID),
        (OptionCode::STARTTLS, vec![], ReplyCode::ERR_POLICY),
        (OptionCode::GO, vec![], ReplyCode::ERR_INVALID),
        (OptionCode::GO, vec![0xff; 20], ReplyCode::ERR_INVALID),
        (OptionCode::INFO, unknown, ReplyCode::ERR_UNKNOWN),
        (
            OptionCode::SET_META_CONTEXT,
            vec![0; 8],
            ReplyCode::ERR_INVALID,
        ),
        (
            OptionCode::STRUCTURED_REPLY,
            vec![1],
            ReplyCode::ERR_INVALID,
        ),
        (OptionCode::STRUCTURED_REPLY, vec![], ReplyCode::ACK),
        (
            OptionCode::SET_META_CONTEXT,
            vec![0xff; 8],
            ReplyCode::ERR_INVALID,
        ),
        (
            OptionCode::SET_META_CONTEXT,
            vec![0; 8],
            ReplyCode::ERR_UNKNOWN,
        ),
        (OptionCode::EXTENDED_HEADERS, vec![], ReplyCode::ACK),
        (
            OptionCode::STRUCTURED_REPLY,
            vec![],
            ReplyCode::ERR_EXT_HEADER_REQD,
        ),
        (OptionCode::LIST, vec![0; 200_000], ReplyCode::ERR_TOO_BIG),
        (OptionCode::ABORT, vec![], ReplyCode::ACK),
    ] {
        peer.write_all(&encode_option(code, &data)).unwrap();
        let reply = option_reply(&mut peer);
        assert_eq!((reply.option, reply.code), (code, expected));
    }
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

#[test]
fn clients_that_break_off_or_talk_nonsense_are_let_go() {
    let stage = stage(ServerLimits::default(), true);
    let random = SeededRandom::new(21);
    for round in 0..300 {
        let mut noise = vec![0; 1 + random.below(300) as usize];
        random.fill(&mut noise);
        let mut peer = if round % 2 == 0 {
            stage.raw()
        } else {
            stage.transmitting()
        };
        let _ = peer.write_all(&noise);
        if round % 3 == 0 {
            let _ = peer.shutdown(std::net::Shutdown::Write);
            let _ = peer.read_to_end(&mut Vec::new());
        }
    }
    stage.wait_until_alone();
    stage.check();
}

#[test]
fn a_client_that_floods_and_never_reads_is_let_go() {
    let limits = ServerLimits {
        message_timeout: Duration::from_millis(800),
        bytes: 64 << 20,
        ..ServerLimits::default()
    };
    let stage = stage(limits, false);
    let mut flood = stage.transmitting();
    flood
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut bytes = Vec::new();
    Request {
        flags: 0,
        command: Command::READ,
        cookie: 1,
        offset: 0,
        length: SIZE,
    }
    .encode(false, &mut bytes);
    let requests = bytes.repeat(100_000);
    let _ = flood.write_all(&requests);
    stage.check();
    stage.wait_until_alone();
    drop(flood);
    stage.check();
}

#[test]
fn a_client_that_stalls_in_a_message_is_let_go_and_an_idle_one_is_not() {
    let limits = ServerLimits {
        handshake_timeout: Duration::from_secs(2),
        message_timeout: Duration::from_millis(300),
        ..ServerLimits::default()
    };
    let stage = stage(limits, true);
    let mut idle = stage.transmitting();
    let silent = stage.raw();
    let mut half_a_header = stage.transmitting();
    half_a_header.write_all(&[0x25, 0x60]).unwrap();
    let mut half_a_write = stage.transmitting();
    send(&mut half_a_write, 0, Command::WRITE, 0, 4096);
    half_a_write.write_all(&[1; 100]).unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    while stage.server.connections() > 1 {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(10));
    }
    send(&mut idle, 0, Command::READ, 0, 1);
    assert_eq!(simple(&mut idle), Errno(0));
    drop((silent, half_a_header, half_a_write));
}

#[test]
fn stopping_does_not_wait_for_idle_or_hostile_clients() {
    let stage = stage(ServerLimits::default(), false);
    let (_idle, _silent) = (stage.transmitting(), stage.raw());
    let begin = Instant::now();
    stage.server.stop(Duration::from_secs(15));
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn an_export_that_is_taken_away_serves_on_but_takes_nobody_new() {
    let table = ExportTable::new();
    let disk = Arc::new(MemoryDisk::new(ByteCount(512)).unwrap());
    table
        .add(
            "vda",
            Export::read_only(Arc::clone(&disk) as Arc<dyn BlockRead>),
        )
        .unwrap();
    assert_eq!(
        table
            .add("vda", Export::read_only(disk))
            .unwrap_err()
            .kind(),
        base::Kind::Exists
    );
    let folder = folder();
    let socket = folder.path().join("ours.sock");
    let _server = NbdServer::new(table.clone())
        .start(&Listen::Unix(socket.clone()))
        .unwrap();
    let address = NbdAddress::unix(socket, "vda");
    let open = || NbdClient::connect(&address, ConnectOptions::default());
    let early = open().unwrap();
    assert!(table.remove("vda") && !table.remove("vda"));
    assert_eq!(open().err().unwrap().kind(), base::Kind::NotFound);
    early.read_at(ByteOffset(0), &mut [0; 512]).unwrap();
}
