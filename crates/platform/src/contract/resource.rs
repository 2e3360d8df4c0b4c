//! What a run leaves on a hypervisor while it lasts.
//!
//! Knows: the kinds of things that carry a token. Refuses to know: how each is made and removed.

use super::machine::MachineKey;
use super::token::Token;
use serde::{Deserialize, Serialize};

/// One thing that carries a token.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Resource {
    /// Whose it is.
    pub token: Token,
    /// The machine it belongs to, where it belongs to one.
    pub machine: Option<MachineKey>,
    /// What it is.
    pub kind: ResourceKind,
    /// Its name or path, as people find it on the host.
    pub name: String,
}

/// The kinds of things that carry a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceKind {
    /// A backup that runs on a machine.
    Backup,
    /// A machine that was off and is held paused for a backup.
    HeldMachine,
    /// Scratch files and sockets.
    Scratch,
    /// A tracker with its map of changes. The only kind that outlives a good run.
    Tracker,
}
