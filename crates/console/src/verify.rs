//! `backstay verify ...`
//!
//! Knows: what people say of verifying. Refuses to know: how it is done.

use crate::follow::Wait;
use crate::point;
use crate::server::{Server, unexpected};
use base::Result;
use clap::Args;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A};

/// What to verify.
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// Name or id of the repository
    pub repository: String,
    /// One restore point only: id, or its last digits
    #[arg(long)]
    pub point: Option<String>,
    /// Read and check every stored byte, not only that all is there
    #[arg(long)]
    pub read_data: bool,
    /// Whether to watch the session
    #[command(flatten)]
    pub wait: Wait,
}

/// Does it.
pub fn run(server: &Server, verify: &Verify) -> Result<u8> {
    let point = verify
        .point
        .as_ref()
        .map(|key| point::find(server, key))
        .transpose()?;
    let request = Q::Verify {
        repository: verify.repository.clone(),
        point: point.map(|point| point.id),
        read_data: verify.read_data,
    };
    match server.ask(&request)? {
        A::Session(session) => verify.wait.show(server, &session),
        other => Err(unexpected(&other)),
    }
}
