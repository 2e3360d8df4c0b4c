//! Agents that mean harm, or are broken: random and twisted messages on a stream whose token is
//! right. The other end must say so soon, and live.

use crate::commands::{Ask, order, write_image};
use crate::remote::{Pair, code, ticket};
use crate::world::point_id;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, MIB};
use mover::stream::message::{
    Blocks, Changed, MORE, MessageKind, Packing, Terms, Totals, VERSION, Want, Window, encode,
};
use protocol::stream::{BulkHalves, BulkOptions, dial_stream};
use protocol::words::agent::{
    AgentRequest as Q, AgentResponse as A, DiskOrder, ImageTarget, TaskEnd,
};
use protocol::words::repository::Compression;
use protocol::{Dialer, Expect, LinkOptions, Role, StreamToken};
use std::time::{Duration, Instant};
use store::BlockId;

const SIZE: u64 = 8 * MIB;

/// Plays an agent: dials the stream that `listening` waits for.
fn dial(pair: &Pair, to: &str, ticket: &protocol::words::agent::StreamTicket) -> BulkHalves {
    let dialer = Dialer::new(pair.site.identity(Role::Agent), LinkOptions::default());
    let token = StreamToken::from_ticket(ticket).unwrap();
    let expect = Expect::role(Role::Agent);
    let options = BulkOptions {
        finish: Duration::from_secs(10),
        ..BulkOptions::default()
    };
    dial_stream(pair.runtime.handle(), &dialer, to, expect, &token, options).unwrap()
}

/// What a hostile source says: one script a number.
fn speak(script: u64, stream: BulkHalves) -> base::Result<()> {
    let (mut sender, mut receiver) = stream;
    let random = SeededRandom::new(script);
    let block = BlockId::from_bytes([7; 32]);
    let window = |index, segments: Vec<(u32, Option<BlockId>)>| {
        encode(
            &Window {
                index,
                segments,
                packing: Packing::Plain,
            },
            &[],
        )
        .unwrap()
    };
    let whole = vec![(4 << 20, Some(block))];
    let mut say = |kind: MessageKind, bytes: Vec<u8>| sender.send(kind as u16, bytes).map(drop);
    match script {
        0 => say(MessageKind::Offer, window(u64::MAX, whole))?,
        1 => say(MessageKind::Offer, window(2, whole))?,
        2 => {
            say(MessageKind::Offer, window(0, whole.clone()))?;
            say(MessageKind::Offer, window(0, whole))?;
        }
        3 => say(
            MessageKind::Offer,
            window(0, vec![(u32::MAX, Some(block)); 3]),
        )?,
        4 => say(MessageKind::Offer, window(0, vec![(1, None); 100_000]))?,
        // Other bytes than were offered; too few; a bomb.
        5..=7 => {
            say(MessageKind::Offer, window(0, whole))?;
            let (packing, body) = match script {
                5 => (Packing::Plain, vec![1; 4 << 20]),
                6 => (Packing::Plain, vec![1; 100]),
                _ => {
                    let bomb = vec![0; 64 << 20];
                    (Packing::Zstd, zstd::bulk::compress(&bomb, 1).unwrap())
                }
            };
            say(
                MessageKind::Blocks,
                encode(&Blocks { index: 0, packing }, &body).unwrap(),
            )?;
        }
        8 => say(
            MessageKind::Blocks,
            encode(
                &Blocks {
                    index: 0,
                    packing: Packing::Plain,
                },
                &[],
            )
            .unwrap(),
        )?,
        9 => {
            let changed = Changed {
                index: 0,
                ranges: vec![(0, 4096)],
                packing: Packing::Plain,
            };
            say(MessageKind::Changed, encode(&changed, &[0; 4096]).unwrap())?;
        }
        10 => say(
            MessageKind::Want,
            encode(
                &Want {
                    index: 0,
                    segments: vec![],
                },
                &[],
            )
            .unwrap(),
        )?,
        // The end before the offered blocks came; something after the end.
        11 | 12 => {
            if script == 11 {
                say(MessageKind::Offer, window(0, whole.clone()))?;
            }
            say(MessageKind::End, encode(&Totals::default(), &[]).unwrap())?;
            if script == 12 {
                say(MessageKind::Offer, window(0, whole))?;
            }
        }
        13 => {
            sender.send(MessageKind::Offer as u16 | MORE, vec![0; 1 << 20])?;
            sender.send(MessageKind::End as u16, vec![0; 10])?;
        }
        14 => {
            for _ in 0..30 {
                sender.send(MessageKind::Offer as u16 | MORE, vec![0; 4 << 20])?;
            }
        }
        _ => {
            for _ in 0..20 {
                let mut bytes = vec![0; random.below(200) as usize];
                random.fill(&mut bytes);
                if bytes.len() > 4 {
                    bytes[..4].copy_from_slice(&(random.below(40) as u32).to_le_bytes());
                }
                sender.send(random.below(10) as u16, bytes)?;
            }
        }
    }
    if script == 11 {
        return sender.finish().map(drop);
    }
    while receiver.receive()?.is_some() {}
    Ok(())
}

#[test]
fn a_repository_survives_any_source() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::new();
    pair.create(&folder.path().join("repository"));
    let begin = Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    pair.target.ask(begin).unwrap();
    for script in 0..60 {
        let ticket = ticket();
        let blind = DiskOrder {
            source: None,
            ..order("vda", "/x".as_ref(), SIZE)
        };
        let receive = Q::ReceiveDisk {
            order: blind,
            stream: ticket.clone(),
        };
        let A::Listening(receiving, to) = pair.target.ask(receive).unwrap() else {
            panic!()
        };
        let start = Instant::now();
        let said = speak(script, dial(&pair, &to, &ticket));
        let end = pair.target.end(receiving).end.unwrap();
        let shown = code(&end);
        assert!(
            shown.starts_with("mover.stream.") || shown.starts_with("store."),
            "{script}: {end:?} after {said:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(20), "{script}");
    }
    // All that nonsense has spoilt nothing.
    let points = crate::commands::all_points(&pair.target);
    assert!(points.is_empty());
}

#[test]
fn a_source_survives_any_repository() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    write_image(&image, SIZE, 61);
    let pair = Pair::new();
    // A real repository's cutter, for terms that parse.
    pair.create(&folder.path().join("repository"));
    let cutter = {
        let files = base::os::OsFiles::open(folder.path().join("repository")).unwrap();
        let environment = crate::world::environment();
        store::Repository::open(std::sync::Arc::new(files), environment, None)
            .unwrap()
            .cutter()
    };
    let terms = |version, size, changed_since| Terms {
        version,
        cutter: cutter.clone(),
        size: ByteCount(size),
        changed_since,
        root: None,
    };
    for script in 0..30_u64 {
        let listener = crate::remote::Listening::new(&pair);
        let send = Q::SendDisk {
            order: order("vda", &image, SIZE),
            to: listener.address.clone(),
            stream: listener.ticket.clone(),
        };
        let A::Started(sending) = pair.source.ask(send).unwrap() else {
            panic!()
        };
        let start = Instant::now();
        let (mut sender, mut receiver) = listener.accept();
        let random = SeededRandom::new(script);
        let mut say = |kind: MessageKind, bytes: Vec<u8>| drop(sender.send(kind as u16, bytes));
        let want = |index, segments| encode(&Want { index, segments }, &[]).unwrap();
        match script {
            0 => say(
                MessageKind::Terms,
                encode(&terms(VERSION + 1, SIZE, None), &[]).unwrap(),
            ),
            1 => say(
                MessageKind::Terms,
                encode(&terms(VERSION, u64::MAX, None), &[]).unwrap(),
            ),
            2 => say(
                MessageKind::Terms,
                encode(&terms(VERSION, SIZE, Some(ByteCount(SIZE))), &[]).unwrap(),
            ),
            3 => say(MessageKind::Want, want(0, vec![0])),
            4..=6 => {
                say(
                    MessageKind::Terms,
                    encode(&terms(VERSION, SIZE, None), &[]).unwrap(),
                );
                let segments = match script {
                    4 => vec![u32::MAX],
                    5 => vec![1, 0],
                    _ => vec![0, 0],
                };
                // Only what was offered may be wanted, once and in order.
                drop(receiver.receive());
                say(MessageKind::Want, want(0, segments));
            }
            _ => {
                let mut bytes = vec![0; random.below(300) as usize];
                random.fill(&mut bytes);
                say(MessageKind::Terms, bytes);
            }
        }
        let end = pair.source.end(sending).end.unwrap();
        let shown = code(&end);
        assert!(
            shown.starts_with("mover.stream.") || shown == "mover.source.no-tracker",
            "{script}: {end:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(20), "{script}");
    }
}

#[test]
fn a_target_survives_any_repository_and_keeps_no_half_file() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::new();
    pair.create(&folder.path().join("repository"));
    let cutter = {
        let files = base::os::OsFiles::open(folder.path().join("repository")).unwrap();
        let environment = crate::world::environment();
        store::Repository::open(std::sync::Arc::new(files), environment, None)
            .unwrap()
            .cutter()
    };
    let out = folder.path().join("out.raw");
    for script in 0..30_u64 {
        let ticket = ticket();
        let target = ImageTarget {
            path: out.display().to_string(),
            format: "raw".to_owned(),
            overwrite: false,
        };
        let receive = Q::ReceiveImage {
            size: ByteCount(SIZE),
            target,
            stream: ticket.clone(),
        };
        let A::Listening(receiving, to) = pair.source.ask(receive).unwrap() else {
            panic!()
        };
        let start = Instant::now();
        let (mut sender, receiver) = dial(&pair, &to, &ticket);
        let terms = Terms {
            version: VERSION,
            cutter: cutter.clone(),
            size: ByteCount(SIZE),
            changed_since: None,
            root: (script != 0).then_some(base::digest::Digest([1; 32])),
        };
        drop(sender.send(MessageKind::Terms as u16, encode(&terms, &[]).unwrap()));
        let random = SeededRandom::new(script);
        let zeros = |index| {
            encode(
                &Window {
                    index,
                    segments: vec![],
                    packing: Packing::Plain,
                },
                &[],
            )
            .unwrap()
        };
        let mut say = |kind: MessageKind, bytes: Vec<u8>| drop(sender.send(kind as u16, bytes));
        match script {
            // One window of two, then the end.
            0 | 1 => {
                say(MessageKind::Stored, zeros(0));
                say(MessageKind::End, encode(&Totals::default(), &[]).unwrap());
            }
            2 => say(MessageKind::Stored, zeros(2)),
            3 => {
                say(MessageKind::Stored, zeros(1));
                say(MessageKind::Stored, zeros(1));
            }
            // Bytes that are not what their names say.
            4 => {
                let segments = vec![(4 << 20, Some(BlockId::from_bytes([9; 32])))];
                let head = Window {
                    index: 0,
                    segments,
                    packing: Packing::Plain,
                };
                say(
                    MessageKind::Stored,
                    encode(&head, &vec![5; 4 << 20]).unwrap(),
                );
            }
            _ => {
                for _ in 0..10 {
                    let mut bytes = vec![0; random.below(200) as usize];
                    random.fill(&mut bytes);
                    if bytes.len() > 4 {
                        bytes[..4].copy_from_slice(&(random.below(40) as u32).to_le_bytes());
                    }
                    drop(sender.send(random.below(10) as u16, bytes));
                }
            }
        }
        drop(sender.finish());
        drop(receiver);
        let end = pair.source.end(receiving).end.unwrap();
        assert!(matches!(end, TaskEnd::Failed { .. }), "{script}");
        let shown = code(&end);
        assert!(
            shown.starts_with("mover.stream.") || shown == "mover.restore.differs",
            "{script}: {end:?}"
        );
        assert!(!out.exists(), "{script}");
        assert!(start.elapsed() < Duration::from_secs(20), "{script}");
    }
}
