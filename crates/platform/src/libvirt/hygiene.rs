//! What carries our tokens on a host, and removing it.
//!
//! Knows: where tokens are found: running backups, checkpoints, marks on held machines, scratch folders.
//! Refuses to know: which runs are still alive; whoever calls knows.

use super::connection::Connection;
use super::procedure::code;
use super::remote::DomainRef;
use super::scratch::Scratch;
use super::{Failure, Libvirt, Said, backup, hold};
use crate::contract::{Hygiene, Keep, MachineKey, Resource, ResourceKind, Token};
use base::{Kind, Result};

impl Hygiene for Libvirt {
    fn resources(&self) -> Result<Vec<Resource>> {
        let connection = self.connection()?;
        let domains = connection
            .list_domains()
            .map_err(|failure| failure.into_error("the host", "listing machines"))?;
        let mut resources = Vec::new();
        for domain in domains {
            match resources_on(&connection, &domain) {
                Ok(found) => resources.extend(found),
                // It was removed since the list was made.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let scratch = Scratch::new(&self.options)?;
        for token in scratch.list()? {
            let name = scratch.folder(&token).display().to_string();
            resources.push(Resource {
                token,
                machine: None,
                kind: ResourceKind::Scratch,
                name,
            });
        }
        resources.sort();
        Ok(resources)
    }

    fn clean_up(&self, token: &Token, keep: Keep) -> Result<Vec<Resource>> {
        let mut found = self.resources_of(token)?;
        if keep == Keep::Tracker {
            found.retain(|resource| resource.kind != ResourceKind::Tracker);
        }
        let mut machines: Vec<&MachineKey> = found
            .iter()
            .filter_map(|resource| resource.machine.as_ref())
            .collect();
        machines.dedup();
        for machine in machines {
            match self.domain(machine) {
                Ok((connection, domain)) => self.end(&connection, &domain, token, keep)?,
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Scratch::new(&self.options)?.remove(token)?;
        Ok(found)
    }
}

/// Everything on one machine that carries any token.
fn resources_on(connection: &Connection, domain: &DomainRef) -> Result<Vec<Resource>> {
    let mut found = Vec::new();
    let mut push = |token: Token, kind, name: String| {
        let machine = Some(MachineKey(domain.uuid_text()));
        found.push(Resource {
            token,
            machine,
            kind,
            name,
        });
    };
    if let Some(token) = backup::running(connection, domain)?.and_then(|running| running.token) {
        push(token, ResourceKind::Backup, domain.name.clone());
    }
    if let Some(token) = hold::holder(connection, domain)? {
        push(token, ResourceKind::HeldMachine, domain.name.clone());
    }
    let names = match connection.list_checkpoints(domain) {
        // Other hypervisors behind libvirt have no checkpoints.
        Err(Failure::Refused(refusal)) if refusal.code == code::NO_SUPPORT => Vec::new(),
        answer => answer.said(domain, "listing checkpoints")?,
    };
    for name in names {
        if let Some(token) = Token::recognise(&name) {
            push(token, ResourceKind::Tracker, name);
        }
    }
    Ok(found)
}
