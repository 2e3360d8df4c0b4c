//! Where a libvirt daemon is.
//!
//! Knows: the part of libvirt's connection URIs that Backstay speaks: `qemu:///system`,
//! `qemu:///session`, either with `?socket=PATH` and `?scratch=PATH`, and `qemu+ssh://user@host:port/system` with
//! `?keyfile=PATH` and `?known_hosts=PATH`. Refuses to know: how a connection is opened.

use base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a daemon is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Which of the host's daemons.
    pub instance: Instance,
    /// The daemon's socket, where it is not at its usual place.
    pub socket: Option<PathBuf>,
    /// The folder for scratch files on the daemon's host, where it is not the usual one.
    pub scratch: Option<PathBuf>,
    /// The host; `None` is this one.
    pub remote: Option<Remote>,
}

/// Which of a host's daemons.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instance {
    /// The host's, run by root.
    System,
    /// A user's own.
    Session,
}

/// A host that is reached by `ssh`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Name or address.
    pub host: String,
    /// Who to be there; `None` leaves it to ssh's configuration.
    pub user: Option<String>,
    /// Which port; `None` leaves it to ssh's configuration.
    pub port: Option<u16>,
    /// The private key to use.
    pub key_file: Option<String>,
    /// The file with the host's pinned key.
    pub known_hosts_file: Option<String>,
    /// The program to run: `ssh`.
    pub program: String,
}

impl Address {
    /// This machine's daemon.
    pub const fn local() -> Self {
        Self {
            instance: Instance::System,
            socket: None,
            scratch: None,
            remote: None,
        }
    }

    /// The URI that the daemon itself is asked for.
    pub const fn driver_uri(&self) -> &'static str {
        match self.instance {
            Instance::System => "qemu:///system",
            Instance::Session => "qemu:///session",
        }
    }

    /// The URI that `virt-ssh-helper` on the remote host is asked for.
    pub fn helper_uri(&self) -> String {
        match &self.socket {
            None => self.driver_uri().to_owned(),
            Some(socket) => format!("{}?socket={}", self.driver_uri(), socket.display()),
        }
    }

    /// The socket of a daemon on this machine.
    ///
    /// # Errors
    /// Kind `NotFound` where a session's daemon has no usual place, because nobody is logged in.
    pub fn socket_path(&self) -> Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let folder = match self.instance {
            Instance::System => PathBuf::from("/run/libvirt"),
            Instance::Session => {
                let runtime = std::env::var_os("XDG_RUNTIME_DIR").ok_or_else(|| {
                    Error::new(
                        base::Kind::NotFound,
                        "platform.libvirt.no-session",
                        "XDG_RUNTIME_DIR is not set, so there is no libvirt of this user's session",
                    )
                    .hint("log in, or name the socket: qemu:///session?socket=PATH")
                })?;
                PathBuf::from(runtime).join("libvirt")
            }
        };
        // A modular host has one daemon for each driver; a monolithic one has one for all.
        let modular = folder.join("virtqemud-sock");
        let monolithic = folder.join("libvirt-sock");
        Ok(if !monolithic.exists() && modular.exists() {
            modular
        } else {
            monolithic
        })
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::invalid(
                "platform.libvirt.address-malformed",
                format!("\u{201c}{text}\u{201d} is no address of a libvirt: {why}"),
            )
            .hint("use qemu:///system, or qemu+ssh://root@host/system")
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("it has no \u{201c}://\u{201d}"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, instance) = place
            .split_once('/')
            .ok_or_else(|| bad("it names neither system nor session"))?;
        let instance = match instance {
            "system" => Instance::System,
            "session" => Instance::Session,
            _ => return Err(bad("it names neither system nor session")),
        };
        let mut remote = match scheme {
            "qemu" | "qemu+unix" if authority.is_empty() => None,
            "qemu+ssh" => Some(parse_authority(authority).map_err(bad)?),
            "qemu" | "qemu+unix" => return Err(bad("a host needs qemu+ssh://")),
            _ => return Err(bad("only qemu, qemu+unix and qemu+ssh are spoken")),
        };
        let (mut socket, mut scratch) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match (pair.split_once('='), &mut remote) {
                (Some(("socket", path)), _) if path.starts_with('/') => {
                    if path.contains(|c: char| c.is_whitespace() || "'\"\\$`;&|<>*?#".contains(c)) {
                        return Err(bad("the socket's path has characters that a shell reads"));
                    }
                    socket = Some(PathBuf::from(path));
                }
                (Some(("scratch", path)), _) if path.starts_with('/') => {
                    scratch = Some(PathBuf::from(path));
                }
                (Some(("keyfile", path)), Some(remote)) => remote.key_file = Some(path.to_owned()),
                (Some(("known_hosts", path)), Some(remote)) => {
                    remote.known_hosts_file = Some(path.to_owned());
                }
                (Some(("command", path)), Some(remote)) if path.starts_with('/') => {
                    remote.program = path.to_owned();
                }
                _ => return Err(bad(&format!("\u{201c}{pair}\u{201d} is not understood"))),
            }
        }
        Ok(Self {
            instance,
            socket,
            scratch,
            remote,
        })
    }
}

/// `user@host:port`, with the host perhaps in brackets.
fn parse_authority(text: &str) -> std::result::Result<Remote, &'static str> {
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, text),
    };
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a bracket is open")?;
        (host, rest.strip_prefix(':'))
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let port = port
        .map(str::parse)
        .transpose()
        .map_err(|_| "the port is no number")?;
    // A name that begins with a dash would be an option to ssh.
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= base::limit::NAME_LENGTH_MAX
            && !name.starts_with('-')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_:%".contains(c))
    };
    if !plain(host) || user.as_deref().is_some_and(|user| !plain(user)) {
        return Err("the host's or user's name is not a plain one");
    }
    let (key_file, known_hosts_file) = (None, None);
    Ok(Remote {
        host: host.to_owned(),
        user,
        port,
        key_file,
        known_hosts_file,
        program: "ssh".to_owned(),
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.instance {
            Instance::System => "/system",
            Instance::Session => "/session",
        };
        let mut query = Vec::new();
        if let Some(socket) = &self.socket {
            query.push(format!("socket={}", socket.display()));
        }
        if let Some(scratch) = &self.scratch {
            query.push(format!("scratch={}", scratch.display()));
        }
        match &self.remote {
            None => write!(f, "qemu://{path}")?,
            Some(remote) => {
                f.write_str("qemu+ssh://")?;
                if let Some(user) = &remote.user {
                    write!(f, "{user}@")?;
                }
                if remote.host.contains(':') {
                    write!(f, "[{}]", remote.host)?;
                } else {
                    f.write_str(&remote.host)?;
                }
                if let Some(port) = remote.port {
                    write!(f, ":{port}")?;
                }
                f.write_str(path)?;
                query.extend(remote.key_file.iter().map(|path| format!("keyfile={path}")));
                query.extend(
                    remote
                        .known_hosts_file
                        .iter()
                        .map(|path| format!("known_hosts={path}")),
                );
                if remote.program != "ssh" {
                    query.push(format!("command={}", remote.program));
                }
            }
        }
        if !query.is_empty() {
            write!(f, "?{}", query.join("&"))?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Address {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in [
            "qemu:///system",
            "qemu:///session",
            "qemu:///session?socket=/tmp/a/libvirt-sock",
            "qemu:///session?socket=/tmp/a/libvirt-sock&scratch=/tmp/b",
            "qemu+ssh://host/system",
            "qemu+ssh://root@host.example:2222/system?keyfile=/k&known_hosts=/h",
            "qemu+ssh://root@[fe80::1]:22/system",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_could_be_an_option_or_a_command_is_refused() {
        for text in [
            "",
            "qemu",
            "xen:///system",
            "qemu://host/system",
            "qemu:///other",
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://a;b/system",
            "qemu+ssh://-l@host/system",
            "qemu+ssh:///system",
            "qemu+ssh://host:99999/system",
            "qemu+ssh://[host/system",
            "qemu+ssh://host/system?socket=/a;reboot",
            "qemu+ssh://host/system?unknown=1",
            "qemu:///system?keyfile=/k",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.code(), "platform.libvirt.address-malformed", "{text}");
        }
    }
}
