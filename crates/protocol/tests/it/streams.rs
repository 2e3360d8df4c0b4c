//! Bulk streams between threads.

use crate::world::*;
use base::id::StreamId;
use base::limit::FRAME_SIZE_MAX;
use base::os::{OsClock, OsRandom};
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, MIB};
use base::{Error, Kind};
use protocol::link::Timing;
use protocol::stream::{BulkHalves, BulkOptions, present};
use protocol::{Expect, LinkOptions, Purpose, Role, StreamRegister, StreamToken, dial_stream};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

fn token() -> StreamToken {
    StreamToken::generate(StreamId::generate(&OsClock, &OsRandom), &OsRandom)
}

/// Short patience.
fn hasty() -> BulkOptions {
    BulkOptions {
        stall: Duration::from_millis(800),
        finish: Duration::from_millis(800),
        ..BulkOptions::default()
    }
}

/// A stream over loopback: the dialer's halves and the listener's.
fn stream(runtime: &Runtime, timing: Timing, options: BulkOptions) -> (BulkHalves, BulkHalves) {
    let (one, two) = runtime.block_on(pair(Purpose::Bulk, timing));
    let (register, token) = (StreamRegister::new(), token());
    let expected = register.expect(&token, options).unwrap();
    let (dialed, admitted) = runtime
        .block_on(async { tokio::join!(present(one, &token, options), register.admit(two)) });
    admitted.unwrap();
    (
        dialed.unwrap(),
        expected.wait(Duration::from_secs(5)).unwrap(),
    )
}

fn block(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

#[test]
fn a_quarter_gibibyte_arrives_whole() {
    const RECORDS: u64 = 256;
    let runtime = Runtime::new().unwrap();
    let ((mut sender, unused), (unused_too, mut receiver)) =
        stream(&runtime, Timing::default(), BulkOptions::default());
    drop((unused, unused_too));
    let blocks: Vec<Vec<u8>> = (0..4).map(|seed| block(seed, MIB as usize)).collect();
    let sum = blocks
        .iter()
        .map(|block| crc32c::crc32c(block))
        .collect::<Vec<_>>();
    let began = Instant::now();
    let receiving = std::thread::spawn(move || {
        while let Some(record) = receiver.receive().unwrap() {
            assert_eq!(record.kind, (record.sequence % 7) as u16);
            let which = (record.sequence % 4) as usize;
            assert_eq!(crc32c::crc32c(&record.payload), sum[which]);
            if record.sequence % 64 == 0 {
                receiver.keep(record.sequence).unwrap();
            }
        }
        receiver.finish().unwrap()
    });
    for sequence in 1..=RECORDS {
        let payload = blocks[(sequence % 4) as usize].clone();
        assert_eq!(
            sender.send((sequence % 7) as u16, payload).unwrap(),
            sequence
        );
    }
    let sent = sender.finish().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let received = receiving.join().unwrap();
    assert_eq!(
        (sent.records, sent.bytes),
        (RECORDS, ByteCount(RECORDS * MIB))
    );
    assert_eq!(
        (received.records, received.bytes),
        (RECORDS, ByteCount(RECORDS * MIB))
    );
    assert!(!sent.busy.is_zero());
    println!(
        "256 MiB over TLS on loopback: {seconds:.2} s, {:.0} MiB/s; sender busy {:?}, \
         waiting {:?}; \
         receiver waiting {:?}",
        256.0 / seconds,
        sent.busy,
        sent.waiting,
        received.waiting
    );
}

#[test]
fn both_directions_flow_at_once() {
    let runtime = Runtime::new().unwrap();
    let window = BulkOptions {
        window: ByteCount(64 * 1024),
        ..BulkOptions::default()
    };
    let ((mut ask, mut answers), (mut answer, mut questions)) =
        stream(&runtime, Timing::default(), window);
    let answering = std::thread::spawn(move || {
        while let Some(question) = questions.receive().unwrap() {
            answer
                .send(question.kind + 1, question.payload[..8].to_vec())
                .unwrap();
        }
        questions.finish().unwrap();
        answer.finish().unwrap()
    });
    let asking = std::thread::spawn(move || {
        for number in 0..2000u64 {
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(8 + (number as usize * 97) % 20_000, 1);
            ask.send(4, payload).unwrap();
        }
        // Larger than the whole window.
        ask.send(4, vec![0; FRAME_SIZE_MAX]).unwrap();
        ask.finish().unwrap()
    });
    for number in 0..2000u64 {
        let record = answers.receive().unwrap().unwrap();
        assert_eq!((record.kind, record.sequence), (5, number + 1));
        assert_eq!(record.payload, number.to_le_bytes());
    }
    assert_eq!(answers.receive().unwrap().unwrap().payload, [0; 8]);
    assert!(answers.receive().unwrap().is_none());
    answers.finish().unwrap();
    assert_eq!(asking.join().unwrap().records, 2001);
    assert_eq!(answering.join().unwrap().records, 2001);
}

#[test]
fn the_window_bounds_what_is_on_its_way() {
    let runtime = Runtime::new().unwrap();
    let window = BulkOptions {
        window: ByteCount(4 * MIB),
        ..hasty()
    };
    let ((mut sender, _), (_, mut receiver)) = stream(&runtime, Timing::default(), window);
    let mut sent = 0;
    let error = loop {
        match sender.send(1, vec![0; MIB as usize / 2]) {
            Ok(sequence) => sent = sequence,
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Timeout, "protocol.stream.stalled")
    );
    assert_eq!(
        sent, 7,
        "4 MiB hold seven records of half a MiB with their overhead"
    );
    // The other side learns why.
    let error = loop {
        match receiver.receive() {
            Ok(record) => assert!(record.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "protocol.stream.stalled");
    let error = sender.send(1, vec![0; FRAME_SIZE_MAX + 1]).unwrap_err();
    assert_eq!(error.code(), "protocol.stream.record-too-large");
}

#[test]
fn only_the_token_opens_the_stream_and_only_once() {
    let runtime = Runtime::new().unwrap();
    let site = Site::new(1);
    let register = StreamRegister::new();
    let agent = site.identity(Role::Agent);
    let listener = listen(&agent, Expect::role(Role::Agent), LinkOptions::default());
    let mut listener = runtime.block_on(listener);
    let to = address(&listener);
    let admitting = register.clone();
    runtime.spawn(async move {
        while let Ok(link) = listener.accept().await {
            let register = admitting.clone();
            tokio::spawn(async move { register.admit(link).await });
        }
    });
    let dialer = site.dialer(Role::Agent);
    let dial = |token: &StreamToken| {
        let expect = Expect::role(Role::Agent);
        dial_stream(
            runtime.handle(),
            &dialer,
            &to,
            expect,
            token,
            BulkOptions::default(),
        )
    };
    let right = token();
    let expected = register.expect(&right, BulkOptions::default()).unwrap();
    let again = register
        .expect(&right, BulkOptions::default())
        .err()
        .unwrap();
    assert_eq!(
        (again.kind(), again.code()),
        (Kind::Exists, "protocol.stream.expected-already")
    );

    let wrong = StreamToken::generate(right.id, &SeededRandom::new(1));
    for bad in [wrong, token()] {
        let error = dial(&bad).err().unwrap();
        assert_eq!(
            (error.kind(), error.code()),
            (Kind::Denied, "protocol.stream.denied")
        );
    }
    let (mut sender, _) = dial(&right).unwrap();
    let (_, mut receiver) = expected.wait(Duration::from_secs(5)).unwrap();
    sender.send(1, vec![1]).unwrap();
    assert_eq!(receiver.receive().unwrap().unwrap().payload, [1]);
    assert_eq!(dial(&right).err().unwrap().code(), "protocol.stream.denied");

    // Nobody comes; and whoever is late finds nothing.
    let late = token();
    let expected = register.expect(&late, BulkOptions::default()).unwrap();
    let error = expected.wait(Duration::from_millis(50)).err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Timeout, "protocol.stream.not-begun")
    );
    assert_eq!(dial(&late).err().unwrap().code(), "protocol.stream.denied");
}

#[test]
fn a_receiver_that_dies_is_noticed_at_once() {
    let runtime = Runtime::new().unwrap();
    let elsewhere = Runtime::new().unwrap();
    let site = Site::new(1);
    let (register, token) = (StreamRegister::new(), token());
    let identity = site.identity(Role::Agent);
    let mut listener = elsewhere.block_on(listen(
        &identity,
        Expect::role(Role::Agent),
        LinkOptions::default(),
    ));
    let to = address(&listener);
    let expected = register.expect(&token, BulkOptions::default()).unwrap();
    elsewhere.spawn(async move { register.admit(listener.accept().await.unwrap()).await });
    let (mut sender, _) = dial_stream(
        runtime.handle(),
        &site.dialer(Role::Agent),
        &to,
        Expect::role(Role::Agent),
        &token,
        BulkOptions::default(),
    )
    .unwrap();
    let (_, mut receiver) = expected.wait(Duration::from_secs(5)).unwrap();
    sender.send(1, vec![0; 1000]).unwrap();
    receiver.receive().unwrap().unwrap();
    // As when its process is killed: no goodbye, the sockets just close.
    elsewhere.shutdown_timeout(Duration::from_millis(500));
    let began = Instant::now();
    let error = loop {
        if let Err(error) = sender.send(1, vec![0; 1 << 20]) {
            break error;
        }
    };
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_receiver_that_gives_up_says_why() {
    let runtime = Runtime::new().unwrap();
    let ((mut sender, _), (_, mut receiver)) =
        stream(&runtime, Timing::default(), BulkOptions::default());
    sender.send(1, vec![0; 10]).unwrap();
    receiver.receive().unwrap().unwrap();
    let full = Error::new(Kind::Full, "store.disk.full", "no room").hint("buy a disk");
    receiver.abort(&full);
    let error = sender.finish().unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Full, "store.disk.full")
    );
    assert_eq!(error.hint_text(), Some("buy a disk"));

    // Dropped without a word.
    let ((mut sender, _), (_, mut receiver)) =
        stream(&runtime, Timing::default(), BulkOptions::default());
    sender.send(1, vec![0; 10]).unwrap();
    receiver.receive().unwrap().unwrap();
    drop(receiver);
    let error = sender.finish().unwrap_err();
    assert_eq!(error.code(), "protocol.stream.abandoned");

    // Dropped before anything came.
    let ((mut sender, _), (_, receiver)) =
        stream(&runtime, Timing::default(), BulkOptions::default());
    drop(receiver);
    sender.send(1, vec![0; 10]).unwrap();
    assert_eq!(
        sender.finish().unwrap_err().code(),
        "protocol.stream.abandoned"
    );
}

#[test]
fn a_sender_that_gives_up_is_not_taken_for_the_end() {
    let runtime = Runtime::new().unwrap();
    let ((mut sender, _), (_, mut receiver)) =
        stream(&runtime, Timing::default(), BulkOptions::default());
    sender.send(1, vec![0; 10]).unwrap();
    receiver.receive().unwrap().unwrap();
    drop(sender);
    assert_eq!(
        receiver.receive().unwrap_err().code(),
        "protocol.stream.abandoned"
    );
}

#[test]
fn an_end_without_the_receivers_word_is_an_error() {
    let runtime = Runtime::new().unwrap();
    let ((mut sender, _), (_, mut receiver)) = stream(&runtime, Timing::default(), hasty());
    sender.send(1, vec![0; 10]).unwrap();
    receiver.receive().unwrap().unwrap();
    let began = Instant::now();
    let error = sender.finish().unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Timeout, "protocol.stream.stalled")
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    // The receiver hears of it, and then it is too late for its word.
    let began = Instant::now();
    while receiver.receive().is_ok() {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the receiver never hears of it"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(
        receiver.finish().unwrap_err().code(),
        "protocol.stream.stalled"
    );
}

#[test]
fn safety_is_not_declared_early() {
    let runtime = Runtime::new().unwrap();
    let ((mut sender, _), (_, mut receiver)) =
        stream(&runtime, Timing::default(), BulkOptions::default());
    sender.send(1, vec![0; 10]).unwrap();
    sender.send(1, vec![0; 10]).unwrap();
    receiver.receive().unwrap().unwrap();
    assert_eq!(
        receiver.keep(2).unwrap_err().code(),
        "protocol.stream.not-taken"
    );
    receiver.keep(1).unwrap();
    let began = Instant::now();
    while sender.kept() != 1 {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the word never came"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(
        receiver.finish().unwrap_err().code(),
        "protocol.stream.not-ended"
    );
    assert_eq!(
        sender.finish().unwrap_err().code(),
        "protocol.stream.not-ended"
    );
}

#[test]
fn nothing_at_all_is_a_fine_stream() {
    let runtime = Runtime::new().unwrap();
    let ((sender, _), (_, mut receiver)) =
        stream(&runtime, Timing::default(), BulkOptions::default());
    let receiving = std::thread::spawn(move || {
        assert!(receiver.receive().unwrap().is_none());
        receiver.finish().unwrap()
    });
    assert_eq!(sender.finish().unwrap().records, 0);
    assert_eq!(receiving.join().unwrap().records, 0);
}

#[test]
fn a_silent_peer_ends_the_stream() {
    let runtime = Runtime::new().unwrap();
    let (one, _frozen) = runtime.block_on(pair(Purpose::Bulk, QUICK));
    let began = Instant::now();
    let error = runtime
        .block_on(present(one, &token(), BulkOptions::default()))
        .err()
        .unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Unreachable, "protocol.link.silent")
    );
    assert!(began.elapsed() < QUICK.silence * 3);
}

#[test]
fn a_link_for_calls_carries_no_stream() {
    let runtime = Runtime::new().unwrap();
    let (one, _two) = runtime.block_on(memory_pair(Purpose::Calls, Timing::default()));
    let error = runtime
        .block_on(present(one, &token(), BulkOptions::default()))
        .err()
        .unwrap();
    assert_eq!(error.code(), "protocol.stream.purpose");
}
