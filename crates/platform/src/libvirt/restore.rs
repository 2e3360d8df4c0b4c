//! Machines out of saved definitions.
//!
//! Knows: that a name or identity that is taken is not overwritten, and how to forget a machine.
//! Refuses to know: how XML is changed; that is `rewrite`.

use super::domain::{DOMAIN_FILE, power_of};
use super::procedure::flag;
use super::rewrite::rewrite;
use super::{Libvirt, Said, domain_xml};
use crate::contract::{
    Definition, Inventory, MachineKey, Power, ProvisionOptions, Provisioned, Provisioning, failure,
};
use base::{Error, Kind, Result};

impl Provisioning for Libvirt {
    fn provision(
        &self,
        definition: &Definition,
        options: &ProvisionOptions,
    ) -> Result<Provisioned> {
        let saved = definition
            .bytes_of(DOMAIN_FILE)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .ok_or_else(|| {
                Error::invalid(
                    "platform.provision.definition-missing",
                    format!("the definition has no readable file {DOMAIN_FILE}"),
                )
                .hint("the point was not made from a machine of libvirt; restore its disks only")
            })?;
        let rewritten = rewrite(saved, options)?;
        let described = domain_xml::read(&rewritten.xml)?;
        let connection = self.connection()?;
        let on_host =
            |failure: super::Failure| failure.into_error(&described.name, "defining the machine");
        // Defining over a machine of the same name and UUID would silently replace it.
        let taken = connection
            .list_domains()
            .map_err(on_host)?
            .into_iter()
            .any(|domain| {
                domain.name == described.name
                    || domain.uuid_text().eq_ignore_ascii_case(&described.uuid)
            });
        if taken {
            return Err(failure::machine_exists(&described.name));
        }
        let domain = connection.define(&rewritten.xml, 0).map_err(on_host)?;
        let machine = self.machine(&MachineKey(domain.uuid_text()))?;
        Ok(Provisioned {
            machine,
            warnings: rewritten.warnings,
        })
    }

    fn undefine(&self, machine: &MachineKey) -> Result<()> {
        let (connection, domain) = match self.domain(machine) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            found => found?,
        };
        if power_of(&connection, &domain)? != Power::Off {
            return Err(failure::busy(&domain.name, "it is switched on")
                .hint("switch the machine off before it is removed"));
        }
        let flags = flag::UNDEFINE_MANAGED_SAVE
            | flag::UNDEFINE_SNAPSHOTS_METADATA
            | flag::UNDEFINE_CHECKPOINTS_METADATA
            | flag::UNDEFINE_NVRAM;
        connection
            .undefine_domain(&domain, flags)
            .said(&domain, "removing the machine")
    }
}
