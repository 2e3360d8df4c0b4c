//! The bytes of one simulated file, and how safe each of them is.
//!
//! Knows: which bytes a crash must keep, may tear or has lost for ever.
//! Refuses to know: the file's name and who writes it.

use base::random::{Random, SeededRandom};
use std::sync::Arc;

/// What a disk writes whole. Anything larger may be torn at this border.
pub(super) const SECTOR: usize = 512;

/// How safe a run of bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Safety {
    /// On stable storage.
    Durable,
    /// In the page cache, to be written by the next sync.
    Dirty,
    /// In the page cache, but no sync will ever write it: an earlier one failed and marked the
    /// page clean (as Linux does), or the device said yes and forgot.
    Lost,
}

/// What a crash does to the bytes that are not durable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate<'a> {
    /// The process died, the machine did not: the page cache is still there.
    Kept,
    /// All of them are gone.
    Gone,
    /// Each sector by itself: there, zeros, or whatever lay on the disk before.
    Torn(&'a SeededRandom),
}

/// The bytes of a file that grows at its end.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    bytes: Arc<Vec<u8>>,
    /// Ends of runs, in order; the last one is the length.
    runs: Vec<(usize, Safety)>,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Appends bytes. `phantom`: the device will say that it stored them and will not.
    pub(super) fn append(&mut self, bytes: &[u8], phantom: bool) {
        if bytes.is_empty() {
            return;
        }
        Arc::make_mut(&mut self.bytes).extend_from_slice(bytes);
        let end = self.bytes.len();
        let safety = if phantom { Safety::Lost } else { Safety::Dirty };
        match self.runs.last_mut() {
            Some(last) if last.1 == safety => last.0 = end,
            _ => self.runs.push((end, safety)),
        }
    }

    /// A sync that worked.
    pub(super) fn sync(&mut self) {
        self.settle(Safety::Durable);
    }

    /// A sync that failed: the pages count as clean from now on, and are not on the disk.
    pub(super) fn fail_sync(&mut self) {
        self.settle(Safety::Lost);
    }

    fn settle(&mut self, dirty_becomes: Safety) {
        let mut runs: Vec<(usize, Safety)> = Vec::with_capacity(self.runs.len());
        for (end, safety) in self.runs.drain(..) {
            let safety = if safety == Safety::Dirty {
                dirty_becomes
            } else {
                safety
            };
            match runs.last_mut() {
                Some(last) if last.1 == safety => last.0 = end,
                _ => runs.push((end, safety)),
            }
        }
        self.runs = runs;
    }

    /// Whether a crash can change nothing.
    pub(super) fn is_durable(&self) -> bool {
        self.runs
            .iter()
            .all(|(_, safety)| *safety == Safety::Durable)
    }

    /// The file as it is found after a crash. All that is found is durable.
    pub(super) fn after_crash(&self, fate: Fate<'_>) -> Self {
        if self.is_durable() || matches!(fate, Fate::Kept) {
            return Self::durable(Arc::clone(&self.bytes));
        }
        let safe_end = self
            .runs
            .iter()
            .rev()
            .find(|(_, safety)| *safety == Safety::Durable)
            .map_or(0, |(end, _)| *end);
        let end = match fate {
            Fate::Torn(random) => self.torn_end(safe_end, random),
            Fate::Kept | Fate::Gone => safe_end,
        };
        let mut bytes = self.bytes[..end].to_vec();
        let mut start = 0;
        for (run_end, safety) in &self.runs {
            let stop = (*run_end).min(end);
            if *safety != Safety::Durable && start < stop {
                tear(&mut bytes, start, stop, fate);
            }
            start = *run_end;
        }
        Self::durable(Arc::new(bytes))
    }

    /// Where a torn file ends: at its safe end, its full length, or on a sector between.
    fn torn_end(&self, safe_end: usize, random: &SeededRandom) -> usize {
        let full = self.bytes.len();
        match random.below(4) {
            0 => safe_end,
            1 | 2 => full,
            _ => {
                let sectors = ((full - safe_end) / SECTOR) as u64;
                let cut = safe_end / SECTOR * SECTOR
                    + usize::try_from(random.below(sectors + 1)).unwrap_or(0) * SECTOR;
                cut.clamp(safe_end, full)
            }
        }
    }

    fn durable(bytes: Arc<Vec<u8>>) -> Self {
        let runs = if bytes.is_empty() {
            Vec::new()
        } else {
            vec![(bytes.len(), Safety::Durable)]
        };
        Self { bytes, runs }
    }

    /// Changes stored bytes behind everybody's back (rot, a misdirected write, a shortened file).
    pub(super) fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes.to_vec();
        change(&mut bytes);
        *self = Self::durable(Arc::new(bytes));
    }
}

/// Tears the bytes between `start` and `stop`, sector by sector.
fn tear(bytes: &mut [u8], start: usize, stop: usize, fate: Fate<'_>) {
    let mut at = start;
    while at < stop {
        let next = ((at / SECTOR + 1) * SECTOR).min(stop);
        match fate {
            Fate::Kept => {}
            Fate::Gone => bytes[at..next].fill(0),
            Fate::Torn(random) => match random.below(4) {
                0 => bytes[at..next].fill(0),
                1 => random.fill(&mut bytes[at..next]),
                _ => {}
            },
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_loses_the_bytes_even_if_a_later_one_works() {
        let mut content = Content::default();
        content.append(&[1; 1000], false);
        content.sync();
        content.append(&[2; 1000], false);
        content.fail_sync();
        content.append(&[3; 1000], false);
        content.sync();
        assert!(!content.is_durable());
        assert_eq!(content.bytes()[1500], 2, "the page cache still shows it");
        let found = content.after_crash(Fate::Gone);
        assert_eq!(found.length(), 3000);
        assert!(found.bytes()[..1000].iter().all(|byte| *byte == 1));
        assert!(found.bytes()[1000..2000].iter().all(|byte| *byte == 0));
        assert!(found.bytes()[2000..].iter().all(|byte| *byte == 3));
    }

    #[test]
    fn tearing_keeps_what_is_durable_and_moves_on_sector_borders() {
        let mut content = Content::default();
        content.append(&[7; 700], false);
        content.sync();
        content.append(&[9; 3000], false);
        let (mut shorter, mut holed) = (0, 0);
        for seed in 0..200 {
            let random = SeededRandom::new(seed);
            let found = content.after_crash(Fate::Torn(&random));
            assert!(found.is_durable());
            assert!(found.bytes()[..700].iter().all(|byte| *byte == 7));
            let length = found.bytes().len();
            assert!(length == 700 || length == 3700 || length.is_multiple_of(SECTOR));
            shorter += u32::from(length < 3700);
            holed += u32::from(found.bytes()[700..].iter().any(|byte| *byte != 9));
            for sector in found.bytes().get(1024..).unwrap_or(&[]).chunks(SECTOR) {
                let same = sector.iter().all(|byte| *byte == sector[0]);
                assert!(same || !sector.iter().all(|byte| *byte == 9 || *byte == 0));
            }
        }
        assert!(shorter > 20 && holed > 20, "{shorter} {holed}");
    }
}
