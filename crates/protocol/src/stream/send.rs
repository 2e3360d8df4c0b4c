//! The half of a stream that sends.
//!
//! Knows: blocking while the window is full, and waiting for the other side's last word. Refuses
//! to know: what is sent.

use super::state::{Stream, cost};
use super::{BulkCounters, wire};
use crate::blocking::wait;
use crate::frame::{Frame, FrameKind};
use base::limit::FRAME_SIZE_MAX;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// After the last word of both sides, wait so long for the connection's orderly end.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// Sends records. For one thread; threads that share it agree on their order first.
pub struct BulkSender {
    stream: Arc<Stream>,
    runtime: Handle,
    records: u64,
    bytes: u64,
    waiting: Duration,
    ended: bool,
}

impl BulkSender {
    pub(super) fn new(stream: Arc<Stream>, runtime: Handle) -> Self {
        Self {
            stream,
            runtime,
            records: 0,
            bytes: 0,
            waiting: Duration::ZERO,
            ended: false,
        }
    }

    /// Sends a record and returns its sequence number: 1, 2, 3 ... Blocks while the window is full.
    /// Says nothing about its arrival; see [`BulkSender::kept`] and [`BulkSender::finish`].
    ///
    /// # Errors
    /// `Limit` for a record over [`FRAME_SIZE_MAX`]; why the stream has failed; `Timeout`
    /// (`protocol.stream.stalled`).
    pub fn send(&mut self, kind: u16, payload: Vec<u8>) -> Result<u64> {
        if payload.len() > FRAME_SIZE_MAX {
            return Err(Error::new(
                Kind::Limit,
                "protocol.stream.record-too-large",
                format!(
                    "a record of {} bytes is larger than {FRAME_SIZE_MAX}",
                    payload.len()
                ),
            ));
        }
        let size = payload.len() as u64;
        let cost = cost(payload.len());
        let stall = self.stream.options.stall;
        let sequence = self.stream.wait(stall, &mut self.waiting, |state| {
            let out = &mut state.outgoing;
            out.has_room(cost).then(|| {
                out.sent += 1;
                out.sent_cost += cost;
                out.sent
            })
        })?;
        self.queue(Frame {
            kind: FrameKind::Data,
            tag: kind,
            id: sequence,
            payload,
        })?;
        self.records += 1;
        self.bytes += size;
        Ok(sequence)
    }

    /// Hands a frame to the link, waiting for room in its outbox.
    fn queue(&mut self, frame: Frame) -> Result<()> {
        let Some(frame) = self.stream.link.try_send(frame)? else {
            return Ok(());
        };
        let begun = std::time::Instant::now();
        let link = self.stream.link.clone();
        let sent = wait(&self.runtime, async move { link.send(frame).await })?;
        self.waiting += begun.elapsed();
        // The stream's own reason says more than the link's.
        sent.map_err(|error| self.stream.fault().unwrap_or(error))
    }

    /// The last record that the other side has declared safe; 0 before the first.
    pub fn kept(&self) -> u64 {
        self.stream.peek().outgoing.acked.kept
    }

    /// How much was sent, and how long it took.
    pub fn counters(&self) -> BulkCounters {
        BulkCounters {
            records: self.records,
            bytes: ByteCount(self.bytes),
            busy: self.stream.link.writing_time(),
            waiting: self.waiting,
        }
    }

    /// Says that nothing more comes, and returns when the other side has declared everything safe.
    ///
    /// # Errors
    /// Why the stream has failed; `Timeout` (`protocol.stream.stalled`) where the other side goes
    /// quiet. After an error nothing that was sent after [`BulkSender::kept`] counts as arrived.
    pub fn finish(mut self) -> Result<BulkCounters> {
        self.say_finish()?;
        let patience = self.stream.options.finish;
        let mut waited = Duration::ZERO;
        let waiting = |state: &mut super::state::State| state.outgoing.finished.then_some(());
        self.stream.wait(patience, &mut waited, waiting)?;
        self.waiting += waited;
        self.stream.linger(LINGER);
        Ok(self.counters())
    }

    fn say_finish(&mut self) -> Result<()> {
        self.ended = true;
        let last = self.stream.change(|state| {
            state.outgoing.finishing = true;
            state.outgoing.sent
        });
        let said = self.stream.link.send_now(wire::finish(last));
        said.map_err(|error| self.stream.fault().unwrap_or(error))
    }

    /// What ends this stream from any thread.
    pub fn breaker(&self) -> super::StreamBreaker {
        super::StreamBreaker::new(Arc::clone(&self.stream))
    }

    /// Fails the stream on both sides with a reason.
    pub fn abort(mut self, why: &Error) {
        self.ended = true;
        self.stream.fail(why, true);
    }
}

impl Drop for BulkSender {
    /// A direction that was never used ends by itself; one that was used has failed.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.stream.peek().outgoing.sent == 0 {
            let _ = self.say_finish();
        } else {
            self.stream
                .fail(&abandoned("the sender gave up half-way"), true);
        }
    }
}

pub(super) fn abandoned(message: &str) -> Error {
    Error::new(Kind::Cancelled, "protocol.stream.abandoned", message)
        .hint("look for the reason in the log of the agent that gave up")
}
