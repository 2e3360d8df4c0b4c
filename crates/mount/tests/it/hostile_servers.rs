//! Our client against servers that lie, stall or talk nonsense: always an error, never a hang, a
//! panic, wrong bytes or memory without bound.

use base::block::BlockRead;
use base::random::{Random, SeededRandom};
use base::size::{ByteOffset, ByteRange};
use base::{Kind, Result};
use mount::nbd::wire::option::{
    Info, OPTION_SIZE, OptionCode, OptionHeader, ReplyCode, encode_context, encode_option_reply,
};
use mount::nbd::wire::reply::{Chunk, ChunkKind, Reply, encode_error, encode_status};
use mount::nbd::wire::request::{COMPACT_SIZE, Request};
use mount::nbd::wire::{Errno, OPTION_MAGIC, SERVER_MAGIC};
use mount::nbd::{ByteStream, ConnectOptions, NbdClient};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

const SIZE: u64 = 1 << 20;

/// Times that only a test runs into whose server never answers.
fn patient() -> ConnectOptions {
    ConnectOptions {
        extended_headers: false,
        ..ConnectOptions::default()
    }
}

fn impatient() -> ConnectOptions {
    ConnectOptions {
        connect_timeout: Duration::from_millis(1500),
        stall_timeout: Duration::from_millis(700),
        request_timeout: Duration::from_secs(3),
        ..patient()
    }
}

/// Our client over a socket pair whose other end `server` plays.
fn against<T>(
    server: impl FnOnce(UnixStream) + Send + 'static,
    test: impl FnOnce(Result<NbdClient>) -> T,
) -> T {
    with(&patient(), server, test)
}

fn with<T>(
    options: &ConnectOptions,
    server: impl FnOnce(UnixStream) + Send + 'static,
    test: impl FnOnce(Result<NbdClient>) -> T,
) -> T {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let playing: JoinHandle<()> = std::thread::spawn(move || server(theirs));
    let stream = ByteStream::unix(ours, Duration::from_secs(1)).unwrap();
    let outcome = test(NbdClient::over(stream, "vda", options));
    playing.join().unwrap();
    outcome
}

fn greet(peer: &mut UnixStream) {
    let mut greeting = SERVER_MAGIC.to_be_bytes().to_vec();
    greeting.extend(OPTION_MAGIC.to_be_bytes());
    greeting.extend(3u16.to_be_bytes());
    let _ = peer.write_all(&greeting);
    let _ = peer.read_exact(&mut [0; 4]);
}

/// Plays the handshake honestly up to the transmission.
fn handshake(peer: &mut UnixStream) {
    greet(peer);
    loop {
        let mut header = [0; OPTION_SIZE];
        peer.read_exact(&mut header).unwrap();
        let option = OptionHeader::decode(&header).unwrap();
        peer.read_exact(&mut vec![0; option.length as usize])
            .unwrap();
        let mut say = |code, data: &[u8]| {
            peer.write_all(&encode_option_reply(option.code, code, data))
                .unwrap();
        };
        match option.code {
            OptionCode::SET_META_CONTEXT => {
                say(
                    ReplyCode::META_CONTEXT,
                    &encode_context(7, "base:allocation"),
                );
            }
            OptionCode::GO => say(ReplyCode::INFO, &Info::Export(SIZE, 0x81).encode()),
            _ => {}
        }
        say(ReplyCode::ACK, &[]);
        if option.code == OptionCode::GO {
            return;
        }
    }
}

fn request(peer: &mut UnixStream) -> Option<Request> {
    let mut header = [0; COMPACT_SIZE];
    peer.read_exact(&mut header).ok()?;
    Request::decode(false, &header).ok()
}

fn chunk(cookie: u64, kind: ChunkKind, last: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = payload.len() as u64;
    Reply::Chunk(Chunk {
        flags: u16::from(last),
        kind,
        cookie,
        offset: 0,
        length,
    })
    .encode(false, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn data(cookie: u64, last: bool, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let payload = [&offset.to_be_bytes(), bytes].concat();
    chunk(cookie, ChunkKind::OFFSET_DATA, last, &payload)
}

/// Answers the first request with what `reply` says and then listens until the client leaves.
fn answering(reply: impl Fn(&Request) -> Vec<u8> + Send + 'static) -> impl FnOnce(UnixStream) {
    move |mut peer| {
        handshake(&mut peer);
        if let Some(request) = request(&mut peer) {
            let _ = peer.write_all(&reply(&request));
        }
        let _ = peer.read_to_end(&mut Vec::new());
    }
}

fn read_of(client: Result<NbdClient>, length: usize) -> Result<Vec<u8>> {
    let client = client.unwrap();
    let mut buffer = vec![9; length];
    let result = client
        .read_at(ByteOffset(4096), &mut buffer)
        .map(|()| buffer);
    if let Err(error) = &result
        && error.code() == "mount.nbd.protocol-violation"
    {
        assert!(client.check().is_err(), "a broken peer is not asked again");
    }
    result
}

#[test]
fn an_honest_server_of_this_kind_is_understood() {
    let pieces = |request: &Request| {
        let at = request.offset;
        let hole = [&(at + 8).to_be_bytes()[..], &4u32.to_be_bytes()].concat();
        [
            data(request.cookie, false, at + 12, &[3; 4]),
            chunk(request.cookie, ChunkKind::OFFSET_HOLE, false, &hole),
            data(request.cookie, false, at, &[1; 8]),
            chunk(request.cookie, ChunkKind::NONE, true, &[]),
        ]
        .concat()
    };
    let bytes = against(answering(pieces), |client| read_of(client, 16)).unwrap();
    assert_eq!(bytes, [&[1; 8][..], &[0; 4], &[3; 4]].concat());
}

#[test]
fn replies_that_cheat_are_refused() {
    type Cheat = Box<dyn Fn(&Request) -> Vec<u8> + Send>;
    let hole =
        |offset: u64, length: u32| [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
    let cheats: Vec<(&str, Cheat)> = vec![
        (
            "a wrong cookie",
            Box::new(|r| data(r.cookie + 1, true, r.offset, &[1; 16])),
        ),
        (
            "too few bytes",
            Box::new(|r| data(r.cookie, true, r.offset, &[1; 15])),
        ),
        (
            "no bytes",
            Box::new(|r| chunk(r.cookie, ChunkKind::NONE, true, &[])),
        ),
        (
            "before the range",
            Box::new(|r| data(r.cookie, true, r.offset - 1, &[1; 16])),
        ),
        (
            "past the range",
            Box::new(|r| data(r.cookie, true, r.offset, &[1; 17])),
        ),
        (
            "far away",
            Box::new(|r| data(r.cookie, true, u64::MAX - 3, &[1; 16])),
        ),
        (
            "the same bytes twice",
            Box::new(|r| {
                let once = data(r.cookie, false, r.offset, &[1; 16]);
                [once, data(r.cookie, true, r.offset, &[1; 16])].concat()
            }),
        ),
        (
            "a hole over data",
            Box::new(move |r| {
                let first = data(r.cookie, false, r.offset, &[1; 16]);
                let hole = hole(r.offset + 15, 1);
                [first, chunk(r.cookie, ChunkKind::OFFSET_HOLE, true, &hole)].concat()
            }),
        ),
        (
            "an empty hole",
            Box::new(move |r| chunk(r.cookie, ChunkKind::OFFSET_HOLE, true, &hole(r.offset, 0))),
        ),
        (
            "an unknown chunk",
            Box::new(|r| chunk(r.cookie, ChunkKind(3), true, &[1; 16])),
        ),
        (
            "a map instead of bytes",
            Box::new(|r| chunk(r.cookie, ChunkKind::BLOCK_STATUS, true, &[1; 12])),
        ),
        (
            "a simple reply",
            Box::new(|r| {
                let mut bytes = Vec::new();
                Reply::Simple {
                    error: Errno(0),
                    cookie: r.cookie,
                }
                .encode(false, &mut bytes);
                [bytes, vec![1; 16]].concat()
            }),
        ),
        (
            "a length of 4 GiB",
            Box::new(|r| {
                let mut bytes = chunk(r.cookie, ChunkKind::OFFSET_DATA, true, &[]);
                bytes[16..20].fill(0xff);
                bytes
            }),
        ),
        (
            "an error of nothing",
            Box::new(|r| chunk(r.cookie, ChunkKind::ERROR, true, &[0; 6])),
        ),
        (
            "an error with too long a text",
            Box::new(|r| chunk(r.cookie, ChunkKind::ERROR, true, &[0, 0, 0, 5, 0xff, 0xff])),
        ),
        (
            "an extended header",
            Box::new(|r| {
                let mut bytes = Vec::new();
                let kind = ChunkKind::NONE;
                let chunk = Chunk {
                    flags: 1,
                    kind,
                    cookie: r.cookie,
                    offset: 0,
                    length: 0,
                };
                Reply::Chunk(chunk).encode(true, &mut bytes);
                bytes
            }),
        ),
        ("nonsense", Box::new(|_| vec![0x55; 64])),
    ];
    for (name, cheat) in cheats {
        let error = against(answering(cheat), |client| read_of(client, 16)).unwrap_err();
        assert_eq!(
            error.code(),
            "mount.nbd.protocol-violation",
            "{name}: {error:?}"
        );
    }
}

#[test]
fn an_error_reply_fails_one_request_and_keeps_its_words() {
    let refusing = |request: &Request| {
        let mut payload = Vec::new();
        encode_error(Errno::IO, "sector 7 is gone\n\u{1b}[31m", &mut payload);
        let first = data(request.cookie, false, request.offset, &[1; 8]);
        [
            first,
            chunk(request.cookie, ChunkKind::ERROR, true, &payload),
        ]
        .concat()
    };
    let error = against(answering(refusing), |client| read_of(client, 16)).unwrap_err();
    assert_eq!(error.code(), "mount.nbd.refused-eio");
    assert!(error.to_string().contains("sector 7 is gone"));
    assert!(
        !error.to_string().contains(['\n', '\u{1b}']),
        "no control characters reach a person"
    );
}

#[test]
fn maps_that_cheat_are_refused() {
    type Map = Box<dyn Fn(&Request) -> Vec<u8> + Send>;
    let map = |context: u32, list: &[(u64, u64)]| {
        let mut payload = Vec::new();
        encode_status(context, list, false, &mut payload);
        payload
    };
    let status = ChunkKind::BLOCK_STATUS;
    let cheats: Vec<(&str, Map)> = vec![
        (
            "a foreign context",
            Box::new(move |r| chunk(r.cookie, status, true, &map(8, &[(SIZE, 0)]))),
        ),
        (
            "an empty extent",
            Box::new(move |r| chunk(r.cookie, status, true, &map(7, &[(0, 0)]))),
        ),
        (
            "no list",
            Box::new(|r| chunk(r.cookie, ChunkKind::NONE, true, &[])),
        ),
        (
            "two lists",
            Box::new(move |r| {
                let one = chunk(r.cookie, status, false, &map(7, &[(SIZE, 0)]));
                [one, chunk(r.cookie, status, true, &map(7, &[(SIZE, 0)]))].concat()
            }),
        ),
        (
            "bytes instead of a map",
            Box::new(|r| data(r.cookie, true, 0, &[1; 16])),
        ),
    ];
    for (name, cheat) in cheats {
        let error = against(answering(cheat), |client| {
            client
                .unwrap()
                .extents(ByteRange::new(0, SIZE))
                .unwrap_err()
        });
        assert_eq!(
            error.code(),
            "mount.nbd.protocol-violation",
            "{name}: {error:?}"
        );
    }
}

#[test]
fn a_map_that_reaches_too_far_is_cut() {
    let too_far = |request: &Request| {
        let mut payload = Vec::new();
        let list = [
            (4096, 0),
            (u64::from(u32::MAX), 3),
            (u64::from(u32::MAX), 0),
        ];
        encode_status(7, &list, false, &mut payload);
        chunk(request.cookie, ChunkKind::BLOCK_STATUS, true, &payload)
    };
    let extents = against(answering(too_far), |client| {
        client.unwrap().extents(ByteRange::new(0, SIZE)).unwrap()
    });
    let expected = [
        base::block::Extent::data(0, 4096),
        base::block::Extent::zero(4096, SIZE - 4096),
    ];
    assert_eq!(extents, expected);
}

#[test]
fn a_server_that_stalls_runs_into_the_timeout() {
    let stages: [fn(&mut UnixStream); 4] = [
        |_| {},
        |peer| greet(peer),
        |peer| {
            handshake(peer);
            request(peer);
        },
        |peer| {
            handshake(peer);
            let request = request(peer).unwrap();
            let whole = data(request.cookie, true, request.offset, &[1; 16]);
            peer.write_all(&whole[..whole.len() - 1]).unwrap();
        },
    ];
    for stage in stages {
        let stalling = move |mut peer: UnixStream| {
            stage(&mut peer);
            let _ = peer.read_to_end(&mut Vec::new());
        };
        let error = with(&impatient(), stalling, |client| {
            client
                .and_then(|client| client.read_at(ByteOffset(4096), &mut [0; 16]))
                .unwrap_err()
        });
        assert_eq!(error.kind(), Kind::Timeout, "{error:?}");
    }
}

#[test]
fn a_server_that_drips_runs_into_the_timeout() {
    let dripping = |mut peer: UnixStream| {
        handshake(&mut peer);
        let request = request(&mut peer).unwrap();
        for byte in data(request.cookie, true, request.offset, &[1; 65_536]) {
            if peer.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let error = with(&impatient(), dripping, |client| read_of(client, 65_536)).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
}

#[test]
fn chunks_without_end_run_into_the_timeout() {
    let endless = |mut peer: UnixStream| {
        handshake(&mut peer);
        let request = request(&mut peer).unwrap();
        let mut payload = Vec::new();
        encode_error(Errno::IO, "again", &mut payload);
        let again = chunk(request.cookie, ChunkKind::ERROR, false, &payload);
        while peer.write_all(&again).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let error = with(&impatient(), endless, |client| read_of(client, 16)).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
}

#[test]
fn handshakes_cut_short_at_every_byte_are_errors() {
    let mut honest = SERVER_MAGIC.to_be_bytes().to_vec();
    honest.extend(OPTION_MAGIC.to_be_bytes());
    honest.extend(3u16.to_be_bytes());
    honest.extend(encode_option_reply(
        OptionCode::STRUCTURED_REPLY,
        ReplyCode::ACK,
        &[],
    ));
    let context = encode_context(7, "base:allocation");
    for (code, data) in [
        (ReplyCode::META_CONTEXT, context),
        (ReplyCode::ACK, Vec::new()),
    ] {
        honest.extend(encode_option_reply(
            OptionCode::SET_META_CONTEXT,
            code,
            &data,
        ));
    }
    let facts = Info::Export(SIZE, 0x81).encode();
    for (code, data) in [(ReplyCode::INFO, facts), (ReplyCode::ACK, Vec::new())] {
        honest.extend(encode_option_reply(OptionCode::GO, code, &data));
    }
    let opens = |bytes: Vec<u8>| {
        let server = move |mut peer: UnixStream| {
            let _ = peer.write_all(&bytes);
            let _ = peer.shutdown(std::net::Shutdown::Write);
            let _ = peer.read_to_end(&mut Vec::new());
        };
        against(server, |client| client.map(|client| client.size().0))
    };
    for length in 0..honest.len() {
        let error = opens(honest[..length].to_vec()).unwrap_err();
        assert!(
            matches!(error.kind(), Kind::Unreachable | Kind::Invalid),
            "{length}: {error:?}"
        );
    }
    // The whole is sent ahead of the questions: that too is a breach, but of a harmless kind up to
    // the last answer; nothing may be there before the first request.
    let opened = opens([honest, vec![0]].concat());
    assert!(opened.is_err());
}

#[test]
fn random_bytes_never_hang_or_panic() {
    let random = SeededRandom::new(11);
    for round in 0..300 {
        let mut noise = vec![0; 1 + random.below(400) as usize];
        random.fill(&mut noise);
        let after_handshake = round % 2 == 0;
        let server = move |mut peer: UnixStream| {
            if after_handshake {
                handshake(&mut peer);
            } else {
                greet(&mut peer);
            }
            let _ = peer.write_all(&noise);
            let _ = peer.shutdown(std::net::Shutdown::Write);
            let _ = peer.read_to_end(&mut Vec::new());
        };
        let outcome = against(server, |client| {
            client.and_then(|client| client.read_at(ByteOffset(0), &mut [0; 64]))
        });
        assert!(outcome.is_err());
    }
}

#[test]
fn mutated_answers_never_hang_panic_or_forge_success() {
    let random = SeededRandom::new(12);
    for _ in 0..300 {
        let (at, bit) = (random.below(20 + 8) as usize, 1u8 << random.below(8));
        let mutated = move |request: &Request| {
            let mut bytes = data(request.cookie, true, request.offset, &[5; 64]);
            bytes[at] ^= bit;
            bytes
        };
        // A flag that is not known may be ignored; all else must fail.
        let harmless = matches!(at, 4 | 5) && !(at == 5 && bit == 1);
        let server = move |mut peer: UnixStream| {
            handshake(&mut peer);
            let request = request(&mut peer).unwrap();
            let _ = peer.write_all(&mutated(&request));
            let _ = peer.shutdown(std::net::Shutdown::Write);
            let _ = peer.read_to_end(&mut Vec::new());
        };
        let outcome = against(server, |client| read_of(client, 64));
        assert_eq!(
            outcome.is_ok(),
            harmless,
            "byte {at} bit {bit}: {outcome:?}"
        );
    }
}

#[test]
fn lists_without_end_are_cut_off() {
    let endless = |mut peer: UnixStream| {
        greet(&mut peer);
        let mut header = [0; OPTION_SIZE];
        peer.read_exact(&mut header).unwrap();
        let data = encode_context(1, "x:y");
        let again = encode_option_reply(OptionCode::STRUCTURED_REPLY, ReplyCode(4), &data);
        while peer.write_all(&again).is_ok() {}
    };
    let error = against(endless, |client| client.err().unwrap());
    assert_eq!(error.code(), "mount.nbd.protocol-violation");
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    for fact in [
        Info::Export(u64::MAX, 1),
        Info::BlockSize(3, 4096, 1 << 20),
        Info::BlockSize(0, 4096, 1 << 20),
        Info::BlockSize(4096, 512, 1 << 20),
        Info::BlockSize(1 << 20, 1 << 20, 1 << 20),
        Info::BlockSize(4096, 4096, 1),
    ] {
        let server = move |mut peer: UnixStream| {
            greet(&mut peer);
            loop {
                let mut header = [0; OPTION_SIZE];
                if peer.read_exact(&mut header).is_err() {
                    return;
                }
                let option = OptionHeader::decode(&header).unwrap();
                peer.read_exact(&mut vec![0; option.length as usize])
                    .unwrap();
                let mut answer = Vec::new();
                if option.code == OptionCode::GO {
                    for info in [Info::Export(SIZE, 1), fact.clone()] {
                        let data = info.encode();
                        answer.extend(encode_option_reply(option.code, ReplyCode::INFO, &data));
                    }
                }
                answer.extend(encode_option_reply(option.code, ReplyCode::ACK, &[]));
                if peer.write_all(&answer).is_err() {
                    return;
                }
            }
        };
        let error = against(server, |client| client.err().unwrap());
        assert!(
            matches!(error.kind(), Kind::Invalid | Kind::Limit),
            "{error:?}"
        );
    }
}

#[test]
fn what_is_no_nbd_server_is_said_so() {
    let web = |mut peer: UnixStream| {
        let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    };
    let error = against(web, |client| client.err().unwrap());
    assert!(error.to_string().contains("not an NBD server"), "{error}");
    let oldstyle = |mut peer: UnixStream| {
        let mut greeting = SERVER_MAGIC.to_be_bytes().to_vec();
        greeting.extend(0x0000_4202_8186_1253u64.to_be_bytes());
        greeting.extend([0; 136]);
        let _ = peer.write_all(&greeting);
    };
    let error = against(oldstyle, |client| client.err().unwrap());
    assert_eq!(error.code(), "mount.nbd.oldstyle");
}
