//! Checks of backups, trackers and cleaning up.
//!
//! Knows: promises about views and changes. Refuses to know: how a view is read; the subject does.

use super::{Subject, promise, refused};
use crate::contract::{
    AgentPresence, Backup, BackupRequest, Consistency, DiskRequest, DiskTracker, FullCause, Keep,
    MachineKey, Platform, Power, ResourceKind, Token, Tracking, begin_quiesced,
};
use base::id::{JobId, PointId};
use base::size::{ByteCount, ByteOffset, ByteRange, KIB, MIB};
use base::{Error, Kind, Result};
use std::time::Duration;

/// The granule that subjects write in.
const PIECE: u64 = 64 * KIB;

/// The token of the suite's run number `n`.
fn token(n: u64) -> Token {
    Token::new(&JobId::new(1, [0xc0; 10]), &PointId::new(n, [0x1e; 10]))
}

fn request(subject: &dyn Subject, token: &Token, base: Option<DiskTracker>) -> BackupRequest {
    BackupRequest {
        machine: subject.machine(),
        token: token.clone(),
        track: true,
        disks: vec![DiskRequest {
            target: subject.target(),
            base,
        }],
    }
}

fn begin(
    platform: &dyn Platform,
    subject: &dyn Subject,
    token: &Token,
    base: Option<DiskTracker>,
) -> Result<Backup> {
    let backup = platform.begin_backup(&request(subject, token, base))?;
    promise(
        backup.disks.len() == 1,
        "a backup of one disk has another number of disks",
    )?;
    promise(
        backup.disks[0].target == subject.target(),
        "the disk is another one",
    )?;
    Ok(backup)
}

/// The tracker that a backup gave.
fn tracker(backup: &Backup) -> Result<DiskTracker> {
    backup.disks[0].tracker.clone().ok_or_else(|| {
        Error::new(
            Kind::Bug,
            "platform.conformance.broken",
            "a backup started no tracker",
        )
    })
}

/// A good run: begin and end, with the tracker kept.
fn good_run(
    platform: &dyn Platform,
    subject: &dyn Subject,
    token: &Token,
    base: Option<DiskTracker>,
) -> Result<DiskTracker> {
    let backup = begin(platform, subject, token, base)?;
    let tracker = tracker(&backup)?;
    platform.end_backup(&subject.machine(), token, Keep::Tracker)?;
    Ok(tracker)
}

fn drop_tracker(platform: &dyn Platform, subject: &dyn Subject, token: &Token) -> Result<()> {
    platform.delete_tracker(&subject.machine(), token.as_str())
}

pub fn unknown_disk(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let mut wrong = request(subject, &token(1), None);
    wrong.disks[0].target = "nosuch".to_owned();
    refused(
        platform.begin_backup(&wrong),
        "platform.disk.unknown",
        "an unknown disk",
    )?;
    wrong.disks.clear();
    refused(
        platform.begin_backup(&wrong),
        "platform.backup.request-malformed",
        "no disk",
    )
}

pub fn full(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let (machine, token, other) = (subject.machine(), token(2), token(3));
    let backup = begin(platform, subject, &token, None)?;
    let Tracking::Full { cause, reason } = &backup.disks[0].tracking else {
        return promise(false, "a first backup is not a full one");
    };
    let tracking = subject.abilities().tracking;
    let expected = if tracking {
        FullCause::NoBase
    } else {
        FullCause::NotTrackable
    };
    promise(
        *cause == expected && !reason.is_empty(),
        "a full backup has no right reason",
    )?;
    promise(
        backup.disks[0].tracker.is_some() == tracking,
        "a tracker is there or not, wrongly",
    )?;
    let running = platform.running_backup(&machine)?;
    promise(
        running.and_then(|run| run.token).as_ref() == Some(&token),
        "it does not run",
    )?;
    let second = platform.begin_backup(&request(subject, &other, None));
    refused(second, "platform.backup.busy", "a second backup")?;
    let running = platform.running_backup(&machine)?;
    promise(
        running.is_some(),
        "a second backup that was refused ended the first",
    )?;
    platform.end_backup(&machine, &other, Keep::Nothing)?;
    promise(
        platform.running_backup(&machine)?.is_some(),
        "another token ended the backup",
    )?;
    platform.end_backup(&machine, &token, Keep::Tracker)?;
    platform.end_backup(&machine, &token, Keep::Tracker)?;
    promise(
        platform.running_backup(&machine)?.is_none(),
        "an ended backup runs on",
    )?;
    let left = platform.resources_of(&token)?;
    let only_tracker = left
        .iter()
        .all(|resource| resource.kind == ResourceKind::Tracker);
    promise(
        only_tracker && left.is_empty() != tracking,
        format!("a good run left {left:?}"),
    )?;
    drop_tracker(platform, subject, &token)?;
    drop_tracker(platform, subject, &token)
}

pub fn stands_still(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let token = token(4);
    subject.write(ByteOffset(MIB), &[0x31; PIECE as usize])?;
    let backup = begin(platform, subject, &token, None)?;
    subject.write(ByteOffset(MIB), &[0x32; PIECE as usize])?;
    let seen = subject.read(&backup.disks[0], ByteRange::new(MIB, PIECE))?;
    promise(
        seen == [0x31; PIECE as usize],
        "a view shows what was written after it began",
    )?;
    platform.end_backup(&subject.machine(), &token, Keep::Nothing)
}

pub fn incremental(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let (first, second) = (token(5), token(6));
    let base = good_run(platform, subject, &first, None)?;
    subject.write(ByteOffset(2 * MIB), &[0x41; PIECE as usize])?;
    let backup = begin(platform, subject, &second, Some(base))?;
    let disk = &backup.disks[0];
    let since = Tracking::Changed {
        since: first.clone(),
    };
    promise(
        disk.tracking == since,
        format!("changes are not believed: {:?}", disk.tracking),
    )?;
    let changed = subject.changed(disk)?;
    promise(
        changed == [ByteRange::new(2 * MIB, PIECE)],
        format!("one write of 64 KiB shows as {changed:?}"),
    )?;
    let seen = subject.read(disk, changed[0])?;
    promise(
        seen == [0x41; PIECE as usize],
        "a changed range does not show what was written",
    )?;
    platform.end_backup(&subject.machine(), &second, Keep::Tracker)?;
    drop_tracker(platform, subject, &first)?;
    drop_tracker(platform, subject, &second)
}

/// Deleting one tracker does not disturb another: a failed run's next one builds on an older point.
pub fn two_trackers(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let (first, failed, third) = (token(7), token(8), token(9));
    let base = good_run(platform, subject, &first, None)?;
    subject.write(ByteOffset(0), &[0x51; PIECE as usize])?;
    begin(platform, subject, &failed, Some(base.clone()))?;
    subject.write(ByteOffset(3 * MIB), &[0x52; PIECE as usize])?;
    platform.end_backup(&subject.machine(), &failed, Keep::Nothing)?;
    let backup = begin(platform, subject, &third, Some(base))?;
    let changed = subject.changed(&backup.disks[0])?;
    promise(
        changed == [ByteRange::new(0, PIECE), ByteRange::new(3 * MIB, PIECE)],
        format!("after a failed run the changes since the good one show as {changed:?}"),
    )?;
    platform.end_backup(&subject.machine(), &third, Keep::Nothing)?;
    drop_tracker(platform, subject, &first)
}

pub fn doubts(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let (first, second) = (token(10), token(11));
    let base = good_run(platform, subject, &first, None)?;
    let gone = DiskTracker {
        name: token(12),
        document: String::new(),
        ..base.clone()
    };
    let elsewhere = MachineKey::from("7d4c2f7e-0000-4000-8000-000000000000");
    let foreign = DiskTracker {
        machine: elsewhere,
        ..base.clone()
    };
    let another = DiskTracker {
        target: "nosuch".to_owned(),
        ..base.clone()
    };
    let resized = DiskTracker {
        capacity: base.capacity + ByteCount(PIECE),
        ..base.clone()
    };
    let moved = DiskTracker {
        source: "/elsewhere".to_owned(),
        ..base.clone()
    };
    for (doubtful, expected) in [
        (gone, FullCause::TrackerMissing),
        (foreign, FullCause::Foreign),
        (another, FullCause::Foreign),
        (resized, FullCause::Resized),
        (moved, FullCause::Moved),
    ] {
        let backup = begin(platform, subject, &second, Some(doubtful))?;
        let tracking = &backup.disks[0].tracking;
        let right = matches!(tracking, Tracking::Full { cause, reason }
            if *cause == expected && !reason.is_empty());
        promise(right, format!("{expected:?} gives {tracking:?}"))?;
        tracker(&backup)?;
        platform.end_backup(&subject.machine(), &second, Keep::Nothing)?;
    }
    let after = begin(platform, subject, &second, Some(base))?;
    let still = matches!(after.disks[0].tracking, Tracking::Changed { .. });
    promise(still, "doubts about one tracker spoilt another")?;
    platform.end_backup(&subject.machine(), &second, Keep::Nothing)?;
    drop_tracker(platform, subject, &first)
}

pub fn clean_up(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let token = token(13);
    begin(platform, subject, &token, None)?;
    promise(
        !platform.resources_of(&token)?.is_empty(),
        "a running backup is not listed",
    )?;
    promise(
        !platform.clean_up(&token, Keep::Nothing)?.is_empty(),
        "nothing was cleaned up",
    )?;
    let left = platform.resources_of(&token)?;
    promise(
        left.is_empty(),
        format!("after cleaning up there is {left:?}"),
    )?;
    let running = platform.running_backup(&subject.machine())?;
    promise(running.is_none(), "a backup that was cleaned up runs on")?;
    promise(
        platform.clean_up(&token, Keep::Nothing)?.is_empty(),
        "it was cleaned up twice",
    )
}

pub fn clean_up_keeps_others(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let (kept, running) = (token(14), token(15));
    good_run(platform, subject, &kept, None)?;
    begin(platform, subject, &running, None)?;
    platform.clean_up(&kept, Keep::Tracker)?;
    let trackers = platform.resources_of(&kept)?;
    promise(
        trackers.len() == 1,
        "cleaning up did not keep the tracker it was told to keep",
    )?;
    platform.clean_up(&running, Keep::Nothing)?;
    let trackers = platform.resources_of(&kept)?;
    promise(
        trackers.len() == 1,
        "cleaning up one run took the tracker of another",
    )?;
    platform.clean_up(&kept, Keep::Nothing).map(drop)
}

pub fn quiesced(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let (machine, token) = (subject.machine(), token(16));
    let (_, consistency) = begin_quiesced(
        platform,
        &request(subject, &token, None),
        Duration::from_secs(30),
    )?;
    let frozen = matches!(consistency, Consistency::FileSystems { .. });
    promise(
        frozen == subject.abilities().agent,
        format!("a quiesced backup is {consistency:?}"),
    )?;
    promise(
        platform.agent(&machine)? != AgentPresence::Frozen,
        "the guest is still frozen",
    )?;
    if subject.abilities().agent {
        let thawed = platform.thaw(&machine)?;
        promise(thawed == 0, "a thawed guest was thawed again")?;
    }
    platform.end_backup(&machine, &token, Keep::Nothing)
}

/// A machine that is off is held for its backup, its tracker lasts, and it is off afterwards.
pub fn switched_off(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let (machine, first, second) = (subject.machine(), token(17), token(18));
    let base = good_run(platform, subject, &first, None)?;
    subject.write(ByteOffset(2 * MIB), &[0x61; PIECE as usize])?;
    platform.destroy(&machine)?;
    let backup = begin(platform, subject, &second, Some(base))?;
    promise(
        platform.power(&machine)? != Power::Off,
        "a view is open of a machine that is off",
    )?;
    promise(
        !backup.notes.is_empty(),
        "nobody is told that a machine is held",
    )?;
    let held = platform.resources_of(&second)?;
    let listed = held
        .iter()
        .any(|resource| resource.kind == ResourceKind::HeldMachine);
    promise(listed, "a held machine is not listed")?;
    let changed = subject.changed(&backup.disks[0])?;
    promise(
        changed == [ByteRange::new(2 * MIB, PIECE)],
        format!("changes are {changed:?}"),
    )?;
    platform.end_backup(&machine, &second, Keep::Tracker)?;
    promise(
        platform.power(&machine)? == Power::Off,
        "a held machine was left on",
    )?;
    platform.clean_up(&first, Keep::Nothing)?;
    drop_tracker(platform, subject, &second)?;
    promise(
        platform.power(&machine)? == Power::Off,
        "deleting a tracker left the machine on",
    )?;
    promise(platform.trackers(&machine)?.is_empty(), "trackers are left")?;
    platform.start(&machine)
}
