//! The golden samples in `fixtures/wire/`: bytes that this version sends and must for ever read.

use crate::ErrorWord;
use crate::frame::{Frame, FrameKind};
use crate::link::Purpose;
use crate::link::hello::Hello;
use crate::message;
use crate::stream::wire::{self, Ack, Open, Terms};
use crate::token::StreamToken;
use crate::words::mover::MoverRequest;
use base::id::{SessionId, StreamId};
use base::{Error, Kind};

const SAMPLES: &str = include_str!("../../../fixtures/wire/frames.txt");

type Sample = (&'static str, Frame);

fn ours() -> Vec<Sample> {
    let mut samples = of_calls();
    samples.extend(of_streams());
    samples
}

fn an_error() -> Vec<u8> {
    let error = Error::new(Kind::NotFound, "store.point.missing", "there is no point 7")
        .hint("list the points")
        .caused_by(std::io::Error::other("gone"));
    postcard::to_stdvec(&ErrorWord::from(&error)).unwrap()
}

fn of_calls() -> Vec<Sample> {
    let hello = Hello {
        oldest: 1,
        newest: 3,
        purpose: Purpose::Calls,
        program: "backstay 0".into(),
    };
    let word = an_error();
    let start = MoverRequest::StartAgent {
        session: SessionId::from_bytes([5; 16]),
        purpose: "web1".into(),
    };
    let frame = Frame::new;
    vec![
        ("hello", hello.frame()),
        ("ping", frame(FrameKind::Ping, 0, Vec::new())),
        ("goodbye", frame(FrameKind::Goodbye, 0, Vec::new())),
        (
            "goodbye-with-reason",
            frame(FrameKind::Goodbye, 0, word.clone()),
        ),
        (
            "request",
            frame(FrameKind::Request, 9, message::encode(1, &start).unwrap()),
        ),
        (
            "event",
            frame(FrameKind::Event, 9, message::encode(1, &"half").unwrap()),
        ),
        (
            "response",
            frame(FrameKind::Response, 9, message::encode(1, &"done").unwrap()),
        ),
        ("failure", frame(FrameKind::Failure, 9, word)),
        ("cancel", frame(FrameKind::Cancel, 9, Vec::new())),
        (
            "credit",
            frame(FrameKind::Credit, 9, 8u32.to_le_bytes().to_vec()),
        ),
    ]
}

fn of_streams() -> Vec<Sample> {
    let token = StreamToken::from_parts(StreamId::from_bytes([6; 16]), [7; 32]);
    let terms = Terms {
        window: 1 << 25,
        resume_from: 1,
    };
    let open = Open {
        token,
        connection: 0,
        connections: 1,
        terms,
    };
    let frame = Frame::new;
    vec![
        ("stream-open", open.frame()),
        ("stream-ready", terms.frame()),
        (
            "data",
            Frame {
                tag: 2,
                ..frame(FrameKind::Data, 1, b"backstay".to_vec())
            },
        ),
        (
            "ack",
            Ack {
                taken: 3,
                taken_cost: 1000,
                kept: 2,
            }
            .frame(),
        ),
        ("finish", wire::finish(3)),
        ("finished", wire::finished(3)),
        ("abort", frame(FrameKind::Abort, 0, an_error())),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_sent_never_changes() {
    let written: Vec<String> = ours()
        .iter()
        .map(|(name, frame)| format!("{name} {}", hex(&frame.to_bytes().unwrap())))
        .collect();
    let golden: Vec<&str> = SAMPLES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(written, golden, "\n{}\n", written.join("\n"));
}

#[test]
fn what_was_sent_is_read() {
    for (name, frame) in ours() {
        let line = SAMPLES
            .lines()
            .find(|line| line.split(' ').next() == Some(name))
            .unwrap();
        let digits = line.split(' ').nth(1).unwrap();
        let bytes: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let (read, used) = Frame::from_bytes(&bytes, 4096).unwrap().unwrap();
        assert_eq!((read, used), (frame, bytes.len()), "{name}");
    }
}
