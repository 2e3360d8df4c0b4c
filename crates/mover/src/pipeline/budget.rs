//! A bound on the memory that a pipeline's buffers take.
//!
//! Knows: how many bytes are out, and who waits for some to come back. Refuses to know: what the
//! buffers hold.

use super::crew::Crew;
use base::Result;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often a waiting thread looks whether its crew is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A number of bytes that buffers share.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    limit: u64,
    taken: Mutex<u64>,
    returned: Condvar,
}

/// Bytes taken; they come back when this is dropped.
pub struct Share {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shared {
            limit,
            taken: Mutex::new(0),
            returned: Condvar::new(),
        }))
    }

    /// Takes bytes, waiting until enough are there. A single share may be larger than the whole
    /// budget; it then waits until it is alone.
    ///
    /// # Errors
    /// As [`Crew::check`].
    pub fn take(&self, crew: &Crew, bytes: u64) -> Result<Share> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken > 0 && taken.saturating_add(bytes) > self.0.limit {
            crew.check()?;
            let waited = self.0.returned.wait_timeout(taken, LOOK_EVERY);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = taken.saturating_add(bytes);
        Ok(Share {
            budget: self.clone(),
            bytes,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let shared = &self.budget.0;
        let mut taken = shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = taken.saturating_sub(self.bytes);
        shared.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::cancel::Cancel;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn never_more_than_the_limit_is_out_unless_one_share_is_larger() {
        let budget = Budget::new(10);
        let crew = Crew::new(&Cancel::new());
        drop(budget.take(&crew, 100).unwrap());
        let (out, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let share = budget.take(&crew, 3).unwrap();
                        let now = out.fetch_add(3, Ordering::SeqCst) + 3;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        out.fetch_sub(3, Ordering::SeqCst);
                        drop(share);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 10);
    }

    #[test]
    fn waiting_ends_when_the_crew_stops() {
        let budget = Budget::new(10);
        let cancel = Cancel::new();
        let crew = Crew::new(&cancel);
        let _all = budget.take(&crew, 10).unwrap();
        cancel.cancel();
        assert!(budget.take(&crew, 1).is_err());
    }
}
