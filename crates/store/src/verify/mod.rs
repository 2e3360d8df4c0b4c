//! Checking that all points can be restored.
//!
//! Knows: structure (points, trees, index, presence and length of packs) and data (every byte of
//! every pack); what is damaged, to the range of each disk.
//! Refuses to know: how to mend; it changes nothing.

mod packs;
mod points;
mod sealed;

pub use sealed::verify_sealed;

use crate::id::{PackId, SegmentId};
use crate::index::{self, DamagedSegment, Index, Marks};
use crate::limit::DAMAGE_MAX;
use crate::report::{Damage, Progress, VerifyOptions, VerifyReport};
use crate::repository::{Inner, Repository};
use base::Result;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

impl Repository {
    /// Checks that all points can be restored. Damage is in the report, not an error.
    ///
    /// # Errors
    /// `Cancelled`; `Io` where folders cannot be listed.
    pub fn verify(
        &self,
        options: &VerifyOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<VerifyReport> {
        Check::new(&self.inner, options, progress)?.run()
    }
}

/// One verification.
struct Check<'a> {
    inner: &'a Arc<Inner>,
    options: &'a VerifyOptions,
    progress: &'a dyn Fn(Progress),
    index: Index,
    report: VerifyReport,
    /// Entries whose place was found good: on a check of the structure, their pack is there with
    /// its length; on a check of data, their block was read.
    good: Marks,
    /// Why packs are not good.
    bad_packs: HashMap<PackId, String>,
    /// Why segments are not good, found while asking them.
    bad_segments: BTreeMap<SegmentId, String>,
}

impl<'a> Check<'a> {
    fn new(
        inner: &'a Arc<Inner>,
        options: &'a VerifyOptions,
        progress: &'a dyn Fn(Progress),
    ) -> Result<Self> {
        Ok(Self {
            inner,
            options,
            progress,
            index: Index::default(),
            report: VerifyReport::default(),
            good: Marks::default(),
            bad_packs: HashMap::new(),
            bad_segments: BTreeMap::new(),
        })
    }

    fn step(&self, step: &'static str, done: u64, total: u64) -> Result<()> {
        self.options.cancel.check()?;
        (self.progress)(Progress {
            step,
            done,
            total,
            bytes: false,
        });
        Ok(())
    }

    /// Says how many of the stored bytes were read. What was read twice counts once.
    fn step_bytes(&self, total: u64) -> Result<()> {
        self.options.cancel.check()?;
        (self.progress)(Progress {
            step: "read data",
            done: self.report.read.0.min(total),
            total,
            bytes: true,
        });
        Ok(())
    }

    fn damage(&mut self, damage: Damage) {
        push_damage(&mut self.report, damage);
    }

    fn run(mut self) -> Result<VerifyReport> {
        // Points first: all that they need was published before them.
        let list = self.inner_points()?;
        let loaded = index::load(&*self.inner.files, self.inner.config.id, &[])?;
        for DamagedSegment { name, error } in &loaded.damaged {
            let reason = error.to_string();
            self.damage(match name.parse() {
                Ok(segment) => Damage::Segment { segment, reason },
                Err(_) => Damage::Object {
                    path: format!("index/{name}"),
                    reason,
                },
            });
        }
        self.index = Index::new(loaded.segments, Default::default());
        self.adopt_unlisted()?;
        self.inner.blocks.set_index(self.index.clone());
        if self.options.read_data {
            self.check_segments()?;
        }
        self.check_packs()?;
        self.check_points(&list)?;
        for (segment, reason) in std::mem::take(&mut self.bad_segments) {
            let known = |damage: &Damage| matches!(damage, Damage::Segment { segment: known, .. } if *known == segment);
            if !self.report.damage.iter().any(known) {
                self.damage(Damage::Segment { segment, reason });
            }
        }
        self.inner.blocks.reload()?;
        Ok(self.report)
    }
}

/// Notes damage, up to the limit.
fn push_damage(report: &mut VerifyReport, damage: Damage) {
    if report.damage.len() >= DAMAGE_MAX {
        report.truncated = true;
    } else if report.damage.last() != Some(&damage) {
        report.damage.push(damage);
    }
}
