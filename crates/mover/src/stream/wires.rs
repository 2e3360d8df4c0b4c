//! Both directions of a disk stream, as a crew of threads uses them.
//!
//! Knows: one thread sends what many hand it, one receives whole messages, and a guard fails the
//! stream as soon as the crew stops, so that nobody stays blocked and the other side learns why.
//! Refuses to know: what the messages mean.

use super::message::{MESSAGE_LENGTH_MAX, MORE, MessageKind, PART_LENGTH, encode, malformed};
use crate::pipeline::crew::{Crew, neighbour_gone};
use crate::pipeline::gauge::Gauge;
use base::Result;
use crossbeam_channel::{Receiver, Sender, bounded};
use protocol::stream::{BulkReceiver, BulkSender, StreamBreaker};
use protocol::words::counters::Stage;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Messages that wait to be sent.
const OUTBOX_LENGTH: usize = 8;
/// How often the guard looks whether the crew is to stop.
const GUARD_EVERY: Duration = Duration::from_millis(50);

/// One whole message as it stands in records.
pub struct Message {
    /// What sort.
    pub kind: MessageKind,
    /// Head and body.
    pub bytes: Vec<u8>,
}

/// Where threads put messages to be sent. When all clones are gone the direction ends in order.
#[derive(Clone)]
pub struct Outbox(Sender<Message>);

impl Outbox {
    /// An outbox, and what [`send_all`] empties.
    pub fn new() -> (Self, Receiver<Message>) {
        let (outbox, queue) = bounded(OUTBOX_LENGTH);
        (Self(outbox), queue)
    }

    /// Queues a message; waits while too many are queued.
    ///
    /// # Errors
    /// Where the sending thread is gone.
    pub fn send(&self, kind: MessageKind, head: &impl Serialize, body: &[u8]) -> Result<()> {
        let message = Message {
            kind,
            bytes: encode(head, body)?,
        };
        self.0.send(message).map_err(|_| neighbour_gone())
    }
}

/// Sends what is queued until all outboxes are gone, then waits until the other side has declared
/// everything safe.
///
/// # Errors
/// Why the stream has failed.
pub fn send_all(
    crew: &Crew,
    mut sender: BulkSender,
    queue: &Receiver<Message>,
    gauge: &Gauge,
) -> Result<()> {
    gauge.set_threads(Stage::Network, 1);
    let mut booked = Duration::ZERO;
    let mut send_queued = || {
        for message in queue {
            crew.check()?;
            gauge.transferred.add(message.bytes.len() as u64);
            send(&mut sender, message)?;
            let busy = sender.counters().busy;
            gauge.book(Stage::Network, busy.saturating_sub(booked));
            booked = busy;
        }
        // The queue also ends early, because a neighbour failed.
        crew.check()
    };
    match send_queued() {
        Ok(()) => sender.finish().map(drop),
        Err(error) => {
            sender.abort(&crew.reason_for(&error));
            Err(error)
        }
    }
}

fn send(sender: &mut BulkSender, message: Message) -> Result<()> {
    let kind = message.kind as u16;
    if message.bytes.len() <= PART_LENGTH {
        return sender.send(kind, message.bytes).map(drop);
    }
    let mut parts = message.bytes.chunks(PART_LENGTH).peekable();
    while let Some(part) = parts.next() {
        let more = if parts.peek().is_some() { MORE } else { 0 };
        sender.send(kind | more, part.to_vec())?;
    }
    Ok(())
}

/// The next whole message; `None` when all have come.
///
/// # Errors
/// Why the stream has failed; `Unsupported` and `Invalid` for what makes no sense.
pub fn receive(receiver: &mut BulkReceiver) -> Result<Option<Message>> {
    let mut whole: Option<Message> = None;
    loop {
        let Some(record) = receiver.receive()? else {
            return match whole {
                None => Ok(None),
                Some(_) => Err(malformed("it ends in the middle of a message")),
            };
        };
        let kind = MessageKind::from_number(record.kind & !MORE)?;
        let message = match whole.take() {
            None => Message {
                kind,
                bytes: record.payload,
            },
            Some(mut message) if message.kind == kind => {
                message.bytes.extend_from_slice(&record.payload);
                message
            }
            Some(_) => return Err(malformed("a message is mixed with another")),
        };
        if message.bytes.len() > MESSAGE_LENGTH_MAX {
            return Err(malformed("a message is too long"));
        }
        if record.kind & MORE == 0 {
            return Ok(Some(message));
        }
        whole = Some(message);
    }
}

/// Watches over a stream while `work` runs: once the crew is to stop, the stream is failed with
/// the crew's reason, which wakes every thread that is blocked in it.
pub fn guarded(crew: &Crew, breaker: &StreamBreaker, work: impl FnOnce()) {
    let (done, wait) = bounded::<()>(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let next = || Instant::now() + GUARD_EVERY;
            while let Err(crossbeam_channel::RecvTimeoutError::Timeout) = wait.recv_deadline(next())
            {
                if let Err(error) = crew.check() {
                    breaker.fail(&crew.reason_for(&error));
                    return;
                }
            }
        });
        work();
        drop(done);
    });
}
