//! `backstay host ...`
//!
//! Knows: what people say of hosts. Refuses to know: how hosts are reached.

use crate::server::{Server, unexpected};
use crate::show::{self, Table};
use base::Result;
use clap::Subcommand;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A, Host};

/// What to do with hosts.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show all hosts and whether they answer
    List,
    /// Add a host whose mover service runs
    Add {
        /// Name for the host
        name: String,
        /// Address of its mover service
        #[arg(long, value_name = "HOST:PORT")]
        mover: String,
    },
    /// Forget a host that nothing uses
    Remove {
        /// Name or id
        host: String,
    },
}

/// Does it.
pub fn run(server: &Server, verb: &Verb) -> Result<u8> {
    match verb {
        Verb::List => match server.ask(&Q::HostList)? {
            A::Hosts(hosts) => list(server, &hosts)?,
            other => return Err(unexpected(&other)),
        },
        Verb::Add { name, mover } => {
            match server.ask(&Q::HostAdd {
                name: name.clone(),
                mover: mover.clone(),
            })? {
                A::Host(host) if server.json() => show::json(&host)?,
                A::Host(host) => show::line(&format!("host {} added: {}", host.name, host.id))?,
                other => return Err(unexpected(&other)),
            }
        }
        Verb::Remove { host } => match server.ask(&Q::HostRemove { key: host.clone() })? {
            A::Done => show::done(server.json(), &format!("host {host} removed"))?,
            other => return Err(unexpected(&other)),
        },
    }
    Ok(0)
}

fn list(server: &Server, hosts: &[Host]) -> Result<()> {
    if server.json() {
        return show::json(&hosts);
    }
    let mut table = Table::new(&["NAME", "MOVER", "STATE", "ID"]);
    for host in hosts {
        let state = match &host.online {
            Some(version) => format!("online, {version}"),
            None => "offline".to_owned(),
        };
        table.row(vec![
            host.name.clone(),
            host.mover.clone(),
            state,
            host.id.to_string(),
        ]);
    }
    table.print("no hosts")
}
