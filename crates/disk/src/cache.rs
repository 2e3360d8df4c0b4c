//! A bounded cache of table pages.
//!
//! Knows: the pages used last, by the offset they were read from, up to a fixed number of them.
//! Refuses to know: what the tables mean, and how a page is loaded.

use base::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The pages used last. Shared by all threads that read the disk.
pub(crate) struct Cache<V> {
    capacity: usize,
    pages: Mutex<Pages<V>>,
}

struct Pages<V> {
    /// Counts uses: the page with the smallest stamp was not used for longest.
    clock: u64,
    by_key: HashMap<u64, (u64, Arc<V>)>,
}

impl<V> Cache<V> {
    /// At most `capacity` pages, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let pages = Pages {
            clock: 0,
            by_key: HashMap::new(),
        };
        Self {
            capacity: capacity.max(1),
            pages: Mutex::new(pages),
        }
    }

    /// The page of `key`, loading it where it is not at hand. Two threads that miss at once both
    /// load: that is cheaper than making every other thread wait for a disk.
    pub(crate) fn get(&self, key: u64, load: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            pages.clock += 1;
            let now = pages.clock;
            if let Some((stamp, page)) = pages.by_key.get_mut(&key) {
                *stamp = now;
                return Ok(page.clone());
            }
        }
        let page = Arc::new(load()?);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.by_key.len() >= self.capacity {
            let oldest = pages.by_key.iter().min_by_key(|(_, (stamp, _))| *stamp);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                pages.by_key.remove(&key);
            }
        }
        let now = pages.clock;
        pages.by_key.insert(key, (now, page.clone()));
        Ok(page)
    }
}
