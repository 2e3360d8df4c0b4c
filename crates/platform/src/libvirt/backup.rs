//! Pull-mode backups.
//!
//! Knows: the order of a backup: nobody else's runs, the machine is on, trackers are verified, the scratch
//! folder is made, libvirt begins; and the way back. Refuses to know: who reads the exports.

use super::backup_xml::{self, DiskPart, export_bitmap};
use super::checkpoint::{self, Doubt};
use super::connection::{Connection, Failure};
use super::domain::{describe, power_of};
use super::domain_xml::DiskXml;
use super::hold;
use super::job;
use super::procedure::code;
use super::remote::DomainRef;
use super::scratch::Scratch;
use super::{Libvirt, Said};
use crate::contract::{
    Access, Backup, BackupDisk, BackupRequest, Backups, DiskRequest, DiskTracker, FullCause, Keep,
    MachineKey, NbdAddress, Power, RunningBackup, Strain, Token, Trackable, Tracker, Tracking,
    failure,
};
use base::limit::{DISKS_PER_MACHINE_MAX, NAME_LENGTH_MAX};
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::collections::BTreeSet;

impl Backups for Libvirt {
    fn begin_backup(&self, request: &BackupRequest) -> Result<Backup> {
        check_request(request)?;
        let (connection, domain) = self.domain(&request.machine)?;
        job::refuse_if_busy(&connection, &domain)?;
        let begun = self.begin(&connection, &domain, request);
        if begun.is_err() {
            // What cannot be removed now is found by its token later.
            let _ = self.end(&connection, &domain, &request.token, Keep::Nothing);
        }
        begun
    }

    fn end_backup(&self, machine: &MachineKey, token: &Token, keep: Keep) -> Result<()> {
        match self.domain(machine) {
            Ok((connection, domain)) => self.end(&connection, &domain, token, keep),
            // With the machine all went that it had; the folder is ours to remove.
            Err(error) if error.kind() == Kind::NotFound => {
                Scratch::new(&self.options)?.remove(token).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    fn running_backup(&self, machine: &MachineKey) -> Result<Option<RunningBackup>> {
        let (connection, domain) = self.domain(machine)?;
        job::running(&connection, &domain)
    }

    fn strain(&self, machine: &MachineKey, token: &Token) -> Result<Strain> {
        let (connection, domain) = self.domain(machine)?;
        let stalled = power_of(&connection, &domain)? == Power::Stalled;
        let space = Scratch::new(&self.options)?.space(token)?;
        let (used, free) = space.map_or((None, None), |(used, free)| (Some(used), Some(free)));
        Ok(Strain {
            stalled,
            used,
            free,
        })
    }

    fn trackers(&self, machine: &MachineKey) -> Result<Vec<Tracker>> {
        let (connection, domain) = self.domain(machine)?;
        checkpoint::trackers(&connection, &domain)
    }

    fn delete_tracker(&self, machine: &MachineKey, name: &str) -> Result<()> {
        match self.domain(machine) {
            Ok((connection, domain)) => delete_tracker(&connection, &domain, name).map(drop),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn check_request(request: &BackupRequest) -> Result<()> {
    let targets: BTreeSet<&str> = request
        .disks
        .iter()
        .map(|disk| disk.target.as_str())
        .collect();
    if targets.len() != request.disks.len() || request.disks.is_empty() {
        return Err(Error::invalid(
            "platform.backup.request-malformed",
            "a backup needs at least one disk, and each disk once",
        ));
    }
    // The name becomes part of a path on the host.
    let plain = |target: &str| {
        !target.is_empty()
            && target.len() <= NAME_LENGTH_MAX
            && target
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if let Some(strange) = targets.iter().find(|target| !plain(target)) {
        return Err(Error::invalid(
            "platform.backup.request-malformed",
            format!("\u{201c}{strange}\u{201d} is not the target name of a disk"),
        ));
    }
    if request.disks.len() > DISKS_PER_MACHINE_MAX {
        return Err(Error::new(
            Kind::Limit,
            "platform.backup.too-many-disks",
            format!(
                "a backup of {} disks is more than any machine has",
                request.disks.len()
            ),
        ));
    }
    Ok(())
}

/// Deletes a tracker, if need be by holding a machine that is off.
pub(super) fn delete_tracker(
    connection: &Connection,
    domain: &DomainRef,
    name: &str,
) -> Result<bool> {
    let listed = checkpoint::names(connection, domain)?;
    if !listed.iter().any(|other| other == name) {
        return Ok(false);
    }
    if power_of(connection, domain)? != Power::Off {
        return checkpoint::delete(connection, domain, name);
    }
    // libvirt deletes bitmaps only while the machine is on. The mark needs a token; a foreign
    // checkpoint has none, and is left to whoever made it.
    let Some(token) = Token::recognise(name) else {
        return Err(failure::machine_inactive(
            &domain.name,
            "deleting a tracker",
        ));
    };
    hold::hold(connection, domain, &token)?;
    let deleted = checkpoint::delete(connection, domain, name);
    hold::release(connection, domain, &token)?;
    deleted
}

/// One disk of a request with what was found out about it.
struct Part<'a> {
    request: &'a DiskRequest,
    found: &'a DiskXml,
    capacity: ByteCount,
    /// Whether the new checkpoint covers it.
    track: bool,
    tracking: Tracking,
}

impl Part<'_> {
    fn as_xml(&self) -> DiskPart<'_> {
        let since = match &self.tracking {
            Tracking::Changed { since } => Some(since),
            Tracking::Full { .. } => None,
        };
        DiskPart {
            target: &self.request.target,
            since,
            track: self.track,
        }
    }

    fn doubt(&mut self, cause: FullCause, reason: &str) {
        if matches!(self.tracking, Tracking::Changed { .. }) {
            self.tracking = Tracking::Full {
                cause,
                reason: reason.to_owned(),
            };
        }
    }
}

impl Libvirt {
    fn begin(
        &self,
        connection: &Connection,
        domain: &DomainRef,
        request: &BackupRequest,
    ) -> Result<Backup> {
        let mut notes = Vec::new();
        if power_of(connection, domain)? == Power::Off {
            hold::hold(connection, domain, &request.token)?;
            notes.push(format!(
                "{} is off; it is held paused for the backup",
                domain.name
            ));
        }
        let described = describe(connection, domain)?;
        let mut parts = examine(connection, domain, request, &described.disks)?;
        discard_broken(connection, domain, &parts, &mut notes);
        let scratch = Scratch::new(&self.options)?;
        let socket = scratch.socket(&request.token)?;
        self.begin_job(connection, domain, request, &mut parts, &mut notes)?;
        let disks = collect(
            connection,
            domain,
            request,
            parts,
            &socket.display().to_string(),
        )?;
        let (machine, token) = (request.machine.clone(), request.token.clone());
        Ok(Backup {
            machine,
            token,
            disks,
            notes,
        })
    }

    /// Begins the job; where libvirt finds a fault in the trackers after all, without them.
    fn begin_job(
        &self,
        connection: &Connection,
        domain: &DomainRef,
        request: &BackupRequest,
        parts: &mut [Part<'_>],
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let scratch = Scratch::new(&self.options)?;
        let doing = "beginning the backup";
        let begin = |parts: &[Part<'_>]| -> Result<(), Failure> {
            scratch.make(&request.token, connection)?;
            let disks: Vec<_> = parts.iter().map(Part::as_xml).collect();
            let (folder, socket) = (
                scratch.folder(&request.token),
                scratch.socket(&request.token)?,
            );
            connection.begin_backup_job(
                domain,
                &backup_xml::backup(&disks, &folder, &socket),
                backup_xml::checkpoint(&disks, &request.token).as_deref(),
            )
        };
        let failure = match begin(parts) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let Failure::Refused(refusal) = failure else {
            return Err(failure.into_error(&domain.name, doing));
        };
        if refusal.is_busy() || refusal.is_inactive() || refusal.code == code::NO_DOMAIN {
            return Err(refusal.into_error(&domain.name, doing));
        }
        let incremental = parts.iter().any(|part| part.as_xml().since.is_some());
        let refusal = if incremental {
            for part in &mut *parts {
                part.doubt(FullCause::TrackerInconsistent, &refusal.message);
            }
            match begin(parts) {
                Ok(()) => return Ok(()),
                Err(Failure::Refused(refusal)) => refusal,
                Err(failure) => return Err(failure.into_error(&domain.name, doing)),
            }
        } else {
            refusal
        };
        if !parts.iter().any(|part| part.track) {
            return Err(refusal.into_error(&domain.name, doing));
        }
        for part in &mut *parts {
            part.track = false;
        }
        notes.push(format!("no tracker could be started: {}", refusal.message));
        begin(parts).said(domain, doing)
    }

    /// Ends what carries the token on one machine.
    pub(super) fn end(
        &self,
        connection: &Connection,
        domain: &DomainRef,
        token: &Token,
        keep: Keep,
    ) -> Result<()> {
        let scratch = Scratch::new(&self.options)?;
        job::stop_job(connection, domain, token)?;
        if keep == Keep::Nothing && scratch.remove(token)? {
            // A process that was killed may have asked for a backup that is only now beginning. Without
            // the folder none can begin any more; what began before is seen by now, or a job runs.
            job::settle(connection, domain, token)?;
        }
        let deleted = match keep {
            Keep::Tracker => Ok(()),
            Keep::Nothing => delete_tracker(connection, domain, token.as_str()).map(drop),
        };
        // Everything is tried, whatever failed before; the first failure is reported.
        let released = hold::release(connection, domain, token);
        let removed = scratch.remove(token);
        deleted.and(released.map(drop)).and(removed.map(drop))
    }
}

/// Looks at each requested disk and at the tracker it builds on.
fn examine<'a>(
    connection: &Connection,
    domain: &DomainRef,
    request: &'a BackupRequest,
    found: &'a [DiskXml],
) -> Result<Vec<Part<'a>>> {
    let mut parts = Vec::with_capacity(request.disks.len());
    for disk in &request.disks {
        let found = found
            .iter()
            .find(|found| found.target == disk.target)
            .ok_or_else(|| failure::disk_unknown(&domain.name, &disk.target))?;
        let info = connection
            .block_info(domain, &disk.target)
            .said(domain, "examining the disk")?;
        let capacity = ByteCount(info.capacity);
        let tracking = match (&found.trackable, &disk.base) {
            (Trackable::No { reason }, _) => Tracking::Full {
                cause: FullCause::NotTrackable,
                reason: reason.clone(),
            },
            (Trackable::Yes, None) => Tracking::Full {
                cause: FullCause::NoBase,
                reason: "there is no earlier point to build on".to_owned(),
            },
            (Trackable::Yes, Some(base)) => {
                match believe(connection, domain, disk, base, found, capacity)? {
                    None => Tracking::Changed {
                        since: base.name.clone(),
                    },
                    Some(Doubt { cause, reason }) => Tracking::Full { cause, reason },
                }
            }
        };
        let track = request.track && found.trackable == Trackable::Yes;
        parts.push(Part {
            request: disk,
            found,
            capacity,
            track,
            tracking,
        });
    }
    Ok(parts)
}

fn believe(
    connection: &Connection,
    domain: &DomainRef,
    disk: &DiskRequest,
    base: &DiskTracker,
    found: &DiskXml,
    capacity: ByteCount,
) -> Result<Option<Doubt>> {
    if base.target != disk.target {
        let reason = format!(
            "the tracker handed in is of {}, not of {}",
            base.target, disk.target
        );
        return Ok(Some(Doubt {
            cause: FullCause::Foreign,
            reason,
        }));
    }
    checkpoint::verify(connection, domain, base, &found.source, capacity)
}

/// Deletes trackers that were handed in and found broken: they would break those built on them.
fn discard_broken(
    connection: &Connection,
    domain: &DomainRef,
    parts: &[Part<'_>],
    notes: &mut Vec<String>,
) {
    let broken: BTreeSet<&str> = parts
        .iter()
        .filter(|part| {
            matches!(
                part.tracking,
                Tracking::Full {
                    cause: FullCause::TrackerInconsistent,
                    ..
                }
            )
        })
        .filter_map(|part| part.request.base.as_ref().map(|base| base.name.as_str()))
        .collect();
    for name in broken {
        if let Err(error) = checkpoint::delete(connection, domain, name) {
            notes.push(format!(
                "the broken tracker {name} could not be deleted: {error}"
            ));
        }
    }
}

/// What the run gets.
fn collect(
    connection: &Connection,
    domain: &DomainRef,
    request: &BackupRequest,
    parts: Vec<Part<'_>>,
    socket: &str,
) -> Result<Vec<BackupDisk>> {
    let document = if parts.iter().any(|part| part.track) {
        checkpoint::document(connection, domain, request.token.as_str())?
    } else {
        String::new()
    };
    Ok(parts
        .into_iter()
        .map(|part| {
            let target = part.request.target.clone();
            let dirty_context = matches!(part.tracking, Tracking::Changed { .. })
                .then(|| format!("qemu:dirty-bitmap:{}", export_bitmap(&target)));
            let tracker = part.track.then(|| DiskTracker {
                machine: request.machine.clone(),
                name: request.token.clone(),
                target: target.clone(),
                source: part.found.source.clone(),
                capacity: part.capacity,
                document: document.clone(),
            });
            let address = NbdAddress::Unix {
                path: socket.to_owned(),
            };
            let access = Access::Nbd {
                address,
                export: target.clone(),
                dirty_context,
            };
            BackupDisk {
                target,
                capacity: part.capacity,
                access,
                tracking: part.tracking,
                tracker,
            }
        })
        .collect())
}
