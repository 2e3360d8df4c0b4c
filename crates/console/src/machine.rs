//! `backstay machine ...`
//!
//! Knows: what people say of machines. Refuses to know: hypervisors.

use crate::follow::Wait;
use crate::server::{Server, unexpected};
use crate::show::{self, Table};
use base::size::ByteCount;
use base::{Error, Kind, Result};
use clap::Subcommand;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A, Machine};
use protocol::words::job::PlatformAddress;

/// What to do with machines.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show all machines that were seen or have restore points
    List,
    /// Show one machine with its disks
    Show {
        /// Name or id
        machine: String,
    },
    /// Look what machines a hypervisor has
    Discover {
        /// Host to ask from
        #[arg(long, default_value = "local")]
        host: String,
        /// libvirt connection of that host
        #[arg(long, default_value = "qemu:///system")]
        libvirt: String,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
}

/// Does it.
pub fn run(server: &Server, verb: &Verb) -> Result<u8> {
    match verb {
        Verb::List => list(server, &all(server)?).map(|()| 0),
        Verb::Show { machine } => show_one(server, machine).map(|()| 0),
        Verb::Discover {
            host,
            libvirt,
            wait,
        } => {
            let platform = PlatformAddress::Libvirt {
                uri: libvirt.clone(),
            };
            match server.ask(&Q::MachineDiscover {
                host: host.clone(),
                platform,
            })? {
                A::Session(session) => {
                    let code = wait.show(server, &session)?;
                    if !wait.no_wait && !server.json() {
                        list(server, &all(server)?)?;
                    }
                    Ok(code)
                }
                other => Err(unexpected(&other)),
            }
        }
    }
}

fn all(server: &Server) -> Result<Vec<Machine>> {
    let mut all: Vec<Machine> = Vec::new();
    loop {
        let from = all.len() as u64;
        let (machines, more) = match server.ask(&Q::MachineList { from })? {
            A::Machines { machines, more } => (machines, more),
            other => return Err(unexpected(&other)),
        };
        let none = machines.is_empty();
        all.extend(machines);
        if !more || none {
            return Ok(all);
        }
    }
}

fn list(server: &Server, machines: &[Machine]) -> Result<()> {
    if server.json() {
        return show::json(&machines);
    }
    let mut table = Table::new(&[
        "NAME",
        "PLATFORM",
        "STATE",
        "DISKS",
        "SIZE",
        "POINTS",
        "NEWEST",
        "PROTECTED",
    ]);
    for machine in machines {
        let size: ByteCount = machine.found.disks.iter().map(|disk| disk.size).sum();
        table.row(vec![
            machine.found.name.clone(),
            machine.platform.clone(),
            machine.found.state.clone(),
            machine.found.disks.len().to_string(),
            size.to_string(),
            machine.points.to_string(),
            show::time_or_dash(machine.newest),
            if machine.jobs.is_empty() { "no" } else { "yes" }.to_owned(),
        ]);
    }
    table.print("no machines; look for some with \u{201c}backstay machine discover\u{201d}")
}

fn show_one(server: &Server, key: &str) -> Result<()> {
    let fits = |machine: &Machine| {
        machine.found.name == key
            || machine.found.platform_id == key
            || machine.id.is_some_and(|id| id.to_string() == key)
    };
    let machine = all(server)?.into_iter().find(fits).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "machine.not-found",
            format!("there is no machine \u{201c}{key}\u{201d}"),
        )
        .hint("\u{201c}backstay machine list\u{201d} shows all")
    })?;
    if server.json() {
        return show::json(&machine);
    }
    let found = &machine.found;
    show::line(&format!(
        "machine  {} ({})",
        show::clean(&found.name),
        found.platform_id
    ))?;
    show::line(&format!("platform {}, {}", machine.platform, found.state))?;
    show::line(&format!("points   {}", machine.points))?;
    let mut table = Table::new(&["DISK", "SIZE", "FORMAT", "TRACKED", "PATH"]);
    for disk in &found.disks {
        table.row(vec![
            disk.name.clone(),
            disk.size.to_string(),
            disk.format.clone(),
            if disk.trackable { "yes" } else { "no" }.to_owned(),
            disk.path.clone(),
        ]);
    }
    table.print("no disks")
}
