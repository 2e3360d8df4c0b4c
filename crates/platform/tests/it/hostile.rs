//! Peers that are no libvirt, or not today.

use base::Kind;
use platform::libvirt::connection::{Connection, Failure};
use platform::libvirt::frame::{self, Header, MessageType};
use platform::libvirt::procedure::{code, keepalive, remote};
use platform::libvirt::remote::DomainRef;
use platform::libvirt::transport::Transport;
use platform::libvirt::xdr::{Decoder, Encoder};
use platform::libvirt::{Libvirt, Options};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A connection whose other end is played by `server`.
fn against(server: impl FnOnce(UnixStream) + Send + 'static) -> Connection {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || server(theirs));
    Connection::new(Transport {
        stream: ours,
        helper: None,
        peer: None,
    })
    .unwrap()
}

/// The next question: its header and payload.
fn question(stream: &mut UnixStream) -> Option<(Header, Vec<u8>)> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; frame::body_length(length).unwrap()];
    stream.read_exact(&mut body).ok()?;
    let (header, payload) = frame::split(&body).unwrap();
    Some((header, payload.to_vec()))
}

fn reply(to: &Header, status: i32, payload: &[u8]) -> Vec<u8> {
    Header {
        kind: MessageType::Reply,
        status,
        ..*to
    }
    .message(payload)
}

/// What comes of one question where the server says `said` and then waits.
fn ask_one_who_says(said: impl Fn(&Header) -> Vec<u8> + Send + 'static) -> Failure {
    let connection = against(move |mut stream| {
        while let Some((header, _)) = question(&mut stream) {
            stream.write_all(&said(&header)).unwrap();
        }
    });
    connection
        .call(
            frame::PROGRAM_REMOTE,
            remote::CONNECT_GET_HOSTNAME,
            &[],
            SECOND,
        )
        .unwrap_err()
}

fn broken(failure: Failure) -> base::Error {
    match failure {
        Failure::Broken(error) => error,
        Failure::Refused(refusal) => panic!("a refusal: {refusal:?}"),
    }
}

#[test]
fn lengths_that_libvirt_never_sends_end_the_connection_at_once() {
    for length in [0_u32, 4, 27, 32 * 1024 * 1024 + 1, u32::MAX] {
        let begun = Instant::now();
        let error = broken(ask_one_who_says(move |_| length.to_be_bytes().to_vec()));
        assert_eq!(
            error.code(),
            "platform.libvirt.connection-lost",
            "{error:?}"
        );
        assert!(error.to_string().contains(&length.to_string()), "{error}");
        assert!(begun.elapsed() < SECOND);
    }
}

#[test]
fn a_truncated_answer_and_a_closed_connection_are_told_at_once() {
    for cut in [0, 1, 4, 20, 31] {
        let connection = against(move |mut stream| {
            let (header, _) = question(&mut stream).unwrap();
            stream
                .write_all(&reply(&header, 0, &[0; 4])[..cut])
                .unwrap();
        });
        let begun = Instant::now();
        let error = broken(connection.hostname().unwrap_err());
        assert_eq!(
            (error.kind(), error.code()),
            (Kind::Unreachable, "platform.libvirt.connection-lost")
        );
        assert!(begun.elapsed() < SECOND);
        assert!(connection.is_ended());
        // Later questions do not wait either.
        assert!(connection.hostname().is_err());
    }
}

#[test]
fn answers_to_other_questions_are_not_taken() {
    let other_serial = |header: &Header| {
        reply(
            &Header {
                serial: 999,
                ..*header
            },
            0,
            &[0; 4],
        )
    };
    let error = broken(ask_one_who_says(other_serial));
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Timeout, "platform.libvirt.timeout")
    );

    let other_procedure = |header: &Header| {
        reply(
            &Header {
                procedure: 7,
                ..*header
            },
            0,
            &[0; 4],
        )
    };
    let error = broken(ask_one_who_says(other_procedure));
    assert_eq!(error.code(), "platform.libvirt.connection-lost");

    let other_version = |header: &Header| {
        reply(
            &Header {
                version: 2,
                ..*header
            },
            0,
            &[0; 4],
        )
    };
    assert_eq!(
        broken(ask_one_who_says(other_version)).code(),
        "platform.libvirt.connection-lost"
    );

    let unknown_status = |header: &Header| reply(header, 7, &[0; 4]);
    assert_eq!(
        broken(ask_one_who_says(unknown_status)).code(),
        "platform.libvirt.malformed"
    );

    // A refusal that ends before it says why.
    let no_reason = |header: &Header| reply(header, 1, &[0; 4]);
    assert_eq!(
        broken(ask_one_who_says(no_reason)).code(),
        "platform.libvirt.malformed"
    );
}

#[test]
fn a_refusal_carries_number_and_words() {
    let refusal = Encoder::new()
        .i32(code::NO_DOMAIN)
        .i32(10)
        .optional_string(Some("gone"));
    let refusal = refusal.finish().unwrap();
    let failure = ask_one_who_says(move |header| reply(header, 1, &refusal));
    let error = failure.into_error("m", "looking");
    assert_eq!(error.code(), "platform.machine.unknown");
    assert!(error.to_string().contains("gone"));
}

#[test]
fn a_server_that_pings_gets_its_answer() {
    let (seen, pong) = std::sync::mpsc::channel();
    let _connection = against(move |mut stream| {
        let ping = Header {
            program: frame::PROGRAM_KEEPALIVE,
            version: 1,
            procedure: keepalive::PING,
            kind: MessageType::Event,
            serial: 0,
            status: 0,
        };
        stream.write_all(&ping.message(&[])).unwrap();
        seen.send(question(&mut stream).unwrap().0).unwrap();
    });
    let pong = pong.recv_timeout(SECOND).unwrap();
    assert_eq!(
        (pong.program, pong.procedure),
        (frame::PROGRAM_KEEPALIVE, keepalive::PONG)
    );
}

#[test]
fn many_threads_ask_at_once_and_each_gets_its_own_answer_in_any_order() {
    let connection = against(|mut stream| {
        while let Some((header, payload)) = question(&mut stream) {
            let mut answering = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(u64::from(header.serial % 7) * 300));
                // One write of less than a page to a socket is not torn apart by others.
                answering.write_all(&reply(&header, 0, &payload)).unwrap();
            });
        }
    });
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let connection = &connection;
            scope.spawn(move || {
                for number in 0..100_u32 {
                    let payload = (thread << 16 | number).to_be_bytes();
                    let answer = connection
                        .call(frame::PROGRAM_REMOTE, 59, &payload, 30 * SECOND)
                        .unwrap();
                    assert_eq!(answer, payload);
                }
            });
        }
    });
}

#[test]
fn events_reach_all_listeners_and_floods_of_them_do_no_harm() {
    let event = Header {
        kind: MessageType::Event,
        ..Header::call(frame::PROGRAM_REMOTE, remote::EVENT_CALLBACK_LIFECYCLE, 0)
    };
    let body = Encoder::new()
        .i32(1)
        .string("m")
        .fixed(&[7; 16])
        .i32(3)
        .i32(2)
        .i32(0)
        .finish()
        .unwrap();
    let flood: Vec<u8> = event.message(&body).repeat(5000);
    let connection = against(move |mut stream| {
        let (header, _) = question(&mut stream).unwrap();
        stream.write_all(&flood).unwrap();
        let name = Encoder::new().string("host").finish().unwrap();
        stream.write_all(&reply(&header, 0, &name)).unwrap();
        question(&mut stream);
    });
    let (slow, quick) = (connection.listen(), connection.listen());
    drop(connection.listen());
    assert_eq!(connection.hostname().unwrap(), "host");
    assert_eq!(quick.recv_timeout(SECOND).unwrap().uuid(), &[7; 16]);
    assert!(slow.try_iter().count() < 5000);
}

#[test]
fn a_socket_that_is_missing_or_refuses_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let options = Options::new(
        format!("qemu:///system?socket={}", path.display())
            .parse()
            .unwrap(),
    );
    let error = Libvirt::connect(options.clone()).err().unwrap();
    assert_eq!(error.code(), "platform.libvirt.unreachable");
    assert!(error.hint_text().is_some());
    // Somebody else listens there.
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    let error = Libvirt::connect(options).err().unwrap();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.hint_text().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_was_encoded_is_decoded(
        number in any::<u32>(), signed in any::<i32>(), long in any::<u64>(),
        text in ".{0,200}", maybe in proptest::option::of(".{0,20}"),
    ) {
        let bytes = Encoder::new()
            .u32(number).i32(signed).u64(long).string(&text)
            .optional_string(maybe.as_deref()).fixed(&[9; 16]).finish().unwrap();
        prop_assert_eq!(bytes.len() % 4, 0);
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(decoder.u32().unwrap(), number);
        prop_assert_eq!(decoder.i32().unwrap(), signed);
        prop_assert_eq!(decoder.u64().unwrap(), long);
        prop_assert_eq!(decoder.string().unwrap(), text);
        prop_assert_eq!(decoder.optional(Decoder::string).unwrap(), maybe);
        prop_assert_eq!(decoder.fixed::<16>().unwrap(), [9; 16]);
        prop_assert_eq!(decoder.remaining(), 0);
        // Cut anywhere, it is an error and not a shorter message.
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::new(&bytes[..cut]);
            let read = (|| {
                decoder.u32()?; decoder.i32()?; decoder.u64()?; decoder.string()?;
                decoder.optional(Decoder::string)?; decoder.fixed::<16>()
            })();
            prop_assert!(read.is_err());
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = frame::split(&bytes);
        let _ = Decoder::new(&bytes).array(16_384, DomainRef::decode);
        let _ = Decoder::new(&bytes).optional(Decoder::string);
        let _ = platform::libvirt::event::decode(remote::EVENT_CALLBACK_LIFECYCLE, &bytes);
        let _ = platform::libvirt::Refusal::decode(&bytes);
    }

    #[test]
    fn frames_read_back(procedure in any::<i32>(), kind in any::<i32>(), serial in any::<u32>(),
        status in any::<i32>(), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let words = [frame::PROGRAM_REMOTE, 1, procedure as u32, kind as u32, serial, status as u32];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        body.extend_from_slice(&payload);
        let (header, rest) = frame::split(&body).unwrap();
        prop_assert_eq!(rest, &payload[..]);
        let message = header.message(&payload);
        prop_assert_eq!(frame::body_length(message[..4].try_into().unwrap()).unwrap(), body.len());
        prop_assert_eq!(&message[4..], &body[..]);
    }
}

#[test]
fn random_answers_to_every_call_are_errors_or_values_but_never_a_hang() {
    let random = base::random::SeededRandom::new(42);
    for _ in 0..100 {
        let mut noise = vec![0; random.below(200) as usize];
        base::random::Random::fill(&random, &mut noise);
        let connection = against(move |mut stream| {
            while let Some((header, _)) = question(&mut stream) {
                if stream
                    .write_all(&reply(&header, i32::from(noise.len() % 5 == 1), &noise))
                    .is_err()
                {
                    return;
                }
            }
        });
        let domain = DomainRef {
            name: "m".into(),
            uuid: [1; 16],
            id: 1,
        };
        let _ = connection.open("qemu:///system");
        let _ = connection.list_domains();
        let _ = connection.domain_state(&domain);
        let _ = connection.block_info(&domain, "vda");
        let _ = connection.list_checkpoints(&domain);
        let _ = connection.backup_xml(&domain);
        let _ = connection.capabilities();
        let _ = connection.metadata(&domain, "urn:x", 0);
        let _ = connection.agent_command(&domain, "{}", 1);
        let _ = connection.job_kind(&domain);
    }
}
