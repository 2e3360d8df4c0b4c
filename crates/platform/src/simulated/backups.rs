//! Backups, kept by the simulated hypervisor.
//!
//! Knows: each call as a list of steps, between which the connection may be lost.
//! Refuses to know: which faults a test wants.

use super::state::{Machine as Simulation, Running, State, Tracker as SimulatedTracker};
use super::{NOT_TRACKABLE, Simulated, ranges};
use crate::contract::{
    Access, Backup, BackupDisk, BackupRequest, Backups, DiskRequest, DiskTracker, FullCause, Keep,
    MachineKey, MemoryAccess, Power, RunningBackup, Token, Tracker, Tracking, failure,
};
use base::block::BlockRead;
use base::{Error, Result};
use std::sync::Arc;

impl Backups for Simulated {
    fn begin_backup(&self, request: &BackupRequest) -> Result<Backup> {
        let begun = self.begin(request);
        // A refusal because of another backup must not end that one, nor touch a machine of the
        // same token: `end` goes by the token and so does neither.
        if begun.is_err() {
            let _ = self.end_backup(&request.machine, &request.token, Keep::Nothing);
        }
        begun
    }

    fn end_backup(&self, machine: &MachineKey, token: &Token, keep: Keep) -> Result<()> {
        let gone = |error: &Error| error.code() == "platform.machine.unknown";
        let on_machine = |act: &dyn Fn(&mut Simulation)| {
            self.step(|state| state.machine(machine).map(act))
                .or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
        };
        on_machine(&|machine| {
            if machine
                .running
                .as_ref()
                .is_some_and(|run| run.token.as_ref() == Some(token))
            {
                machine.running = None;
            }
        })?;
        if keep == Keep::Nothing {
            on_machine(&|machine| {
                machine
                    .trackers
                    .retain(|tracker| tracker.name != token.as_str());
            })?;
        }
        on_machine(&|machine| {
            if machine.held_by.as_ref() == Some(token) {
                machine.held_by = None;
                if machine.power == Power::Paused {
                    machine.power = Power::Off;
                }
            }
        })?;
        self.step(|state| {
            state.scratch.remove(token);
            Ok(())
        })
    }

    fn running_backup(&self, machine: &MachineKey) -> Result<Option<RunningBackup>> {
        self.step(|state| Ok(state.machine(machine)?.running.as_ref().map(describe)))
    }

    fn trackers(&self, machine: &MachineKey) -> Result<Vec<Tracker>> {
        self.step(|state| {
            let trackers = state
                .machine(machine)?
                .trackers
                .iter()
                .map(|tracker| Tracker {
                    name: tracker.name.clone(),
                    token: Token::recognise(&tracker.name),
                    created: Some(tracker.created),
                    disks: tracker.dirty.keys().cloned().collect(),
                });
            Ok(trackers.collect())
        })
    }

    fn delete_tracker(&self, machine: &MachineKey, name: &str) -> Result<()> {
        self.step(|state| {
            if let Ok(machine) = state.machine(machine) {
                machine.trackers.retain(|tracker| tracker.name != name);
            }
            Ok(())
        })
    }
}

fn describe(running: &Running) -> RunningBackup {
    let description = match &running.token {
        Some(token) => format!("a backup of Backstay runs ({token})"),
        None => "a backup of another program runs".to_owned(),
    };
    RunningBackup {
        token: running.token.clone(),
        description,
    }
}

impl Simulated {
    fn begin(&self, request: &BackupRequest) -> Result<Backup> {
        let token = &request.token;
        if request.disks.is_empty() {
            return Err(Error::invalid(
                "platform.backup.request-malformed",
                "a backup needs at least one disk, and each disk once",
            ));
        }
        self.step(|state| {
            let machine = state.machine(&request.machine)?;
            match &machine.running {
                Some(running) => Err(failure::busy(&machine.name, &describe(running).description)),
                None => Ok(()),
            }
        })?;
        let mut notes = Vec::new();
        if self.step(|state| Ok(state.machine(&request.machine)?.power == Power::Off))? {
            self.step(|state| {
                state.machine(&request.machine)?.held_by = Some(token.clone());
                Ok(())
            })?;
            self.step(|state| {
                state.machine(&request.machine)?.power = Power::Paused;
                Ok(())
            })?;
            notes.push("the machine is off; it is held paused for the backup".to_owned());
        }
        self.step(|state| {
            state.scratch.insert(token.clone());
            Ok(())
        })?;
        let created = self.clock.as_ref().map(|clock| clock.now().unix_seconds());
        let disks = self.step(|state| self.begin_now(state, request, created))?;
        Ok(Backup {
            machine: request.machine.clone(),
            token: token.clone(),
            disks,
            notes,
        })
    }

    /// The one moment: views, changes since the bases, and the new tracker.
    fn begin_now(
        &self,
        state: &mut State,
        request: &BackupRequest,
        created: Option<i64>,
    ) -> Result<Vec<BackupDisk>> {
        let hide = state.mischief.hide_one_in;
        state.trackers_made += 1;
        let created = created.unwrap_or(state.trackers_made);
        let machine = state.machine(&request.machine)?;
        let mut disks = Vec::with_capacity(request.disks.len());
        let mut tracked = std::collections::BTreeMap::new();
        for wanted in &request.disks {
            let (tracking, changed) = changes(machine, request, wanted)?;
            let changed = changed.map(|clusters| {
                clusters
                    .into_iter()
                    .filter(|_| hide == 0 || !self.random.one_in(hide))
                    .collect()
            });
            let disk = machine.disk(&wanted.target)?;
            let capacity = disk.content.size();
            let track = request.track && disk.trackable;
            let tracker = track.then(|| DiskTracker {
                machine: request.machine.clone(),
                name: request.token.clone(),
                target: wanted.target.clone(),
                source: disk.source.clone(),
                capacity,
                document: String::new(),
            });
            if track {
                tracked.insert(wanted.target.clone(), Default::default());
            }
            disks.push(BackupDisk {
                target: wanted.target.clone(),
                capacity,
                access: Access::Memory(MemoryAccess {
                    disk: Arc::new(disk.content.clone()),
                    changed: changed.map(|clusters: Vec<u64>| ranges(clusters, capacity)),
                }),
                tracking,
                tracker,
            });
        }
        if !tracked.is_empty() {
            let name = request.token.as_str().to_owned();
            let tracker = SimulatedTracker {
                name,
                created,
                broken: false,
                dirty: tracked,
            };
            machine.trackers.push(tracker);
        }
        machine.running = Some(Running {
            token: Some(request.token.clone()),
        });
        Ok(disks)
    }
}

/// What is known about a disk's changes: the same ladder of doubts as on a real hypervisor.
fn changes(
    machine: &Simulation,
    request: &BackupRequest,
    wanted: &DiskRequest,
) -> Result<(Tracking, Option<Vec<u64>>)> {
    let disk = machine.disk(&wanted.target)?;
    let full = |cause, reason: &str| {
        Ok((
            Tracking::Full {
                cause,
                reason: reason.to_owned(),
            },
            None,
        ))
    };
    if !disk.trackable {
        return full(FullCause::NotTrackable, NOT_TRACKABLE);
    }
    let Some(base) = &wanted.base else {
        return full(FullCause::NoBase, "there is no earlier point to build on");
    };
    if base.machine != request.machine || base.target != wanted.target {
        return full(
            FullCause::Foreign,
            "the tracker belongs to another machine or disk",
        );
    }
    if base.capacity != disk.content.size() {
        return full(FullCause::Resized, "the disk had another size last time");
    }
    if base.source != disk.source {
        return full(FullCause::Moved, "the disk lay elsewhere last time");
    }
    let tracker = machine.tracker(base.name.as_str());
    let Some((tracker, dirty)) =
        tracker.and_then(|tracker| Some((tracker, tracker.dirty.get(&wanted.target)?)))
    else {
        return full(FullCause::TrackerMissing, "the tracker is gone");
    };
    if tracker.broken {
        return full(
            FullCause::TrackerInconsistent,
            "the tracker's map is broken",
        );
    }
    let since = base.name.clone();
    Ok((
        Tracking::Changed { since },
        Some(dirty.iter().copied().collect()),
    ))
}
