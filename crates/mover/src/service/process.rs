//! Processes of this host, told apart for certain.
//!
//! Knows: a process is its number *and* the moment it was started *and* the boot of the host,
//! because numbers are used again. Refuses to know: what the processes are.

use base::{Error, Result};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How often a waiting thread looks whether a process is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One process, for certain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessMark {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since the boot.
    pub started: u64,
    /// The boot it belongs to.
    pub boot: String,
}

impl ProcessMark {
    /// The mark of a process that lives.
    ///
    /// # Errors
    /// `NotFound` where it is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let doing = || format!("looking at process {pid}");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|error| Error::io(doing(), error))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Error::io(doing(), error))?;
        let started = start_time(&stat)
            .ok_or_else(|| Error::corrupt("mover.process.stat", format!("{}: {stat}", doing())))?;
        Ok(Self {
            pid,
            started,
            boot: boot.trim().to_owned(),
        })
    }

    /// Whether this very process lives. One that has ended and was not waited for is not alive.
    pub fn is_alive(&self) -> bool {
        let zombie = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
            stat.is_ok_and(|stat| state(&stat) == Some('Z'))
        };
        Self::of(self.pid).is_ok_and(|now| now == *self) && !zombie()
    }

    /// Sends a signal to this very process; nothing happens where it is gone.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return;
        };
        // A handle first, then the check, then the signal through the handle: the number cannot
        // come to mean another process in between. Kernels before 5.3 have no handles.
        let handle: Option<OwnedFd> = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        if !self.is_alive() {
            return;
        }
        let sent = match handle {
            Some(handle) => rustix::process::pidfd_send_signal(handle, signal),
            None => rustix::process::kill_process(pid, signal),
        };
        if let Err(error) = sent {
            tracing::warn!("signalling process {}: {error}", self.pid);
        }
    }

    /// Kills this process's whole group, which it leads.
    pub fn kill_group(&self) {
        if !self.is_alive() {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // An error means that it is gone already.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// Waits until the process is gone; whether it is.
    pub fn wait(&self, patience: Duration) -> bool {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything, even brackets.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
}

/// Field 3.
fn state(stat: &str) -> Option<char> {
    fields(stat).next()?.chars().next()
}

/// Field 22.
fn start_time(stat: &str) -> Option<u64> {
    fields(stat).nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_brackets_does_not_confuse() {
        let stat = format!("7 (a) R (b)) S {} 4242 0", vec!["0"; 18].join(" "));
        assert_eq!((state(&stat), start_time(&stat)), (Some('S'), Some(4242)));
        assert_eq!(start_time("nonsense"), None);
    }

    #[test]
    fn another_start_is_another_process() {
        let me = ProcessMark::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(
            !ProcessMark {
                started: me.started + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !ProcessMark {
                boot: "other".to_owned(),
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn a_child_is_ended_and_seen_to_be_gone() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mark = ProcessMark::of(child.id()).unwrap();
        mark.signal(Signal::TERM);
        assert!(mark.wait(Duration::from_secs(10)));
        child.wait().unwrap();
        // Gone for good: signalling it is nothing.
        mark.signal(Signal::KILL);
    }
}
