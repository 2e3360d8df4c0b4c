//! What the threads and the engine of one stream share.
//!
//! Knows: sequence numbers, windows, the end of each direction; when a thread may go on and what
//! the peer must not do. Refuses to know: sockets and time.

use super::receive::BulkRecord;
use super::wire::Ack;
use super::{BulkOptions, RECORD_OVERHEAD};
use crate::error_word::ErrorWord;
use crate::frame::Frame;
use crate::link::{LinkSender, unexpected};
use base::{Error, Kind, Result};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a record costs of a window.
pub(super) fn cost(payload: usize) -> u64 {
    payload as u64 + RECORD_OVERHEAD
}

/// Shared by both halves and the engine.
pub(super) struct Stream {
    pub(super) link: LinkSender,
    pub(super) options: BulkOptions,
    state: Mutex<State>,
    changed: Condvar,
}

/// Both directions.
#[derive(Default)]
pub(super) struct State {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    fault: Option<ErrorWord>,
    /// The link is closed in order.
    pub(super) closed: bool,
    /// Counts what happened, so that a waiting thread can tell slow from dead.
    progress: u64,
}

/// What we send.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) window: u64,
    pub(super) sent: u64,
    pub(super) sent_cost: u64,
    pub(super) acked: Ack,
    /// We have said that nothing more comes.
    pub(super) finishing: bool,
    /// The peer has said that all is safe.
    pub(super) finished: bool,
}

/// What we receive.
#[derive(Default)]
pub(super) struct Incoming {
    pub(super) window: u64,
    pub(super) queue: VecDeque<BulkRecord>,
    pub(super) received: u64,
    received_cost: u64,
    pub(super) taken: Ack,
    acked_cost: u64,
    /// The peer has said that nothing more comes.
    pub(super) finishing: bool,
    /// We have said that all is safe.
    pub(super) finished: bool,
    /// No thread will take anything any more.
    pub(super) abandoned: bool,
}

impl Outgoing {
    /// Whether a record of this cost may go out now.
    pub(super) const fn has_room(&self, cost: u64) -> bool {
        let ahead = self.sent_cost - self.acked.taken_cost;
        ahead == 0 || ahead.saturating_add(cost) <= self.window
    }

    /// Takes note of an acknowledgement.
    pub(super) fn acknowledge(&mut self, ack: Ack, frame: &Frame) -> Result<()> {
        let old = self.acked;
        let sane = ack.taken <= self.sent
            && ack.taken_cost <= self.sent_cost
            && ack.kept <= ack.taken
            && ack.taken >= old.taken
            && ack.taken_cost >= old.taken_cost
            && ack.kept >= old.kept;
        if !sane {
            return Err(unexpected(frame, "an acknowledgement that makes no sense"));
        }
        self.acked = ack;
        Ok(())
    }
}

impl Incoming {
    /// Takes note of a record that has come.
    pub(super) fn push(&mut self, frame: Frame) -> Result<()> {
        if self.finishing || frame.id != self.received + 1 {
            return Err(unexpected(&frame, "a record out of order"));
        }
        let cost = cost(frame.payload.len());
        let held = self.received_cost - self.acked_cost;
        if held > 0 && held + cost > self.window {
            return Err(unexpected(&frame, "more records than there is room for"));
        }
        self.received = frame.id;
        self.received_cost += cost;
        self.queue.push_back(BulkRecord {
            kind: frame.tag,
            sequence: frame.id,
            payload: frame.payload,
        });
        Ok(())
    }

    /// Gives the next record to a thread, and says whether the peer should hear of it now: when a
    /// quarter of the window came free, or when nothing else is here and it may be waiting.
    pub(super) fn pop(&mut self) -> Option<(BulkRecord, bool)> {
        let record = self.queue.pop_front()?;
        self.taken.taken = record.sequence;
        self.taken.taken_cost += cost(record.payload.len());
        let fresh = self.taken.taken_cost - self.acked_cost;
        Some((record, self.queue.is_empty() || fresh >= self.window / 4))
    }

    /// The acknowledgement to send now.
    pub(super) const fn ack(&mut self) -> Ack {
        self.acked_cost = self.taken.taken_cost;
        self.taken
    }
}

impl Stream {
    pub(super) fn new(link: LinkSender, options: BulkOptions, peer_window: u64) -> Self {
        let mut state = State::default();
        state.incoming.window = options.window.0;
        state.outgoing.window = options.window.0.min(peer_window);
        Self {
            link,
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Looks at the state or changes it without anybody being told.
    pub(super) fn peek(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes everybody.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.peek();
        let result = change(&mut state);
        state.progress = state.progress.wrapping_add(1);
        drop(state);
        self.changed.notify_all();
        result
    }

    /// Waits until `ready` gives something. Adds the time that took to `waited`.
    ///
    /// # Errors
    /// Why the stream has failed; `Timeout` (`protocol.stream.stalled`) where nothing at all
    /// happened for `patience`.
    pub(super) fn wait<T>(
        &self,
        patience: Duration,
        waited: &mut Duration,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        let mut state = self.peek();
        let begun = Instant::now();
        let (mut last, mut progress) = (begun, state.progress);
        loop {
            if let Some(word) = &state.fault {
                return Err(word.clone().into());
            }
            if let Some(result) = ready(&mut state) {
                *waited += begun.elapsed();
                return Ok(result);
            }
            if progress != state.progress {
                (last, progress) = (Instant::now(), state.progress);
            }
            let Some(left) = patience
                .checked_sub(last.elapsed())
                .filter(|left| !left.is_zero())
            else {
                drop(state);
                let error = stalled(patience);
                self.fail(&error, true);
                return Err(error);
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Ends the stream for both halves; the first reason stays. Tells the peer unless it is the one
    /// who said so.
    pub(super) fn fail(&self, error: &Error, tell: bool) {
        let first = self.change(|state| {
            state.incoming.queue.clear();
            let first = state.fault.is_none() && !state.closed;
            if first {
                state.fault = Some(ErrorWord::from(error));
            }
            first
        });
        if first && tell {
            let reason = postcard::to_stdvec(&ErrorWord::from(error)).unwrap_or_default();
            let abort = Frame::new(crate::frame::FrameKind::Abort, 0, reason);
            let _ = self.link.send_now(abort);
        }
        self.link.close(None);
    }

    /// Why the stream has failed, if it has.
    pub(super) fn fault(&self) -> Option<Error> {
        self.peek().fault.clone().map(Error::from)
    }

    /// Says goodbye once both directions are at their end.
    pub(super) fn close_if_done(&self) {
        let done = {
            let state = self.peek();
            state.outgoing.finished && state.incoming.finished
        };
        if done {
            self.link.close(None);
        }
    }

    /// After the end of one direction: if it was the last, waits a little until the peer has taken
    /// notice, so that a program that ends now does not cut the last frames off.
    pub(super) fn linger(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.peek();
        while state.outgoing.finished
            && state.incoming.finished
            && !state.closed
            && state.fault.is_none()
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn stalled(patience: Duration) -> Error {
    Error::new(
        Kind::Timeout,
        "protocol.stream.stalled",
        format!(
            "nothing moved on the data stream for {} s",
            patience.as_secs_f32()
        ),
    )
    .hint("look into the log of the agent at the other end: its disk or repository may hang")
}

#[cfg(test)]
mod tests;
