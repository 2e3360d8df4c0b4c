//! How bytes reach a libvirt daemon.
//!
//! Knows: a Unix socket on this machine, and a remote one through the system's `ssh`. Either way the
//! result is one stream socket. Refuses to know: what is said over it.

use super::address::{Address, Remote};
use base::{Error, Kind, Result};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a write may stand still before the connection counts as dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of what `ssh` complains about is kept.
const COMPLAINT_MAX: u64 = 4096;

/// An open way to a daemon.
pub struct Transport {
    /// Both directions.
    pub stream: UnixStream,
    /// The process at the other end of it, if there is one.
    pub helper: Option<Helper>,
    /// User and group of the daemon, where it is on this machine.
    pub peer: Option<(u32, u32)>,
}

/// A running `ssh`. Ends with its owner.
pub struct Helper {
    child: Child,
    complaint: Arc<Mutex<String>>,
}

impl Helper {
    /// What it said on its standard error, for messages to people.
    pub fn complaint(&self) -> String {
        self.complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trim()
            .to_owned()
    }

    /// Waits a moment for it to end and to say why: its last words come after the end of its output.
    pub fn last_words(&mut self) -> String {
        for _ in 0..20 {
            if matches!(self.child.try_wait(), Ok(Some(_))) && !self.complaint().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        self.complaint()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may be gone already; then there is only its exit code to collect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the way to `address`.
pub fn open(address: &Address) -> Result<Transport> {
    let transport = match &address.remote {
        None => {
            let stream = open_socket(&address.socket_path()?)?;
            let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| {
                Error::io("asking who listens at libvirt's socket", error.into())
            })?;
            let peer = Some((peer.uid.as_raw(), peer.gid.as_raw()));
            Transport {
                stream,
                helper: None,
                peer,
            }
        }
        Some(remote) => open_ssh(remote, &address.helper_uri())?,
    };
    let options = transport
        .stream
        .set_write_timeout(Some(WRITE_TIMEOUT))
        .and_then(|()| transport.stream.set_read_timeout(None));
    options.map_err(|error| Error::io("preparing the connection to libvirt", error))?;
    Ok(transport)
}

fn open_socket(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let (kind, code, hint) = if denied {
            (
                Kind::Denied,
                "platform.libvirt.denied",
                "run as root or add this user to the group \u{201c}libvirt\u{201d}",
            )
        } else {
            (
                Kind::Unreachable,
                "platform.libvirt.unreachable",
                "see that libvirtd (or virtqemud) runs on this machine and that the path is right",
            )
        };
        let what = format!("connecting to libvirt at {} failed", path.display());
        Error::new(kind, code, what).hint(hint).caused_by(error)
    })
}

fn open_ssh(remote: &Remote, uri: &str) -> Result<Transport> {
    let failed = |error: std::io::Error| {
        Error::new(
            Kind::Unreachable,
            "platform.libvirt.ssh-failed",
            format!("starting \u{201c}{}\u{201d} failed", remote.program),
        )
        .hint("install the package openssh-client")
        .caused_by(error)
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let output = theirs.try_clone().map_err(failed)?;
    let mut child = ssh_command(remote)
        .arg("virt-ssh-helper")
        .arg(uri)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let complaint = Arc::new(Mutex::new(String::new()));
    if let Some(stderr) = child.stderr.take() {
        let complaint = Arc::clone(&complaint);
        // Ends with the child: its standard error closes then.
        std::thread::spawn(move || keep_complaints(stderr, &complaint));
    }
    Ok(Transport {
        stream: ours,
        helper: Some(Helper { child, complaint }),
        peer: None,
    })
}

/// `ssh` to that host, ready for the words of a command. Never asks anybody anything.
pub fn ssh_command(remote: &Remote) -> Command {
    let mut command = Command::new(&remote.program);
    command.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]);
    command.args([
        "-o",
        "ServerAliveInterval=15",
        "-o",
        "ServerAliveCountMax=4",
    ]);
    if let Some(port) = remote.port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(key) = &remote.key_file {
        command
            .arg("-i")
            .arg(key)
            .args(["-o", "IdentitiesOnly=yes"]);
    }
    if let Some(known) = &remote.known_hosts_file {
        command.arg("-o").arg(format!("UserKnownHostsFile={known}"));
        command.args(["-o", "StrictHostKeyChecking=yes"]);
    }
    if let Some(user) = &remote.user {
        command.arg("-l").arg(user);
    }
    command.arg("--").arg(&remote.host);
    command
}

fn keep_complaints(mut stderr: impl Read, complaint: &Mutex<String>) {
    let mut kept = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        if (kept.len() as u64) < COMPLAINT_MAX {
            kept.extend_from_slice(&buffer[..count]);
            *complaint.lock().unwrap_or_else(PoisonError::into_inner) =
                String::from_utf8_lossy(&kept).into_owned();
        }
    }
}
