//! What happened, call by call, and its digest.
//!
//! Knows: events in order, how a person reads them, and one digest over all of them, bytes
//! included: two runs of one seed must have the same. Refuses to know: what the calls mean.

use super::Call;
use std::fmt;
use std::sync::Arc;

/// One call and how it ended, or a note of the world that drives the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its number, from 0.
    pub number: u64,
    /// Who called: the number of the process; `None` for a note.
    pub process: Option<u64>,
    /// What was called.
    pub call: Option<Call>,
    /// The path, or the text of a note.
    pub path: String,
    /// The second path of a move.
    pub to: Option<String>,
    /// Bytes read or written.
    pub amount: usize,
    /// How it ended: nothing for success, else the code of the error.
    pub failed: Option<String>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} ", self.number)?;
        let (Some(process), Some(call)) = (self.process, self.call) else {
            return write!(f, "-- {}", self.path);
        };
        write!(
            f,
            "p{process} {call} {}",
            if self.path.is_empty() {
                "."
            } else {
                &self.path
            }
        )?;
        if let Some(to) = &self.to {
            write!(f, " -> {to}")?;
        }
        if self.amount > 0 {
            write!(f, " [{} B]", self.amount)?;
        }
        match &self.failed {
            Some(code) => write!(f, "  FAILED {code}"),
            None => Ok(()),
        }
    }
}

/// The log of one disk; forks share what happened before.
#[derive(Clone)]
pub(super) struct Log {
    events: Vec<Arc<Event>>,
    hasher: blake3::Hasher,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            events: Vec::new(),
            hasher: blake3::Hasher::new(),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.events.len() as u64
    }

    /// Adds an event; `bytes` are what was read or written, and count for the digest.
    pub(super) fn push(&mut self, event: Event, bytes: &[u8]) {
        let mut put = |bytes: &[u8]| {
            self.hasher
                .update(&(bytes.len() as u64).to_le_bytes())
                .update(bytes);
        };
        put(&event.process.unwrap_or(u64::MAX).to_le_bytes());
        put(&[event.call.map_or(u8::MAX, |call| call as u8)]);
        put(event.path.as_bytes());
        put(event.to.as_deref().unwrap_or("").as_bytes());
        put(event.failed.as_deref().unwrap_or("").as_bytes());
        put(bytes);
        self.events.push(Arc::new(event));
    }

    pub(super) fn events(&self) -> Vec<Arc<Event>> {
        self.events.clone()
    }

    pub(super) fn digest(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}
