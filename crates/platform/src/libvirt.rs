//! KVM and QEMU through libvirt.
//!
//! Knows: libvirt's own remote protocol over a Unix socket or SSH, its XML, its checkpoints and pull-mode
//! backups, and what each of its refusals means. `docs/protocols/libvirt.md` describes it.
//! Refuses to know: NBD (the mover reads the exports) and image formats.
//!
//! From the wire upwards: `xdr`, `frame`, `connection`, `remote`; beside them `address`, `transport`,
//! `event`, `refusal`, `procedure`. Over them one room for each part of the contract: `domain`
//! (inventory, power), `agent`, `backup` with `job`, `checkpoint` and `scratch`, `hold` (machines that are
//! off), `restore` with `rewrite`, and `hygiene`.

pub mod address;
mod agent;
mod backup;
mod backup_xml;
mod checkpoint;
pub mod connection;
mod domain;
pub mod domain_xml;
pub mod event;
pub mod frame;
mod hold;
mod hygiene;
mod job;
pub mod procedure;
mod refusal;
pub mod remote;
mod restore;
pub mod rewrite;
mod scratch;
pub mod transport;
pub mod xdr;
pub mod xml;

pub use address::Address;
pub use refusal::Refusal;

use crate::contract::{MachineKey, failure};
use base::Result;
use connection::{Connection, Failure};
use remote::DomainRef;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Where scratch files and sockets go unless somebody says otherwise. QEMU's user must be able to
/// write there, and a host's security profiles usually let it only below this folder.
pub const SCRATCH_DEFAULT: &str = "/var/lib/libvirt/images/backstay";

/// What must be known about a libvirt to use it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Where the daemon is.
    pub address: Address,
    /// The folder on its host for scratch files and sockets; each run makes its own folder in it.
    pub scratch: PathBuf,
}

impl Options {
    /// The daemon at `address`, with the folder for scratch files that it names, or the usual one.
    pub fn new(address: Address) -> Self {
        let scratch = address
            .scratch
            .clone()
            .unwrap_or_else(|| PathBuf::from(SCRATCH_DEFAULT));
        Self { address, scratch }
    }
}

/// The machines of one libvirt.
pub struct Libvirt {
    options: Options,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Libvirt {
    /// Connects, and fails at once where that is not possible. A connection that is lost later is made
    /// anew by the next call.
    pub fn connect(options: Options) -> Result<Self> {
        let libvirt = Self {
            options,
            connection: Mutex::new(None),
        };
        libvirt.connection()?;
        Ok(libvirt)
    }

    /// The living connection, made anew where the last one ended.
    fn connection(&self) -> Result<Arc<Connection>> {
        let mut held = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = held.as_ref().filter(|connection| !connection.is_ended()) {
            return Ok(Arc::clone(connection));
        }
        *held = None;
        let connection = Connection::new(transport::open(&self.options.address)?)?;
        connection.open(self.options.address.driver_uri())?;
        connection
            .register_events()
            .map_err(|failure| failure.into_error("the host", "asking for events"))?;
        Ok(Arc::clone(held.insert(Arc::new(connection))))
    }

    /// The connection and the machine with this key.
    fn domain(&self, machine: &MachineKey) -> Result<(Arc<Connection>, DomainRef)> {
        let uuid =
            uuid::Uuid::parse_str(&machine.0).map_err(|_| failure::machine_unknown(machine))?;
        let connection = self.connection()?;
        let domain = connection
            .lookup_domain(uuid.as_bytes())
            .map_err(|failure| failure.into_error(&machine.0, "finding the machine"))?;
        Ok((connection, domain))
    }
}

/// Says an answer's failure about a machine, in the words of the contract.
trait Said<T> {
    fn said(self, domain: &DomainRef, doing: &str) -> Result<T>;
}

impl<T> Said<T> for Result<T, Failure> {
    fn said(self, domain: &DomainRef, doing: &str) -> Result<T> {
        self.map_err(|failure| failure.into_error(&domain.name, doing))
    }
}
