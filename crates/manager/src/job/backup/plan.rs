//! What the backup of one machine builds on: a pure function of its earlier points.
//!
//! Knows: that a tracker is worth asking for when a point of the same job recorded it.
//! Refuses to know: whether the tracker is still there; the platform says that.

use base::id::{JobId, MachineId, PointId};
use platform::contract::{DiskRequest, DiskTracker, Machine};
use protocol::words::point::Point;
use std::collections::BTreeMap;

/// The key under which a point's disk keeps its tracker.
pub const TRACKER: &str = "platform";

/// What one disk builds on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskPlan {
    /// The request to the platform.
    pub request: DiskRequest,
    /// The point whose content the changes are applied to.
    pub base: Option<PointId>,
}

/// Plans all disks of a machine. With `read_all` nothing is built on.
pub fn plan(
    machine: &Machine,
    id: MachineId,
    job: JobId,
    known: &[Point],
    read_all: bool,
) -> Vec<DiskPlan> {
    let mut earlier: Vec<&Point> = known
        .iter()
        .filter(|point| point.draft.machine.id == id)
        .filter(|point| point.draft.job.as_ref().is_some_and(|(of, _)| *of == job))
        .collect();
    earlier.sort_by_key(|point| std::cmp::Reverse((point.created, point.id)));
    let disks = machine.disks.iter().map(|disk| {
        let found = earlier.iter().filter(|_| !read_all).find_map(|point| {
            let tracker = read_tracker(&point.disk(&disk.target)?.tracker)?;
            Some((point.id, tracker))
        });
        let (base, tracker) = found.unzip();
        DiskPlan {
            request: DiskRequest {
                target: disk.target.clone(),
                base: tracker,
            },
            base,
        }
    });
    disks.collect()
}

/// A tracker as a point keeps it.
pub fn write_tracker(tracker: &DiskTracker) -> BTreeMap<String, String> {
    // A tracker is plain strings and numbers; where it could not be written the next run reads all.
    let json = serde_json::to_string(tracker).unwrap_or_default();
    BTreeMap::from([
        ("checkpoint".to_owned(), tracker.name.to_string()),
        (TRACKER.to_owned(), json),
    ])
}

fn read_tracker(kept: &BTreeMap<String, String>) -> Option<DiskTracker> {
    serde_json::from_str(kept.get(TRACKER)?).ok()
}
