//! Holding a program and everything it started still for a moment.
//!
//! Knows: how the processes of one program file are found, stopped and let go.
//! Refuses to know: why.

use base::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};

/// A program whose processes stand still until this is dropped.
pub struct Held {
    program: PathBuf,
    count: usize,
}

impl Held {
    /// Stops every process that runs this very file, also those that start while we look.
    pub fn stop(program: &Path) -> Result<Self> {
        let mut stopped: Vec<Pid> = Vec::new();
        loop {
            let found = processes_of(program)?;
            let new: Vec<Pid> = found
                .into_iter()
                .filter(|pid| !stopped.contains(pid))
                .collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                // It may have ended since it was found.
                let _ = kill_process(pid, Signal::STOP);
                stopped.push(pid);
            }
        }
        Ok(Self {
            program: program.to_owned(),
            count: stopped.len(),
        })
    }

    /// How many processes stand still.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for pid in processes_of(&self.program).unwrap_or_default() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

/// Processes that run this file; threads and this process itself are not among them.
fn processes_of(program: &Path) -> Result<Vec<Pid>> {
    let failed = |error| Error::io("listing processes", error);
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
        let runs = std::fs::read_link(entry.path().join("exe"));
        if runs.is_ok_and(|path| path == program) && pid != rustix::process::getpid() {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pid: u32) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    fn wait_for(pid: u32, wanted: impl Fn(char) -> bool) {
        for _ in 0..500 {
            if wanted(state(pid)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("process {pid} is in state {}", state(pid));
    }

    #[test]
    fn a_program_stands_still_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("sleeper");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program)
            .arg("60")
            .spawn()
            .unwrap();
        wait_for(child.id(), |state| state == 'S');
        let held = Held::stop(&program).unwrap();
        assert_eq!(held.count(), 1);
        wait_for(child.id(), |state| state == 'T');
        drop(held);
        wait_for(child.id(), |state| state != 'T');
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
