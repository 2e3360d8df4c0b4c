//! What a manager asks of the mover service of a host.
//!
//! Knows: agents are started, listed and stopped. Refuses to know: what agents do.

use base::id::{HostId, SessionId};
use serde::{Deserialize, Serialize};

/// A request to a mover service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MoverRequest {
    /// Who are you, and how are you?
    Health,
    /// Start an agent for this session. The service hands out a port of its range.
    StartAgent {
        /// The session it works for; shown in lists and process titles.
        session: SessionId,
        /// What it is for: `web1`, `web1/vda`.
        purpose: String,
    },
    /// The agents of a session, or all.
    ListAgents {
        /// Of one session only.
        session: Option<SessionId>,
    },
    /// End all agents of a session and wait until they are gone. Idempotent.
    StopAgents {
        /// Whose.
        session: SessionId,
    },
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MoverResponse {
    /// To `Health`.
    Health(MoverHealth),
    /// To `StartAgent`: the agent listens.
    Started(RunningAgent),
    /// To `ListAgents`.
    Agents(Vec<RunningAgent>),
    /// To `StopAgents`: how many were ended.
    Stopped(u32),
}

/// How a mover service is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MoverHealth {
    /// The host it serves.
    pub host: HostId,
    /// Version of the program.
    pub version: String,
    /// Logical processors.
    pub processors: u32,
    /// Agents at work.
    pub agents: u32,
    /// Commands it knows beyond the first version's.
    pub capabilities: Vec<String>,
}

/// An agent at work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunningAgent {
    /// Its process.
    pub pid: u32,
    /// `address:port` it takes commands on; the address is the one the service was reached at.
    pub address: String,
    /// The session it works for.
    pub session: SessionId,
    /// What it is for.
    pub purpose: String,
}
