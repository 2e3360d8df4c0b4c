//! `backstay restore ...`
//!
//! Knows: what people say of restores. Refuses to know: how they are done.

use crate::follow::Wait;
use crate::point;
use crate::repository::absolute;
use crate::server::{Server, unexpected};
use base::{Error, Kind, Result};
use clap::{Subcommand, ValueEnum};
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A, Host};
use protocol::words::job::PlatformAddress;
use protocol::words::session::{RestoreDisk, RestoreMachine, RestoreTarget};
use std::path::PathBuf;

/// What to bring back.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// A machine, as a new one or over the one it came from
    #[command(group = clap::ArgGroup::new("where").required(true))]
    Machine {
        /// Restore point: id, or its last digits
        point: String,
        /// Name of the new machine
        #[arg(long, group = "where")]
        name: Option<String>,
        /// Over the machine it came from: it is stopped and its disks are overwritten
        #[arg(long, group = "where")]
        original: bool,
        /// With --name: keep the network cards' addresses
        #[arg(long, requires = "name")]
        keep_mac: bool,
        /// Start it afterwards
        #[arg(long)]
        start: bool,
        /// Folder for the disks of a new machine
        #[arg(long)]
        folder: Option<PathBuf>,
        /// Host to restore to
        #[arg(long, default_value = "local")]
        host: String,
        /// libvirt connection of that host
        #[arg(long, default_value = "qemu:///system")]
        libvirt: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
    /// One disk, into a new file
    Disk {
        /// Restore point: id, or its last digits
        point: String,
        /// Name of the disk in the point
        disk: String,
        /// The file to make
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Format of the file
        #[arg(long, value_enum, default_value = "raw")]
        format: FormatName,
        /// Host to restore to
        #[arg(long, default_value = "local")]
        host: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
}

/// Formats that can be written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatName {
    /// The bytes themselves, sparse
    Raw,
    /// QEMU's format
    Qcow2,
}

/// Does it.
pub fn run(server: &Server, verb: &Verb) -> Result<u8> {
    let (request, wait) = match verb {
        Verb::Machine {
            point,
            name,
            original: _,
            keep_mac,
            start,
            folder,
            host,
            libvirt,
            reason,
            wait,
        } => {
            let point = point::find(server, point)?;
            let target = match name {
                Some(name) => RestoreTarget::New {
                    name: name.clone(),
                    keep_mac: *keep_mac,
                },
                None => RestoreTarget::Original,
            };
            let order = RestoreMachine {
                repository: point.repository,
                point: point.id,
                host: find_host(server, host)?.id,
                platform: PlatformAddress::Libvirt {
                    uri: libvirt.clone(),
                },
                target,
                folder: folder.as_deref().map(absolute).transpose()?,
                start: *start,
                reason: reason.clone(),
            };
            (Q::RestoreMachine(order), wait)
        }
        Verb::Disk {
            point,
            disk,
            to,
            format,
            host,
            reason,
            wait,
        } => {
            let point = point::find(server, point)?;
            let order = RestoreDisk {
                repository: point.repository,
                point: point.id,
                disk: disk.clone(),
                host: find_host(server, host)?.id,
                path: absolute(to)?,
                format: match format {
                    FormatName::Raw => "raw",
                    FormatName::Qcow2 => "qcow2",
                }
                .to_owned(),
                reason: reason.clone(),
            };
            (Q::RestoreDisk(order), wait)
        }
    };
    match server.ask(&request)? {
        A::Session(session) => wait.show(server, &session),
        other => Err(unexpected(&other)),
    }
}

fn find_host(server: &Server, key: &str) -> Result<Host> {
    let hosts = match server.ask(&Q::HostList)? {
        A::Hosts(hosts) => hosts,
        other => return Err(unexpected(&other)),
    };
    hosts
        .into_iter()
        .find(|host| host.name == key || host.id.to_string() == key)
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "host.not-found",
                format!("there is no host \u{201c}{key}\u{201d}"),
            )
            .hint("\u{201c}backstay host list\u{201d} shows all")
        })
}
