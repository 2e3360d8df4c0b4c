//! The hypervisor's change trackers get lost, break, belong to another machine, or lie.
//!
//! Knows: a simulated hypervisor, a store, and a mover that believes what it is told. Where the
//! tracker is honest the point restores bit for bit and its root is the very root a full read of
//! the same view gives; where it lies the roots differ, so that an audit sees it.
//! Refuses to know: how often an audit is due; that is the job's policy.

use super::Tally;
use crate::disk::SimDisk;
use crate::engine::Store;
use crate::engine::store::{all_windows, changed_windows, draft, point_disk, writer_options};
use crate::history::Ground;
use crate::oracle::{Complaint, Oracle};
use base::block::BlockRead;
use base::id::{JobId, PointId};
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, KIB};
use base::{Error, Kind, Result};
use platform::contract::{
    Access, Backup, BackupRequest, Backups, DiskRequest, DiskTracker, Keep, MachineKey,
    MemoryAccess, Token, Tracking,
};
use platform::simulated::{Mischief, Simulated};
use std::collections::BTreeMap;
use std::sync::Arc;

const DISKS: [&str; 2] = ["vda", "vdb"];

/// What one run gave.
struct Made {
    point: PointId,
    trackers: BTreeMap<String, DiskTracker>,
    /// Disks whose root is not the one that a full read gives.
    doubted: Vec<String>,
}

struct World {
    store: Store,
    ground: Ground,
    disk: SimDisk,
    platform: Simulated,
    random: SeededRandom,
    machine: MachineKey,
}

/// Runs `rounds` backups, with something odd before many of them.
pub fn trackers(store: Store, seed: u64, rounds: u64) -> Tally {
    match World::new(store, seed).and_then(|world| world.rounds(rounds)) {
        Ok(tally) => tally,
        Err(error) => Tally::broken("tracker", &error),
    }
}

impl World {
    fn new(store: Store, seed: u64) -> Result<Self> {
        let ground = Ground::new(Arc::new(store), seed, 0);
        let disk = ground.new_repository()?;
        let platform = Simulated::new(seed);
        let sizes = [
            (DISKS[0], ByteCount(640 * KIB)),
            (DISKS[1], ByteCount(200 * KIB)),
        ];
        let machine = platform.add_machine("subject", &sizes);
        platform.work(&machine, 20)?;
        let random = SeededRandom::new(seed ^ 0x7ac3_e12d);
        Ok(Self {
            store,
            ground,
            disk,
            platform,
            random,
            machine,
        })
    }

    fn rounds(mut self, rounds: u64) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut last: Option<Made> = None;
        for round in 0..rounds {
            let lies = self.random.one_in(4);
            let odd = self.something_odd(last.as_ref())?;
            self.platform.work(&self.machine, 3)?;
            self.platform.set_mischief(Mischief {
                hide_one_in: if lies { 2 } else { 0 },
                ..Mischief::default()
            });
            self.disk
                .note(format!("round {round}: {odd}, lies: {lies}"));
            let (made, verdict) = self.round(last.as_ref(), lies)?;
            if !tally.count(
                &self.disk,
                || format!("round {round}, {odd}, lies: {lies}"),
                verdict,
            ) {
                break;
            }
            // What an audit does on doubt: the next run reads all.
            last = if made.doubted.is_empty() {
                Some(made)
            } else {
                None
            };
        }
        Ok(tally)
    }

    /// Something that happens to machines between two backups.
    fn something_odd(&mut self, last: Option<&Made>) -> Result<&'static str> {
        Ok(match self.random.below(8) {
            0 => {
                let pages = 1 + self.random.below(200);
                let target = DISKS[usize::from(self.random.one_in(2))];
                self.platform
                    .resize(&self.machine, target, ByteCount(pages * 4 * KIB))?;
                "resized"
            }
            1 => {
                if let Some(tracker) = last.and_then(|last| last.trackers.values().next()) {
                    self.platform
                        .lose_tracker(&self.machine, tracker.name.as_str())?;
                }
                "tracker lost"
            }
            2 => {
                self.platform.kill(&self.machine)?;
                "hypervisor killed"
            }
            3 => {
                self.machine = self.platform.recreate(&self.machine)?;
                "machine made anew"
            }
            _ => "nothing odd",
        })
    }

    fn round(&self, last: Option<&Made>, lies: bool) -> Result<(Made, Result<(), Complaint>)> {
        let mut random = [0; 10];
        self.random.fill(&mut random);
        let token = Token::new(&JobId::new(1, [3; 10]), &PointId::new(2, random));
        let request = BackupRequest {
            machine: self.machine.clone(),
            token: token.clone(),
            track: true,
            disks: DISKS
                .iter()
                .map(|target| DiskRequest {
                    target: (*target).to_owned(),
                    base: last.and_then(|last| last.trackers.get(*target).cloned()),
                })
                .collect(),
        };
        let mut views = BTreeMap::new();
        for target in DISKS {
            views.insert(
                target.to_owned(),
                self.platform.disk_now(&self.machine, target)?,
            );
        }
        let backup = self.platform.begin_backup(&request)?;
        // The guest goes on while it is read.
        self.platform.work(&self.machine, 2)?;
        let made = self.store(last, &backup)?;
        self.platform
            .end_backup(&self.machine, &token, Keep::Tracker)?;
        let verdict = self.judge(&made, &views, lies);
        Ok((made, verdict))
    }

    /// Stores what the platform gives, believing its trackers; and reads all once more as an audit.
    fn store(&self, last: Option<&Made>, backup: &Backup) -> Result<Made> {
        let process = self.ground.process(&self.disk);
        let repository = self.store.repository(&process)?;
        let writer = repository.writer(writer_options())?;
        let base = last.map(|last| writer.base(last.point)).transpose()?;
        let (mut disks, mut trackers, mut doubted) = (Vec::new(), BTreeMap::new(), Vec::new());
        for disk in &backup.disks {
            let Access::Memory(MemoryAccess {
                disk: source,
                changed,
            }) = &disk.access
            else {
                return Err(Error::new(
                    Kind::Bug,
                    "sim.tracker.access",
                    "not a disk in memory",
                ));
            };
            let full = all_windows(&writer, &**source)?;
            let root = match (&base, &disk.tracking, changed) {
                (Some(base), Tracking::Changed { .. }, Some(changed)) => {
                    let base = base.disk(&disk.target)?.root;
                    changed_windows(&repository, &writer, base, &**source, changed)?
                }
                _ => full,
            };
            if root != full {
                doubted.push(disk.target.clone());
            }
            let is_changed = matches!(disk.tracking, Tracking::Changed { .. });
            disks.push(point_disk(&disk.target, source.size(), root, is_changed));
            if let Some(tracker) = &disk.tracker {
                trackers.insert(disk.target.clone(), tracker.clone());
            }
        }
        let parent = base.map(|base| base.id);
        let point = writer.commit(draft(&process, "subject", disks, Vec::new(), parent))?;
        Ok(Made {
            point: point.id,
            trackers,
            doubted,
        })
    }

    /// Every disk restores to its view, or is doubted; an honest tracker is never doubted.
    fn judge(
        &self,
        made: &Made,
        views: &BTreeMap<String, Arc<platform::simulated::SparseDisk>>,
        lies: bool,
    ) -> Result<(), Complaint> {
        let complain = |what: String| Err(Complaint::new(Oracle::Listed, what));
        if let (false, Some(first)) = (lies, made.doubted.first()) {
            return complain(format!("the root of {first} is not that of a full read"));
        }
        for (target, view) in views {
            let found = self.restore(made.point, target);
            let right = bytes_of(&**view);
            let equal = match (&found, &right) {
                (Ok(found), Ok(right)) => found == right,
                (Err(error), _) | (_, Err(error)) => {
                    return complain(format!("restoring {target}: {error:?}"));
                }
            };
            if equal == made.doubted.contains(target) {
                return complain(format!("{target} is right: {equal}, doubted: {equal}"));
            }
        }
        Ok(())
    }

    fn restore(&self, point: PointId, target: &str) -> Result<Vec<u8>> {
        let process = self.ground.process(&self.disk);
        let repository = self.store.repository(&process)?;
        let point = repository.point(point)?;
        bytes_of(&repository.open_disk(&point, target)?)
    }
}

fn bytes_of(disk: &dyn BlockRead) -> Result<Vec<u8>> {
    let mut bytes = vec![0; disk.size().as_usize()?];
    disk.read_at(ByteOffset::ZERO, &mut bytes)?;
    Ok(bytes)
}
