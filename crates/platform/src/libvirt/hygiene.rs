//! What carries our tokens on a host, and removing it.
//!
//! Knows: where tokens are found: running backups, checkpoints, marks on held machines, scratch folders.
//! Refuses to know: which runs are still alive; whoever calls knows.

use super::connection::Connection;
use super::remote::DomainRef;
use super::scratch::Scratch;
use super::{Libvirt, checkpoint, hold, job};
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
        let scratch = Scratch::new(&self.options)?;
        if keep == Keep::Nothing && scratch.remove(token)? {
            // Which machine a folder without a backup belonged to is not known: see on all that none
            // begins one, and then look again.
            self.settle_all(token)?;
            found.extend(self.resources_of(token)?);
            found.sort();
            found.dedup();
        }
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
        scratch.remove(token)?;
        Ok(found)
    }
}

impl Libvirt {
    fn settle_all(&self, token: &Token) -> Result<()> {
        let connection = self.connection()?;
        let domains = connection
            .list_domains()
            .map_err(|failure| failure.into_error("the host", "listing machines"))?;
        for domain in domains.iter().filter(|domain| domain.id >= 0) {
            match job::settle(&connection, domain, token) {
                Err(error) if error.kind() == Kind::NotFound => {}
                settled => settled?,
            }
        }
        Ok(())
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
    if let Some(token) = job::running(connection, domain)?.and_then(|running| running.token) {
        push(token, ResourceKind::Backup, domain.name.clone());
    }
    if let Some(token) = hold::holder(connection, domain)? {
        push(token, ResourceKind::HeldMachine, domain.name.clone());
    }
    for name in checkpoint::names(connection, domain)? {
        if let Some(token) = Token::recognise(&name) {
            push(token, ResourceKind::Tracker, name);
        }
    }
    Ok(found)
}
