//! Machines that are off, held paused for the time of a backup.
//!
//! Knows: how to start a machine so that it executes nothing, how to remember on the machine itself that
//! it was off, and how to undo it. Refuses to know: backups.
//!
//! The mark is set in the machine's persistent metadata before it is started, so that there is no moment
//! at which a crash leaves a paused machine that nobody knows to switch off.

use super::Said;
use super::connection::Connection;
use super::domain::{destroy, power_of};
use super::procedure::{code, flag};
use super::remote::DomainRef;
use super::xml::parse;
use crate::contract::{Power, Token};
use base::{Error, Kind, Result};

/// The name space of the mark.
pub const NAME_SPACE: &str = "urn:backstay:held:1";
const PREFIX: &str = "backstay";

/// Who holds a machine.
pub fn holder(connection: &Connection, domain: &DomainRef) -> Result<Option<Token>> {
    let element = match connection.metadata(domain, NAME_SPACE, flag::AFFECT_CONFIG) {
        // A transient machine has no persistent metadata.
        Err(failure) if failure.code() == Some(code::OPERATION_INVALID) => None,
        answer => answer.said(domain, "reading its metadata")?,
    };
    let Some(element) = element else {
        return Ok(None);
    };
    let document = parse("a mark in the machine's metadata", &element)?;
    Ok(document
        .root_element()
        .attribute("token")
        .and_then(Token::recognise))
}

/// Starts a machine that is off, paused and marked.
pub fn hold(connection: &Connection, domain: &DomainRef, token: &Token) -> Result<()> {
    if connection
        .has_saved_memory(domain)
        .said(domain, "looking for saved memory")?
    {
        return Err(Error::new(
            Kind::Conflict,
            "platform.machine.saved",
            format!(
                "{} is off with its memory saved, which a start would use up",
                domain.name
            ),
        )
        .hint("start the machine, or give up its memory with `virsh managedsave-remove`"));
    }
    let mark = format!("<held token='{token}'/>");
    connection
        .set_metadata(domain, Some(&mark), PREFIX, NAME_SPACE, flag::AFFECT_CONFIG)
        .said(domain, "marking the machine")?;
    let started = connection.create(domain, flag::START_PAUSED);
    if started.is_err() {
        // Without a started machine the mark means nothing; release forgives it.
        let _ = unmark(connection, domain, flag::AFFECT_CONFIG);
    }
    started.said(domain, "starting the machine paused")
}

/// Switches off a machine that this token holds, and forgets the mark. A machine that somebody let go on
/// in the meantime stays on. Says whether there was anything to do.
pub fn release(connection: &Connection, domain: &DomainRef, token: &Token) -> Result<bool> {
    if holder(connection, domain)?.as_ref() != Some(token) {
        return Ok(false);
    }
    if power_of(connection, domain)? == Power::Running {
        // Somebody let it go on. The running copy carries the mark too; it is only cosmetic there.
        let _ = unmark(connection, domain, flag::AFFECT_LIVE);
        unmark(connection, domain, flag::AFFECT_CONFIG)?;
        return Ok(true);
    }
    // Off before the mark goes, so that a crash in between leaves a mark and not a paused machine; and
    // once more after it: the change of the definition waited for a start that was still under way.
    destroy(connection, domain)?;
    unmark(connection, domain, flag::AFFECT_CONFIG)?;
    if power_of(connection, domain)? == Power::Paused {
        destroy(connection, domain)?;
    }
    Ok(true)
}

fn unmark(connection: &Connection, domain: &DomainRef, flags: u32) -> Result<()> {
    match connection.set_metadata(domain, None, PREFIX, NAME_SPACE, flags) {
        Err(failure) if failure.code() == Some(code::NO_DOMAIN_METADATA) => Ok(()),
        answer => answer.said(domain, "removing the mark"),
    }
}
