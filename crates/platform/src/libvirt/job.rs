//! The job that runs on a machine.
//!
//! Knows: whose backup runs, that others' are left alone, and how one's own ends for certain, even one
//! that is only beginning. Refuses to know: what is in a backup.

use super::Said;
use super::backup_xml;
use super::connection::{Connection, Failure};
use super::domain::power_of;
use super::procedure::code;
use super::remote::DomainRef;
use crate::contract::{Power, RunningBackup, Token, failure};
use base::{Error, Kind, Result};
use std::time::{Duration, Instant};

/// How often a job that ends is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long an aborted job may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// libvirt would refuse too, but only after half a minute.
pub fn refuse_if_busy(connection: &Connection, domain: &DomainRef) -> Result<()> {
    if let Some(running) = running(connection, domain)? {
        return Err(failure::busy(&domain.name, &running.description));
    }
    match connection.job_kind(domain) {
        Ok(0) => Ok(()),
        Ok(_) => Err(failure::busy(
            &domain.name,
            "libvirt runs another job on it",
        )),
        Err(Failure::Refused(refusal)) if refusal.is_inactive() => Ok(()),
        Err(Failure::Refused(refusal)) if refusal.is_between_jobs() => {
            Err(failure::busy(&domain.name, "a backup of it begins or ends"))
        }
        Err(failure) => Err(failure.into_error(&domain.name, "asking for running jobs")),
    }
}

/// The backup that runs on a machine, whoever began it.
pub fn running(connection: &Connection, domain: &DomainRef) -> Result<Option<RunningBackup>> {
    let Some(xml) = connection
        .backup_xml(domain)
        .said(domain, "asking for a running backup")?
    else {
        return Ok(None);
    };
    let running = backup_xml::read_running(&xml)?;
    Ok(Some(RunningBackup {
        token: running.token,
        description: running.description,
    }))
}

fn is_of(running: Option<&RunningBackup>, token: &Token) -> bool {
    running.is_some_and(|running| running.token.as_ref() == Some(token))
}

/// Aborts the job if it carries the token, which is the only way a pull-mode backup ends.
pub fn stop_job(connection: &Connection, domain: &DomainRef, token: &Token) -> Result<()> {
    if !is_of(running(connection, domain)?.as_ref(), token) {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        match connection.abort_job(domain) {
            Ok(()) => {}
            // It ended by itself just now, or is only beginning; looking again tells.
            Err(Failure::Refused(refusal)) if refusal.code == code::OPERATION_INVALID => {}
            Err(failure) => return Err(failure.into_error(&domain.name, "ending the backup")),
        }
        std::thread::sleep(LOOK_AGAIN);
        if !is_of(running(connection, domain)?.as_ref(), token) {
            break;
        }
        if begun.elapsed() > END_TIMEOUT {
            let what = format!("the backup {token} does not end on {}", domain.name);
            return Err(
                Error::new(Kind::Timeout, "platform.backup.end-timeout", what)
                    .hint("see `virsh domjobinfo` on that host"),
            );
        }
    }
    // A full scratch space stops the guest; with the job gone its writes go through again.
    if power_of(connection, domain)? == Power::Stalled {
        connection
            .resume(domain)
            .said(domain, "letting the machine go on")?;
    }
    Ok(())
}

/// Waits until no backup of this token can be beginning any more, and stops it if it did begin.
pub fn settle(connection: &Connection, domain: &DomainRef, token: &Token) -> Result<()> {
    let begun = Instant::now();
    loop {
        match running(connection, domain)? {
            Some(backup) if backup.token.as_ref() == Some(token) => {
                return stop_job(connection, domain, token);
            }
            Some(_) => return Ok(()),
            None => {}
        }
        match connection.job_kind(domain) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Failure::Refused(refusal)) if refusal.is_inactive() => return Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_between_jobs() => {}
            Err(failure) => {
                return Err(failure.into_error(&domain.name, "asking for running jobs"));
            }
        }
        if begun.elapsed() > END_TIMEOUT {
            return Err(failure::busy(
                &domain.name,
                "libvirt runs another job on it",
            ));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
