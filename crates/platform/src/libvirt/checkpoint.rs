//! Trackers: libvirt's checkpoints, and whether they can be believed.
//!
//! Knows: how to list, verify, redefine and delete checkpoints. Refuses to know: backups.

use super::Said;
use super::backup_xml::{self, CheckpointXml};
use super::connection::{Connection, Failure};
use super::procedure::{code, flag};
use super::remote::DomainRef;
use crate::contract::{DiskTracker, FullCause, MachineKey, Token, Tracker};
use base::Result;
use base::size::ByteCount;
use std::time::{Duration, Instant};

/// Why a tracker is not believed.
pub struct Doubt {
    /// Which sort of doubt.
    pub cause: FullCause,
    /// For people.
    pub reason: String,
}

impl Doubt {
    fn new(cause: FullCause, reason: impl Into<String>) -> Self {
        Self {
            cause,
            reason: reason.into(),
        }
    }
}

/// The XML of a checkpoint without the whole machine in it.
pub fn document(connection: &Connection, domain: &DomainRef, name: &str) -> Result<String> {
    connection
        .checkpoint_xml(domain, name, flag::CHECKPOINT_XML_NO_DOMAIN)
        .said(domain, "reading a checkpoint")
}

/// How long a checkpoint may be half made.
const HALF_MADE_MAX: Duration = Duration::from_secs(10);

/// The names of all checkpoints of a machine, parents first.
///
/// While another connection's backup begins, libvirt lists its new checkpoint before that has a name, and
/// fails over it; that passes.
pub fn names(connection: &Connection, domain: &DomainRef) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        match connection.list_checkpoints(domain) {
            Err(failure)
                if failure.code() == Some(code::INVALID_ARG) && begun.elapsed() < HALF_MADE_MAX =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            // Other hypervisors behind libvirt have no checkpoints.
            Err(failure) if failure.code() == Some(code::NO_SUPPORT) => return Ok(Vec::new()),
            answer => return answer.said(domain, "listing checkpoints"),
        }
    }
}

/// All checkpoints of a machine, parents first.
pub fn trackers(connection: &Connection, domain: &DomainRef) -> Result<Vec<Tracker>> {
    let names = names(connection, domain)?;
    let mut trackers = Vec::with_capacity(names.len());
    for name in names {
        let xml = match connection.checkpoint_xml(domain, &name, flag::CHECKPOINT_XML_NO_DOMAIN) {
            // Deleted since the list was made.
            Err(failure) if failure.code() == Some(code::NO_CHECKPOINT) => continue,
            answer => answer.said(domain, "reading a checkpoint")?,
        };
        let CheckpointXml { created, disks, .. } = backup_xml::read_checkpoint(&xml)?;
        trackers.push(Tracker {
            token: Token::recognise(&name),
            name,
            created,
            disks,
        });
    }
    Ok(trackers)
}

/// Deletes a checkpoint with its bitmaps; one that is not there is no error. The machine must be on.
pub fn delete(connection: &Connection, domain: &DomainRef, name: &str) -> Result<bool> {
    match connection.delete_checkpoint(domain, name, 0) {
        Ok(()) => Ok(true),
        Err(failure) if failure.code() == Some(code::NO_CHECKPOINT) => Ok(false),
        Err(Failure::Refused(refusal)) if refusal.is_bitmap_missing() => {
            delete_piecemeal(connection, domain, name)
        }
        Err(failure) => Err(failure.into_error(&domain.name, "deleting a checkpoint")),
    }
}

/// Deletes a checkpoint that lacks a bitmap on some disk, which libvirt refuses to delete as a whole (a
/// bitmap is written to its image only when the machine stops, so a crash before that loses it): first
/// the record, then disk by disk a record of that disk alone with whatever bitmap it has.
fn delete_piecemeal(connection: &Connection, domain: &DomainRef, name: &str) -> Result<bool> {
    const DOING: &str = "deleting a broken checkpoint";
    let xml = document(connection, domain, name)?;
    let checkpoint = backup_xml::read_checkpoint(&xml)?;
    let forget = || {
        connection
            .delete_checkpoint(domain, name, flag::CHECKPOINT_DELETE_METADATA_ONLY)
            .said(domain, DOING)
    };
    forget()?;
    for disk in &checkpoint.disks {
        let alone = backup_xml::checkpoint_of_disk(&checkpoint, disk);
        if connection
            .create_checkpoint(domain, &alone, flag::CHECKPOINT_REDEFINE)
            .is_ok()
        {
            match connection.delete_checkpoint(domain, name, 0) {
                Ok(()) => {}
                Err(Failure::Refused(refusal)) if refusal.is_bitmap_missing() => forget()?,
                Err(failure) => return Err(failure.into_error(&domain.name, DOING)),
            }
        }
    }
    Ok(true)
}

/// Whether the changes of a disk since `base` can be believed; the machine must be on.
///
/// # Errors
/// Only where the machine or the host went away: any doubt is an answer, not an error.
pub fn verify(
    connection: &Connection,
    domain: &DomainRef,
    base: &DiskTracker,
    source: &str,
    capacity: ByteCount,
) -> Result<Option<Doubt>> {
    let target = &base.target;
    if base.machine != MachineKey(domain.uuid_text()) {
        let reason = format!(
            "the tracker {} of {target} belongs to another machine",
            base.name
        );
        return Ok(Some(Doubt::new(FullCause::Foreign, reason)));
    }
    if base.capacity != capacity {
        let reason = format!(
            "{target} had {} last time and has {capacity} now",
            base.capacity
        );
        return Ok(Some(Doubt::new(FullCause::Resized, reason)));
    }
    if base.source != source {
        let reason = format!(
            "{target} lay at {} last time and lies at {source} now",
            base.source
        );
        return Ok(Some(Doubt::new(FullCause::Moved, reason)));
    }
    let name = base.name.as_str();
    let listed = names(connection, domain)?;
    let known = listed.iter().any(|other| other == name);
    let xml = if known {
        document(connection, domain, name)?
    } else if base.document.is_empty() {
        let reason = format!("the tracker {name} is gone from libvirt");
        return Ok(Some(Doubt::new(FullCause::TrackerMissing, reason)));
    } else {
        base.document.clone()
    };
    // What is written in the record must be what is asked for, whoever wrote it.
    match backup_xml::read_checkpoint(&xml) {
        Ok(read) if read.name == name && read.disks.iter().any(|disk| disk == target) => {}
        _ => {
            let reason = format!("the tracker {name} does not cover {target}");
            return Ok(Some(Doubt::new(FullCause::TrackerMissing, reason)));
        }
    }
    validate(connection, domain, &xml, known, &listed)
}

/// Lets libvirt compare the record with the bitmaps; this also makes a lost record anew.
fn validate(
    connection: &Connection,
    domain: &DomainRef,
    xml: &str,
    known: bool,
    listed: &[String],
) -> Result<Option<Doubt>> {
    let read = backup_xml::read_checkpoint(xml)?;
    let orphan = read.parent.is_some_and(|parent| !listed.contains(&parent));
    let xml = if orphan {
        backup_xml::without_parent(xml)?
    } else {
        xml.to_owned()
    };
    let flags = flag::CHECKPOINT_REDEFINE | flag::CHECKPOINT_REDEFINE_VALIDATE;
    match connection.create_checkpoint(domain, &xml, flags) {
        Ok(()) => Ok(None),
        Err(Failure::Refused(refusal)) if refusal.code == code::CHECKPOINT_INCONSISTENT => {
            let cause = if known {
                FullCause::TrackerInconsistent
            } else {
                FullCause::TrackerMissing
            };
            Ok(Some(Doubt::new(cause, refusal.message)))
        }
        Err(Failure::Refused(refusal))
            if refusal.code != code::NO_DOMAIN && !refusal.is_inactive() =>
        {
            Ok(Some(Doubt::new(FullCause::TrackerMissing, refusal.message)))
        }
        Err(failure) => Err(failure.into_error(&domain.name, "verifying a checkpoint")),
    }
}
