//! Inventory and power.
//!
//! Knows: how libvirt's machines, states and definitions look in the words of the contract.
//! Refuses to know: backups.

use super::connection::Connection;
use super::domain_xml::{self, DiskXml, DomainXml};
use super::event::Event;
use super::procedure::{code, flag};
use super::remote::{DomainRef, DomainState};
use super::{Libvirt, Said};
use crate::contract::{
    Content, Control, Definition, DefinitionFile, Host, Inventory, Machine, MachineDisk,
    MachineKey, Power, Trackable, failure,
};
use base::cancel::Cancel;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The file name of a machine's XML in a definition.
pub const DOMAIN_FILE: &str = "domain.xml";
/// The file name of a machine's NVRAM in a definition.
pub const NVRAM_FILE: &str = "nvram.fd";
/// The file name of the state of a machine's emulated TPM in a definition.
pub const TPM_FILE: &str = "tpm2-00.permall";

/// How often a waiter looks by itself, whatever events say.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Waits for something to happen on the host, and notices when the connection was made anew.
pub(super) struct Watch(Receiver<Event>);

impl Watch {
    /// Listens from now on: make it before looking, so that nothing is missed in between.
    pub(super) fn new(connection: &Connection) -> Self {
        Self(connection.listen())
    }

    /// Returns when it is worth looking again: after an event, after a moment, or after `rest`.
    pub(super) fn wait(&mut self, rest: Duration, libvirt: &Libvirt) {
        let rest = rest.min(LOOK_AGAIN);
        if self.0.recv_timeout(rest) == Err(RecvTimeoutError::Disconnected) {
            std::thread::sleep(rest);
            // Where there is no new connection either, the next look says so.
            if let Ok(connection) = libvirt.connection() {
                self.0 = connection.listen();
            }
        }
    }
}

impl Inventory for Libvirt {
    fn host(&self) -> Result<Host> {
        let connection = self.connection()?;
        let said = |failure: super::Failure| failure.into_error("the host", "asking for its name");
        let name = connection.hostname().map_err(said)?;
        let (library, qemu) = connection.versions().map_err(said)?;
        let version = format!("libvirt {}, QEMU {}", dotted(library), dotted(qemu));
        Ok(Host {
            name,
            platform: "libvirt".to_owned(),
            version,
        })
    }

    fn machines(&self) -> Result<Vec<Machine>> {
        let connection = self.connection()?;
        let domains = connection
            .list_domains()
            .map_err(|failure| failure.into_error("the host", "listing machines"))?;
        let mut machines = Vec::with_capacity(domains.len());
        for domain in domains {
            match look(&connection, &domain) {
                Ok(machine) => machines.push(machine),
                // It was removed since the list was made.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        machines.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
        Ok(machines)
    }

    fn machine(&self, machine: &MachineKey) -> Result<Machine> {
        let (connection, domain) = self.domain(machine)?;
        look(&connection, &domain)
    }

    fn definition(&self, machine: &MachineKey) -> Result<Definition> {
        let (connection, domain) = self.domain(machine)?;
        define(&connection, &domain, self.options.address.remote.is_none())
    }
}

/// `major * 1,000,000 + minor * 1,000 + release` as people write it.
fn dotted(version: u64) -> String {
    format!(
        "{}.{}.{}",
        version / 1_000_000,
        version / 1000 % 1000,
        version % 1000
    )
}

/// A machine's XML as it runs, or as it will start.
pub(super) fn describe(connection: &Connection, domain: &DomainRef) -> Result<DomainXml> {
    let xml = connection
        .domain_xml(domain, 0)
        .said(domain, "reading the machine's definition")?;
    domain_xml::read(&xml)
}

fn look(connection: &Connection, domain: &DomainRef) -> Result<Machine> {
    let described = describe(connection, domain)?;
    let power = power_of(connection, domain)?;
    let disks = described
        .disks
        .iter()
        .map(|disk| look_at_disk(connection, domain, disk))
        .collect();
    Ok(Machine {
        key: MachineKey(domain.uuid_text()),
        name: domain.name.clone(),
        power,
        agent: described.agent,
        disks,
    })
}

/// One disk. A disk whose file is missing must not hide the machine: its size is then 0, it cannot be
/// tracked, and the reason says what libvirt said.
fn look_at_disk(connection: &Connection, domain: &DomainRef, disk: &DiskXml) -> MachineDisk {
    let (capacity, allocated, trackable) = match connection.block_info(domain, &disk.target) {
        Ok(info) => (
            info.capacity,
            Some(ByteCount(info.allocation)),
            disk.trackable.clone(),
        ),
        Err(failure) => {
            let error = failure.into_error(&domain.name, "examining the disk");
            (
                0,
                None,
                Trackable::No {
                    reason: error.message().to_owned(),
                },
            )
        }
    };
    MachineDisk {
        target: disk.target.clone(),
        source: disk.source.clone(),
        path: disk.path.clone(),
        format: disk.format.clone(),
        capacity: ByteCount(capacity),
        allocated,
        trackable,
    }
}

/// All that defines a machine besides its disks.
fn define(connection: &Connection, domain: &DomainRef, local: bool) -> Result<Definition> {
    let mut warnings = Vec::new();
    let flags = flag::XML_INACTIVE | flag::XML_MIGRATABLE;
    let xml = match connection.domain_xml(domain, flags | flag::XML_SECURE) {
        Ok(xml) => xml,
        Err(failure) if failure.code() == Some(code::OPERATION_DENIED) => {
            warnings.push("libvirt does not give away passwords in the definition".to_owned());
            connection
                .domain_xml(domain, flags)
                .said(domain, "reading the definition")?
        }
        Err(failure) => return Err(failure.into_error(&domain.name, "reading the definition")),
    };
    let xml = super::rewrite::without_mark(&xml)?;
    let described = domain_xml::read(&xml)?;
    let mut files = vec![DefinitionFile {
        name: DOMAIN_FILE.to_owned(),
        content: Content::Bytes(xml.into_bytes()),
    }];
    for (name, path) in host_files(domain, described) {
        // A machine that never ran has no NVRAM or TPM state yet. On another host the mover finds out.
        if local && !Path::new(&path).exists() {
            warnings.push(format!("{path} ({name}) does not exist and is not saved"));
            continue;
        }
        files.push(DefinitionFile {
            name: name.to_owned(),
            content: Content::HostPath(path),
        });
    }
    Ok(Definition {
        platform: "libvirt".to_owned(),
        files,
        warnings,
    })
}

/// The files on the host that belong to a machine: the name each gets in a point, and its path.
fn host_files(domain: &DomainRef, described: DomainXml) -> Vec<(&'static str, String)> {
    let mut files = described.boot_files;
    files.extend(described.nvram.map(|path| (NVRAM_FILE, path)));
    if described.tpm {
        let uuid = domain.uuid_text();
        let path = format!("/var/lib/libvirt/swtpm/{uuid}/tpm2/tpm2-00.permall");
        files.push((TPM_FILE, path));
    }
    files
}

/// libvirt's state and reason in the words of the contract.
pub(super) const fn power_from(state: DomainState) -> Power {
    match (state.state, state.reason) {
        // Paused because a disk failed.
        (3, 5) => Power::Stalled,
        // Paused, or asleep as the guest wished, or crashed and kept for inspection.
        (3 | 7, _) => Power::Paused,
        (5 | 6, _) => Power::Off,
        // Running, blocked, shutting down, or no state at all (which QEMU never reports).
        _ => Power::Running,
    }
}

pub(super) fn power_of(connection: &Connection, domain: &DomainRef) -> Result<Power> {
    connection
        .domain_state(domain)
        .map(power_from)
        .said(domain, "asking for its state")
}

impl Control for Libvirt {
    fn power(&self, machine: &MachineKey) -> Result<Power> {
        let (connection, domain) = self.domain(machine)?;
        power_of(&connection, &domain)
    }

    fn start(&self, machine: &MachineKey) -> Result<()> {
        let (connection, domain) = self.domain(machine)?;
        match power_of(&connection, &domain)? {
            Power::Running => Ok(()),
            Power::Paused | Power::Stalled => {
                connection.resume(&domain).said(&domain, "letting it go on")
            }
            Power::Off => connection
                .create(&domain, 0)
                .said(&domain, "starting the machine"),
        }
    }

    fn start_paused(&self, machine: &MachineKey) -> Result<()> {
        let (connection, domain) = self.domain(machine)?;
        if power_of(&connection, &domain)? != Power::Off {
            return Err(failure::busy(&domain.name, "it is switched on already"));
        }
        connection
            .create(&domain, flag::START_PAUSED)
            .said(&domain, "starting the machine paused")
    }

    fn stop(&self, machine: &MachineKey, timeout: Duration, cancel: &Cancel) -> Result<()> {
        let (connection, domain) = self.domain(machine)?;
        let mut watch = Watch::new(&connection);
        if power_of(&connection, &domain)? == Power::Off {
            return Ok(());
        }
        connection
            .shutdown(&domain)
            .said(&domain, "asking the guest to shut down")?;
        let begun = Instant::now();
        loop {
            match self.power(machine) {
                Ok(Power::Off) => return Ok(()),
                // A transient machine is gone when it stops.
                Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            cancel.check()?;
            let rest = timeout.saturating_sub(begun.elapsed());
            if rest.is_zero() {
                let what = format!(
                    "the guest {} did not shut down within {} s",
                    domain.name,
                    timeout.as_secs()
                );
                return Err(
                    Error::new(Kind::Timeout, "platform.machine.stop-timeout", what)
                        .hint("shut it down from inside, or switch it off hard"),
                );
            }
            watch.wait(rest, self);
        }
    }

    fn destroy(&self, machine: &MachineKey) -> Result<()> {
        let (connection, domain) = self.domain(machine)?;
        destroy(&connection, &domain)
    }
}

/// Pulls the plug; off already is no error.
pub(super) fn destroy(connection: &Connection, domain: &DomainRef) -> Result<()> {
    match connection.destroy_domain(domain) {
        Err(super::Failure::Refused(refusal)) if refusal.is_inactive() => Ok(()),
        answer => answer.said(domain, "switching the machine off"),
    }
}
