//! Counting who is here.
//!
//! Knows: a bound per name and a place that frees itself. Refuses to know: what is counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts places by name.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<HashMap<String, usize>>>);

/// A place; free again when dropped.
pub(super) struct Slot {
    tally: Tally,
    name: String,
}

impl Tally {
    /// A place under `name`, unless `limit` are taken.
    pub(super) fn enter(&self, name: impl Into<String>, limit: usize) -> Option<Slot> {
        let name = name.into();
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(name.clone()).or_default();
        if *taken >= limit {
            return None;
        }
        *taken += 1;
        Some(Slot {
            tally: self.clone(),
            name,
        })
    }

    /// How many places are taken under `name`.
    pub(super) fn count(&self, name: &str) -> usize {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(name).copied().unwrap_or(0)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut places = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.name) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                places.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_name_and_come_free() {
        let tally = Tally::default();
        let one = tally.enter("a", 2).unwrap();
        let _two = tally.enter("a", 2).unwrap();
        assert!(tally.enter("a", 2).is_none());
        assert!(tally.enter("b", 1).is_some());
        assert_eq!((tally.count("a"), tally.count("b")), (2, 0));
        drop(one);
        assert!(tally.enter("a", 2).is_some());
    }
}
