//! The suite that every platform passes.
//!
//! Knows: what the contract promises, as checks that can be run on any implementation with one machine
//! to try them on. Refuses to know: which implementation it is.
//!
//! A check that a platform cannot undergo (images have no trackers) is left out because of what the
//! [`Subject`] says it can do, and [`run`] gives the names of those that were made, so that a test
//! can insist on them.

mod backups;
mod machines;

use crate::contract::{BackupDisk, MachineKey, Platform};
use base::size::{ByteOffset, ByteRange};
use base::{Error, Kind, Result};

/// A machine to try the contract on, and what only a test can do with it.
pub trait Subject {
    /// Its key. The suite may back it up, switch it and track it; it leaves it as it was.
    fn machine(&self) -> MachineKey;

    /// A disk of at least 4 MiB, trackable where the platform tracks any.
    fn target(&self) -> String;

    /// What the platform and this machine can do.
    fn abilities(&self) -> Abilities;

    /// Writes to the disk as the guest would. `offset` and length are multiples of 64 KiB.
    fn write(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()>;

    /// Reads from an open view of the disk.
    fn read(&self, disk: &BackupDisk, range: ByteRange) -> Result<Vec<u8>>;

    /// The changed ranges that an open view shows.
    fn changed(&self, disk: &BackupDisk) -> Result<Vec<ByteRange>>;

    /// A path on the host where a restored disk may lie, made ready for the platform to look at.
    fn place(&self, name: &str) -> Result<String>;
}

/// What a platform can do with the subject.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Views are frozen in time while the machine writes on.
    pub snapshots: bool,
    /// Changes are tracked.
    pub tracking: bool,
    /// The machine can be switched on and off.
    pub power: bool,
    /// An agent answers, and freezes.
    pub agent: bool,
}

/// One check.
type Check = fn(&dyn Platform, &dyn Subject) -> Result<()>;

/// Makes all checks that the subject can undergo, and names them.
///
/// # Errors
/// The first promise that is not kept: kind `Bug`, code `platform.conformance.broken`; or whatever the
/// platform said where it should have said nothing.
pub fn run(platform: &dyn Platform, subject: &dyn Subject) -> Result<Vec<&'static str>> {
    let can = subject.abilities();
    let checks: [(&'static str, bool, Check); 14] = [
        ("inventory", true, machines::inventory),
        ("unknown machine", true, machines::unknown_machine),
        ("unknown disk", true, backups::unknown_disk),
        ("full backup", true, backups::full),
        ("a view stands still", can.snapshots, backups::stands_still),
        ("incremental backup", can.tracking, backups::incremental),
        ("two trackers", can.tracking, backups::two_trackers),
        ("doubts", can.tracking, backups::doubts),
        ("clean-up", true, backups::clean_up),
        (
            "clean-up keeps others",
            can.tracking,
            backups::clean_up_keeps_others,
        ),
        ("quiesced backup", true, backups::quiesced),
        ("power", can.power, machines::power),
        (
            "backup of a machine that is off",
            can.power && can.tracking,
            backups::switched_off,
        ),
        ("provision", true, machines::provision),
    ];
    let mut made = Vec::new();
    for (name, possible, check) in checks {
        if possible {
            check(platform, subject)
                .map_err(|error| error.context(format!("the check \u{201c}{name}\u{201d}")))?;
            nothing_left(platform)?;
            made.push(name);
        }
    }
    Ok(made)
}

/// An error unless the promise is kept.
fn promise(kept: bool, what: impl Into<String>) -> Result<()> {
    if kept {
        Ok(())
    } else {
        Err(Error::new(
            Kind::Bug,
            "platform.conformance.broken",
            what.into(),
        ))
    }
}

/// An error unless the answer is an error with this code.
fn refused<T>(answer: Result<T>, code: &str, what: &str) -> Result<()> {
    match answer {
        Err(error) if error.code() == code => Ok(()),
        Err(error) => promise(
            false,
            format!("{what} is refused with {error:?}, not {code}"),
        ),
        Ok(_) => promise(false, format!("{what} is not refused")),
    }
}

/// Every check cleans up after itself, so that the next can tell its own from it.
fn nothing_left(platform: &dyn Platform) -> Result<()> {
    let left = platform.resources()?;
    promise(
        left.is_empty(),
        format!("the platform is left with {left:?}"),
    )
}
