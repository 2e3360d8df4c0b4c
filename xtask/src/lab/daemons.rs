//! libvirt's daemons on machines where no service manager starts them (containers, build hosts).
//!
//! Knows: whether the system's sockets are served; how to start `virtlogd` and `libvirtd` by hand;
//! that only daemons we started are ours to stop, and not while others use them.
//! Refuses to know: guests.

use super::virsh::Virsh;
use super::{PREFIX, make_folder};
use crate::command::Run;
use crate::step::detail;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// One daemon: its program and the socket it serves. The log daemon comes first: without it no
/// machine starts.
const DAEMONS: [(&str, &str); 2] = [
    ("virtlogd", "/run/libvirt/virtlogd-sock"),
    ("libvirtd", "/run/libvirt/libvirt-sock"),
];

/// The daemons, and which of them are ours.
pub struct Daemons {
    folder: PathBuf,
}

impl Daemons {
    /// The daemons that an earlier run started from this folder.
    pub fn of(lab: &Path) -> Self {
        Self {
            folder: lab.join("daemons"),
        }
    }

    /// Starts those that do not answer, and waits until they do.
    pub fn up(lab: &Path, cancel: &Cancel) -> Result<Self> {
        let daemons = Self::of(lab);
        make_folder(&daemons.folder)?;
        for (name, socket) in DAEMONS {
            if is_served(socket) {
                continue;
            }
            detail(format!("starting {name}"));
            let pid_file = daemons.pid_file(name);
            Run::new(name)
                .arg("--daemon")
                .arg("--pid-file")
                .arg(&pid_file)
                .deadline(START_DEADLINE)
                .hint(format!(
                    "run `{name} --verbose` by hand to see why it does not start"
                ))
                .capture(cancel)?;
            wait_until(START_DEADLINE, cancel, || is_served(socket))
                .map_err(|error| error.context(format!("{name} does not answer at {socket}")))?;
        }
        Virsh::system().call(&["version"], cancel)?;
        Ok(daemons)
    }

    /// Whether the hypervisor answers now.
    pub fn served() -> bool {
        DAEMONS.iter().all(|(_, socket)| is_served(socket))
    }

    /// Stops those that are ours, unless somebody else uses them now.
    pub fn down(self, virsh: &Virsh, cancel: &Cancel) -> Result<()> {
        if DAEMONS.iter().all(|(name, _)| self.ours(name).is_none()) {
            return Ok(());
        }
        if Self::served() {
            let running = virsh.running(cancel)?;
            let others = running.iter().find(|name| !name.starts_with(PREFIX));
            if let Some(name) = others {
                detail(format!(
                    "leaving libvirt's daemons up: the machine {name} runs"
                ));
                return Ok(());
            }
            if clients(DAEMONS[1].1) > 0 {
                detail("leaving libvirt's daemons up: somebody else is connected");
                return Ok(());
            }
        }
        for (name, _) in DAEMONS.iter().rev() {
            if let Some(pid) = self.ours(name) {
                detail(format!("stopping {name}"));
                end(pid, name, cancel)?;
            }
            let _ = std::fs::remove_file(self.pid_file(name));
        }
        Ok(())
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pid"))
    }

    /// The process that we started and that still is this program: numbers are used again.
    fn ours(&self, name: &str) -> Option<Pid> {
        let text = std::fs::read_to_string(self.pid_file(name)).ok()?;
        let number = text.trim().parse::<i32>().ok()?;
        is_program(number, name)
            .then(|| Pid::from_raw(number))
            .flatten()
    }
}

fn is_program(pid: i32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

fn is_served(socket: &str) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// How many connections the socket has, as the kernel lists them (state 03 is connected).
fn clients(socket: &str) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    connected(&table, socket)
}

fn connected(table: &str, socket: &str) -> usize {
    table
        .lines()
        .filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(5) == Some(&"03") && words.get(7) == Some(&socket)
        })
        .count()
}

fn end(pid: Pid, name: &str, cancel: &Cancel) -> Result<()> {
    let number = pid.as_raw_nonzero().get();
    kill_process(pid, Signal::TERM)
        .map_err(|error| Error::io(format!("stopping {name}"), error.into()))?;
    let gone = || !is_program(number, name);
    if wait_until(STOP_DEADLINE, cancel, gone).is_err() {
        kill_process(pid, Signal::KILL)
            .map_err(|error| Error::io(format!("killing {name}"), error.into()))?;
    }
    Ok(())
}

/// Looks again and again until it is so; an error after the deadline.
pub fn wait_until(
    deadline: Duration,
    cancel: &Cancel,
    mut is_so: impl FnMut() -> bool,
) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        cancel.check()?;
        if started.elapsed() > deadline {
            return Err(Error::new(
                Kind::Timeout,
                "xtask.lab.timeout",
                format!("nothing happened within {} s", deadline.as_secs()),
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_socket_and_state() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000: 00000002 00000000 00010000 0001 01 100 /run/libvirt/libvirt-sock\n\
            0000: 00000003 00000000 00000000 0001 03 101 /run/libvirt/libvirt-sock\n\
            0000: 00000003 00000000 00000000 0001 03 102 /run/other\n";
        assert_eq!(connected(table, "/run/libvirt/libvirt-sock"), 1);
        assert_eq!(connected("", "/run/libvirt/libvirt-sock"), 0);
    }

    #[test]
    fn a_process_is_known_by_number_and_name() {
        let me = i32::try_from(std::process::id()).unwrap();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(is_program(me, comm.trim()));
        assert!(!is_program(me, "libvirtd"));
    }
}
