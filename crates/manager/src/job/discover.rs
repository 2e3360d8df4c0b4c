//! Looks what machines a platform has.
//!
//! Knows: how to ask. Refuses to know: what becomes of the answer.

use super::Run;
use super::backup::found_machine;
use base::Result;
use base::id::HostId;
use protocol::paging;
use protocol::words::job::PlatformAddress;
use protocol::words::manager::{FoundMachine, ManagerRequest};
use protocol::words::session::{Level, Outcome};
use protocol::words::span::Span;

/// Asks the platform and tells the server.
pub fn run(run: &Run, host: HostId, address: &PlatformAddress) -> Result<Outcome> {
    let platform = run.platforms.connect(address)?;
    let machines: Vec<_> = platform.machines()?.iter().map(found_machine).collect();
    let count = machines.len();
    tell_machines(run, host, address.name(), machines)?;
    let text = format!("{count} machines found");
    run.desk.log(Level::Info, "discover.done", "", text);
    Ok(Outcome::Machines(count as u64))
}

/// Tells the server which machines a platform has, in as many words as that takes.
pub fn tell_machines(
    run: &Run,
    host: HostId,
    platform: &str,
    mut machines: Vec<FoundMachine>,
) -> Result<()> {
    machines.sort_by(|a, b| a.platform_id.cmp(&b.platform_id));
    let mut after: Option<String> = None;
    for page in paging::pages(machines)? {
        let last = page.items.last().map(|machine| machine.platform_id.clone());
        let complete = Span {
            after,
            to: last.clone().filter(|_| page.more),
        };
        run.desk.tell(&ManagerRequest::MachinesFound {
            host,
            platform: platform.to_owned(),
            machines: page.items,
            complete,
        })?;
        after = last;
    }
    Ok(())
}
