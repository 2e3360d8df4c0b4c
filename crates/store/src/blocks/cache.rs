//! A small cache that forgets what was not used for longest.
//!
//! Knows: weights and a bound on their sum. Refuses to know: what is kept.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key, at most so much weight of them.
pub(crate) struct Cache<K, V> {
    values: HashMap<K, Kept<V>>,
    /// Keys by when they were used last.
    order: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
    limit: usize,
}

struct Kept<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            values: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            weight: 0,
            limit,
        }
    }

    /// The value of a key, which thereby counts as used now.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let kept = self.values.get_mut(key)?;
        self.order.remove(&kept.used);
        kept.used = self.clock;
        self.order.insert(self.clock, *key);
        Some(kept.value.clone())
    }

    /// Keeps a value.
    pub(crate) fn put(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        self.clock += 1;
        self.values.insert(
            key,
            Kept {
                value,
                weight,
                used: self.clock,
            },
        );
        self.order.insert(self.clock, key);
        self.weight += weight;
        while self.weight > self.limit && self.values.len() > 1 {
            let Some((_, oldest)) = self.order.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(kept) = self.values.remove(key) {
            self.order.remove(&kept.used);
            self.weight -= kept.weight;
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.order.clear();
        self.weight = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_was_not_used_for_longest() {
        let mut cache = Cache::new(10);
        cache.put(1, 'a', 4);
        cache.put(2, 'b', 4);
        assert_eq!(cache.get(&1), Some('a'));
        cache.put(3, 'c', 4);
        assert_eq!(
            (cache.get(&1), cache.get(&2), cache.get(&3)),
            (Some('a'), None, Some('c'))
        );
        cache.put(4, 'd', 100);
        assert_eq!((cache.get(&1), cache.get(&4)), (None, Some('d')));
    }
}
