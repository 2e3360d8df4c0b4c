//! The failures that every platform says in the same way.
//!
//! Knows: their codes, kinds and words. Refuses to know: how a hypervisor words them.

use super::machine::MachineKey;
use super::token::Token;
use base::{Error, Kind};

/// There is no machine with this key.
pub fn machine_unknown(machine: &MachineKey) -> Error {
    Error::new(
        Kind::NotFound,
        "platform.machine.unknown",
        format!("there is no machine {machine}"),
    )
    .hint("it may have been removed or made anew; list the machines of the host")
}

/// The machine went away in the middle of something.
pub fn machine_vanished(machine: &str, doing: &str) -> Error {
    Error::new(
        Kind::Unreachable,
        "platform.machine.vanished",
        format!("the machine {machine} vanished while {doing}"),
    )
    .hint("see whether it was switched off, moved or removed; the next run finds out by itself")
}

/// The machine is off, but what was asked needs it on.
pub fn machine_inactive(machine: &str, doing: &str) -> Error {
    Error::new(
        Kind::Conflict,
        "platform.machine.inactive",
        format!("{doing} needs the machine {machine} to be running"),
    )
    .hint("start the machine first")
}

/// The machine has no such disk.
pub fn disk_unknown(machine: &str, target: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "platform.disk.unknown",
        format!("the machine {machine} has no disk {target}"),
    )
    .hint("list the machine's disks; it may have been detached")
}

/// No agent answers in the guest.
pub fn agent_absent(machine: &str) -> Error {
    Error::new(
        Kind::Unreachable,
        "platform.agent.absent",
        format!("no guest agent answers in the machine {machine}"),
    )
    .hint("install and start qemu-guest-agent in the guest and give the machine an agent channel")
}

/// The agent did not freeze the file systems.
pub fn freeze_failed(machine: &str, why: &str) -> Error {
    Error::new(
        Kind::Io,
        "platform.agent.freeze-failed",
        format!("the guest agent of {machine} could not freeze the file systems: {why}"),
    )
    .hint("see the agent's log in the guest; a file system that is frozen already is one cause")
}

/// The guest may still be frozen.
pub fn thaw_failed(machine: &str, why: &str) -> Error {
    Error::new(
        Kind::Io,
        "platform.agent.thaw-failed",
        format!("the guest {machine} may still be frozen: {why}"),
    )
    .hint("run `virsh domfsthaw` on the host, or restart the machine, at once")
}

/// Another backup or job holds the machine.
pub fn busy(machine: &str, what: &str) -> Error {
    Error::new(
        Kind::Conflict,
        "platform.backup.busy",
        format!("{machine} is busy: {what}"),
    )
    .hint("wait until it is done; the run can be repeated then")
}

/// A backup with this token is not running.
pub fn backup_unknown(token: &Token) -> Error {
    Error::new(
        Kind::NotFound,
        "platform.backup.unknown",
        format!("no backup {token} is running"),
    )
}

/// The tracker does not exist.
pub fn tracker_missing(name: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "platform.tracker.missing",
        format!("there is no tracker {name} on the machine"),
    )
}

/// The tracker's map is broken.
pub fn tracker_inconsistent(name: &str) -> Error {
    Error::new(
        Kind::Conflict,
        "platform.tracker.inconsistent",
        format!("the tracker {name} is broken and cannot tell what changed"),
    )
}

/// A machine of this name or identity exists.
pub fn machine_exists(name: &str) -> Error {
    Error::new(
        Kind::Exists,
        "platform.machine.exists",
        format!("a machine with the name or identity {name} exists already"),
    )
    .hint("restore under another name, or remove that machine first")
}

/// The platform cannot do this at all.
pub fn unsupported(platform: &str, what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        "platform.contract.unsupported",
        format!("{what} is not something that the platform \u{201c}{platform}\u{201d} can do"),
    )
}
