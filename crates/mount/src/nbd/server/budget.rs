//! A bound on the bytes that all requests together hold in memory.
//!
//! Knows: how much is taken, and who waits. Refuses to know: for what.

use std::sync::{Condvar, Mutex, PoisonError};

use super::super::wire::PAYLOAD_MAX;

/// A number of bytes that many share.
pub struct Budget {
    total: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// A part of the budget, given back when dropped.
pub struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    /// A budget that is large enough for the largest request.
    pub fn new(bytes: u64) -> Self {
        let total = bytes.max(u64::from(PAYLOAD_MAX));
        Self {
            total,
            free: Mutex::new(total),
            freed: Condvar::new(),
        }
    }

    /// Waits for `bytes`. Never for ever: every holder is bound by the time of one message.
    pub fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.total);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_while(free, |free| *free < bytes);
        *waited.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Share {
            budget: self,
            bytes,
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self
            .budget
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.freed.notify_all();
    }
}
