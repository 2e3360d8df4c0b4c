//! Buffers of one window each, used again and again.
//!
//! Knows: how many there may be, and that a used one is as good as a new one (making a fresh one
//! costs the kernel as much as reading a window from memory). Refuses to know: what is in them; a
//! buffer that is handed out holds old bytes.

use super::budget::{Budget, Share};
use super::crew::Crew;
use base::Result;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A bounded number of equal buffers.
#[derive(Clone)]
pub struct BufferPool {
    budget: Budget,
    length: usize,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// One buffer; it goes back to its pool when dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    pool: BufferPool,
    _share: Share,
}

impl BufferPool {
    /// `count` buffers of `length` bytes, made when first needed.
    pub fn new(length: usize, count: usize) -> Self {
        let limit = (length as u64).saturating_mul(count.max(1) as u64);
        Self {
            budget: Budget::new(limit),
            length,
            free: Arc::default(),
        }
    }

    /// A buffer, as soon as there is one. Its bytes are anything.
    ///
    /// # Errors
    /// As [`Crew::check`].
    pub fn take(&self, crew: &Crew) -> Result<Buffer> {
        let share = self.budget.take(crew, self.length as u64)?;
        let used = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let bytes = used.unwrap_or_else(|| vec![0; self.length]);
        Ok(Buffer {
            bytes,
            pool: self.clone(),
            _share: share,
        })
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::cancel::Cancel;

    #[test]
    fn buffers_come_back_and_are_used_again() {
        let crew = Crew::new(&Cancel::new());
        let pool = BufferPool::new(16, 2);
        let mut first = pool.take(&crew).unwrap();
        first[0] = 7;
        let _second = pool.take(&crew).unwrap();
        drop(first);
        assert_eq!(pool.take(&crew).unwrap()[0], 7);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
    }
}
