//! The half of a stream that receives.
//!
//! Knows: blocking while nothing is here, telling the other side how far we are. Refuses to know:
//! what is received.

use super::send::{LINGER, abandoned};
use super::state::Stream;
use super::{BulkCounters, wire};
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkRecord {
    /// What sort of record it is: a number the two ends have agreed on.
    pub kind: u16,
    /// Its number: 1, 2, 3 ...
    pub sequence: u64,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Receives records. For one thread.
pub struct BulkReceiver {
    stream: Arc<Stream>,
    records: u64,
    bytes: u64,
    waiting: Duration,
    ended: bool,
}

impl BulkReceiver {
    pub(super) const fn new(stream: Arc<Stream>) -> Self {
        Self {
            stream,
            records: 0,
            bytes: 0,
            waiting: Duration::ZERO,
            ended: false,
        }
    }

    /// The next record, in order; `None` when all have come. Blocks while nothing is here.
    ///
    /// # Errors
    /// Why the stream has failed; `Timeout` (`protocol.stream.stalled`).
    pub fn receive(&mut self) -> Result<Option<BulkRecord>> {
        let stall = self.stream.options.stall;
        let next = self.stream.wait(stall, &mut self.waiting, |state| {
            match state.incoming.pop() {
                Some((record, true)) => Some(Some((record, Some(state.incoming.ack())))),
                Some((record, false)) => Some(Some((record, None))),
                None => state.incoming.finishing.then_some(None),
            }
        })?;
        let Some((record, ack)) = next else {
            return Ok(None);
        };
        if let Some(ack) = ack {
            // Where the link has ended the next call says why.
            let _ = self.stream.link.send_now(ack.frame());
        }
        self.records += 1;
        self.bytes += record.payload.len() as u64;
        Ok(Some(record))
    }

    /// Declares all records up to `sequence` safe: on stable storage, or no longer needed. The
    /// sender sees it as [`super::BulkSender::kept`]; a stream that is resumed begins after it.
    ///
    /// # Errors
    /// `Bug` (`protocol.stream.not-taken`) for a record that was not received yet; why the stream
    /// has failed.
    pub fn keep(&mut self, sequence: u64) -> Result<()> {
        let ack = self.stream.change(|state| {
            if sequence > state.incoming.taken.taken {
                return None;
            }
            let taken = &mut state.incoming.taken;
            taken.kept = taken.kept.max(sequence);
            Some(state.incoming.ack())
        });
        let Some(ack) = ack else {
            return Err(Error::new(
                Kind::Bug,
                "protocol.stream.not-taken",
                format!("record {sequence} was declared safe before it was received"),
            ));
        };
        let told = self.stream.link.send_now(ack.frame());
        told.map_err(|error| self.stream.fault().unwrap_or(error))
    }

    /// How much has come, and how long it took.
    pub const fn counters(&self) -> BulkCounters {
        BulkCounters {
            records: self.records,
            bytes: ByteCount(self.bytes),
            busy: Duration::ZERO,
            waiting: self.waiting,
        }
    }

    /// Declares everything safe and the direction ended. Call it after [`BulkReceiver::receive`]
    /// has given `None` and what was received is on stable storage: the sender reports success
    /// because of it.
    ///
    /// # Errors
    /// `Bug` (`protocol.stream.not-ended`) before the end; why the stream has failed.
    pub fn finish(mut self) -> Result<BulkCounters> {
        self.ended = true;
        if let Some(error) = self.stream.fault() {
            return Err(error);
        }
        let (ended, told, last) = {
            let incoming = &self.stream.peek().incoming;
            let ended = incoming.finishing && incoming.queue.is_empty();
            (ended, incoming.finished, incoming.received)
        };
        if !ended {
            let error = Error::new(
                Kind::Bug,
                "protocol.stream.not-ended",
                "a data stream was declared safe before all of it had come",
            );
            self.stream.fail(&error, true);
            return Err(error);
        }
        // The engine has told already where nothing ever came. The state changes only after the
        // frame is queued, so that no goodbye can overtake it.
        if !told {
            let said = self.stream.link.send_now(wire::finished(last));
            said.map_err(|error| self.stream.fault().unwrap_or(error))?;
            self.stream.change(|state| state.incoming.finished = true);
        }
        self.stream.close_if_done();
        self.stream.link.wait_written(LINGER);
        self.stream.linger(LINGER);
        Ok(self.counters())
    }

    /// Fails the stream on both sides with a reason.
    pub fn abort(mut self, why: &Error) {
        self.ended = true;
        self.stream.fail(why, true);
    }
}

impl Drop for BulkReceiver {
    /// A direction on which nothing came may be left alone: the engine ends it. One on which
    /// something came has failed.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let failed = self.stream.change(|state| {
            state.incoming.abandoned = true;
            state.incoming.received > 0 && !state.incoming.finished
        });
        if failed {
            self.stream
                .fail(&abandoned("the receiver gave up half-way"), true);
        }
    }
}
