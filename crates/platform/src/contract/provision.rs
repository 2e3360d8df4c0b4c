//! How a machine is made out of a saved definition.
//!
//! Knows: what may differ between the machine that was saved and the one to be made.
//! Refuses to know: how a platform writes a definition.

use super::machine::Machine;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What may differ from the saved machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProvisionOptions {
    /// Its new name; `None` keeps the saved one.
    pub name: Option<String>,
    /// Who it is.
    pub identity: Identity,
    /// Where its disks lie. A disk of the definition that is not listed is left out of the machine.
    pub disks: Vec<DiskPlacement>,
    /// What its network cards are connected to.
    pub networks: Networks,
    /// The hardware addresses of its network cards.
    pub addresses: Addresses,
    /// Where the mover put the saved NVRAM on the host, if there was one; `None` begins with a fresh one.
    pub nvram: Option<String>,
}

/// Who the machine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The machine that was saved: same identity. Fails where that one still exists.
    Same,
    /// A new machine, with this identity.
    New(Uuid),
}

/// Where one disk lies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskPlacement {
    /// Its target name in the definition.
    pub target: String,
    /// An absolute path on the platform's host.
    pub path: String,
    /// The image format there (`raw`, `qcow2`).
    pub format: String,
}

/// What the network cards are connected to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Networks {
    /// As saved.
    Keep,
    /// All cards stay, with the cable pulled: safe beside the original.
    Disconnected,
    /// No cards at all.
    Remove,
    /// Each saved network or bridge name replaced by another; names not listed are kept.
    Map(Vec<(String, String)>),
}

/// The hardware addresses of the network cards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addresses {
    /// As saved.
    Keep,
    /// New ones, chosen by the platform.
    Renew,
}

/// A machine that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Provisioned {
    /// The machine.
    pub machine: Machine,
    /// What differs from the saved one and was not asked for; shown as warnings.
    pub warnings: Vec<String>,
}
