//! `backstay status`.
//!
//! Knows: how the server is. Refuses to know: anything else.

use crate::server::{Server, unexpected};
use crate::show;
use base::Result;
use protocol::words::console::{ConsoleRequest, ConsoleResponse};

/// Shows how the server is.
pub fn run(server: &Server) -> Result<u8> {
    match server.ask(&ConsoleRequest::Status)? {
        ConsoleResponse::Status(status) if server.json() => show::json(&status)?,
        ConsoleResponse::Status(status) => {
            show::line(&format!("server   Backstay {}", status.version))?;
            show::line(&format!("since    {}", show::time(status.started)))?;
            show::line(&format!("sessions {} at work", status.sessions_running))?;
            show::line(&format!("schema   {}", status.schema_version))?;
        }
        other => return Err(unexpected(&other)),
    }
    Ok(0)
}
