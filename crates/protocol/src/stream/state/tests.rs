use super::*;
use crate::frame::FrameKind;

const WINDOW: u64 = 10 * (100 + RECORD_OVERHEAD);

fn record(sequence: u64, length: usize) -> Frame {
    Frame::new(FrameKind::Data, sequence, vec![0; length])
}

fn incoming() -> Incoming {
    Incoming {
        window: WINDOW,
        ..Incoming::default()
    }
}

#[test]
fn records_come_without_gaps_and_repeats() {
    let mut incoming = incoming();
    assert!(incoming.push(record(2, 1)).is_err());
    incoming.push(record(1, 1)).unwrap();
    assert!(incoming.push(record(1, 1)).is_err());
    assert!(incoming.push(record(0, 1)).is_err());
    assert!(incoming.push(record(u64::MAX, 1)).is_err());
    incoming.push(record(2, 1)).unwrap();
    incoming.finishing = true;
    assert!(
        incoming.push(record(3, 1)).is_err(),
        "a record after the end"
    );
}

#[test]
fn a_peer_that_ignores_the_window_is_stopped_at_its_edge() {
    let mut full = incoming();
    for sequence in 1..=10 {
        full.push(record(sequence, 100)).unwrap();
    }
    assert!(full.push(record(11, 0)).is_err());
    // Empty records cost, too.
    let mut empty = incoming();
    let refused = (1..1000).find(|sequence| empty.push(record(*sequence, 0)).is_err());
    assert_eq!(refused, Some(WINDOW / RECORD_OVERHEAD + 1));
    // One record may always come, but only when nothing else is here.
    let mut one = incoming();
    one.push(record(1, 100_000)).unwrap();
    assert!(one.push(record(2, 0)).is_err());
}

#[test]
fn the_receiver_speaks_before_its_sender_could_wait_for_ever() {
    // For many sizes: a sender and a receiver by the book always come to the end.
    for size in [0, 1, 99, 100, 500, 1000, 3000, 4000, 100_000] {
        let mut out = Outgoing {
            window: WINDOW,
            ..Outgoing::default()
        };
        let mut incoming = incoming();
        let mut taken = 0;
        while taken < 200 {
            let mut moved = false;
            // Sizes alternate, so that a large record meets a window that is partly full.
            let length = if out.sent.is_multiple_of(3) { 1 } else { size };
            while out.sent < 200 && out.has_room(cost(length)) {
                out.sent += 1;
                out.sent_cost += cost(length);
                incoming.push(record(out.sent, length)).unwrap();
                moved = true;
            }
            if let Some((record, speak)) = incoming.pop() {
                taken = record.sequence;
                moved = true;
                if speak {
                    let ack = incoming.ack();
                    out.acknowledge(ack, &ack.frame()).unwrap();
                }
            }
            assert!(moved, "stuck at {taken} with records of {size}");
        }
    }
}

#[test]
fn acknowledgements_that_make_no_sense_are_refused() {
    let mut out = Outgoing {
        window: WINDOW,
        sent: 5,
        sent_cost: 1000,
        ..Outgoing::default()
    };
    let good = Ack {
        taken: 3,
        taken_cost: 600,
        kept: 2,
    };
    let frame = good.frame();
    out.acknowledge(good, &frame).unwrap();
    for bad in [
        Ack {
            taken: 6,
            taken_cost: 600,
            kept: 2,
        },
        Ack {
            taken: 3,
            taken_cost: 1001,
            kept: 2,
        },
        Ack {
            taken: 3,
            taken_cost: 600,
            kept: 4,
        },
        Ack {
            taken: 2,
            taken_cost: 600,
            kept: 2,
        },
        Ack {
            taken: 3,
            taken_cost: 599,
            kept: 2,
        },
        Ack {
            taken: 3,
            taken_cost: 600,
            kept: 1,
        },
        Ack {
            taken: u64::MAX,
            taken_cost: u64::MAX,
            kept: u64::MAX,
        },
    ] {
        assert!(out.acknowledge(bad, &frame).is_err(), "{bad:?}");
    }
    out.acknowledge(good, &frame).unwrap();
}
