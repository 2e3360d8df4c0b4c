//! Everything that a program started, found again by a mark in the environment.
//!
//! Knows: how a started program is marked, how all processes with the mark are found, held still
//! for a moment, let go, and ended.
//! Refuses to know: what the processes do.
//!
//! Children inherit the environment. The mark therefore finds what was moved into process groups of
//! its own, too, and it never finds the same program started by somebody else.

use crate::command::Run;
use base::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::time::{Duration, Instant};

const VARIABLE: &str = "BACKSTAY_DEMO";
const END_DEADLINE: Duration = Duration::from_secs(10);

/// A mark; clones are the same mark.
#[derive(Clone, Debug)]
pub struct Mark(String);

impl Mark {
    /// The mark of everything that works in this folder. A later run with the same folder finds what
    /// an earlier one left behind.
    pub fn of(folder: &Path) -> Self {
        Self(folder.to_string_lossy().into_owned())
    }

    /// The program, marked.
    pub fn on(&self, run: Run) -> Run {
        run.env(VARIABLE, &self.0)
    }

    /// All processes that carry it.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let failed = |error| Error::io("listing processes", error);
        let wanted = format!("{VARIABLE}={}", self.0);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok());
            let Some(pid) = number.and_then(Pid::from_raw) else {
                continue;
            };
            // Processes of others, and those that have ended meanwhile, cannot be read.
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == wanted.as_bytes())
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Holds all of them still, also those that start while we look, until the answer is dropped.
    pub fn hold(&self) -> Result<Held> {
        let mut held = Held { pids: Vec::new() };
        loop {
            let found = self.processes()?;
            let new: Vec<Pid> = found
                .into_iter()
                .filter(|pid| !held.pids.contains(pid))
                .collect();
            if new.is_empty() {
                return Ok(held);
            }
            for pid in new {
                // It may have ended since it was found.
                let _ = kill_process(pid, Signal::STOP);
                held.pids.push(pid);
            }
        }
    }

    /// Ends all of them: politely, and after a while without asking.
    pub fn end(&self) {
        let started = Instant::now();
        let mut asked: Vec<Pid> = Vec::new();
        loop {
            let left = self.processes().unwrap_or_default();
            if left.is_empty() {
                return;
            }
            let patience_is_over = started.elapsed() > END_DEADLINE;
            for pid in left {
                if patience_is_over {
                    let _ = kill_process(pid, Signal::KILL);
                } else if !asked.contains(&pid) {
                    let _ = kill_process(pid, Signal::TERM);
                    asked.push(pid);
                }
            }
            if started.elapsed() > END_DEADLINE * 2 {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Processes that stand still until this is dropped.
pub struct Held {
    pids: Vec<Pid>,
}

impl Held {
    /// How many.
    pub fn count(&self) -> usize {
        self.pids.len()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for pid in &self.pids {
            // A process that stands still keeps its number: it cannot have become another one.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pid: u32) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    fn wait_for(pid: u32, wanted: impl Fn(char) -> bool) {
        for _ in 0..1_000 {
            if wanted(state(pid)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("process {pid} is in state {}", state(pid));
    }

    #[test]
    fn marked_processes_stand_still_go_on_and_end_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::of(folder.path());
        let mut ours = mark.on(Run::new("sleep").arg("60")).start().unwrap();
        let mut other = Run::new("sleep").arg("60").start().unwrap();
        wait_for(ours.id(), |state| state == 'S');
        let held = mark.hold().unwrap();
        assert_eq!(held.count(), 1);
        wait_for(ours.id(), |state| state == 'T');
        wait_for(other.id(), |state| state == 'S');
        drop(held);
        wait_for(ours.id(), |state| state == 'S');
        // Somebody must take note of the end of a child, or it stays listed.
        let waiting = std::thread::spawn(move || ours.wait().unwrap());
        mark.end();
        assert!(!waiting.join().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
