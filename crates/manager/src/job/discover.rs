//! Looks what machines a platform has.
//!
//! Knows: how to ask. Refuses to know: what becomes of the answer.

use super::Run;
use super::backup::found_machine;
use base::Result;
use base::id::HostId;
use protocol::words::job::PlatformAddress;
use protocol::words::manager::ManagerRequest;
use protocol::words::session::{Level, Outcome};

/// Asks the platform and tells the server.
pub fn run(run: &Run, host: HostId, address: &PlatformAddress) -> Result<Outcome> {
    let platform = run.platforms.connect(address)?;
    let machines: Vec<_> = platform.machines()?.iter().map(found_machine).collect();
    run.desk.tell(&ManagerRequest::MachinesFound {
        host,
        platform: address.name().to_owned(),
        machines: machines.clone(),
    })?;
    let text = format!("{} machines found", machines.len());
    run.desk.log(Level::Info, "discover.done", "", text);
    Ok(Outcome::Machines(machines))
}
