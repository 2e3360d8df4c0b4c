//! The disk is full, at every size.
//!
//! Knows: a backup that runs out of room anywhere; then, still without room, listing, restoring,
//! deleting and collecting, which must work and free space.
//! Refuses to know: where a store keeps the room it needs for that.

use super::{Prepared, Tally, prepare};
use crate::disk::{Outcome, SimDisk};
use crate::history::{self, Command, Expected, Ground};
use crate::oracle::{Complaint, Oracle, Questions, judge};

/// Fills the disk at each multiple of `step` bytes of what a second backup needs.
pub fn full_disk(ground: &Ground, step: u64) -> Tally {
    let prepared = match prepare(ground, &[Command::Backup(0), Command::Backup(1)]) {
        Ok(prepared) => prepared,
        Err(error) => return Tally::broken("preparing", &error),
    };
    let mut tally = Tally::default();
    let start = prepared.disk.used();
    let mut quota = start;
    loop {
        let disk = prepared.disk.crash(Outcome::Everything);
        disk.set_quota(Some(quota));
        let verdict = one(ground, &prepared, &disk);
        let fitted = verdict.as_ref().is_ok_and(|fitted| *fitted);
        let state = || format!("{} bytes of room", quota - start);
        if !tally.count(&disk, state, verdict.map(|_| ())) || fitted {
            return tally;
        }
        quota += step;
    }
}

/// Whether the second backup fitted.
fn one(ground: &Ground, prepared: &Prepared, disk: &SimDisk) -> Result<bool, Complaint> {
    let steps = history::run(ground, disk, &[Command::Backup(2)]);
    let fitted = steps.iter().all(|step| step.failed.is_none());
    if let Some(code) = steps.first().and_then(|step| step.failed.as_deref())
        && !code.contains("full")
    {
        let what = format!("a full disk is called {code}");
        return Err(Complaint::new(Oracle::Commands, what));
    }
    let expected = history::expected(&prepared.expected, &steps, disk.events_logged());
    let seen = Questions {
        listed: true,
        next: false,
        verify: false,
    };
    judge(ground, disk, &expected, 2, seen)?;
    let used = disk.used();
    let steps = history::run(
        ground,
        disk,
        &[Command::Delete(0), Command::Collect, Command::Collect],
    );
    let expected: Expected = history::expected(&expected, &steps, disk.events_logged());
    if let Some(failed) = steps.iter().find(|step| step.failed.is_some()) {
        let what = format!("{} on a full disk: {:?}", failed.command, failed.failed);
        return Err(Complaint::new(Oracle::Commands, what));
    }
    if disk.used() >= used {
        let what = format!("deleting freed nothing: {used} bytes, then {}", disk.used());
        return Err(Complaint::new(Oracle::Commands, what));
    }
    judge(ground, disk, &expected, 2, seen)?;
    disk.set_quota(None);
    let found = disk.crash(Outcome::Nothing);
    judge(ground, &found, &expected, 2, Questions::ALL)?;
    Ok(fitted)
}
