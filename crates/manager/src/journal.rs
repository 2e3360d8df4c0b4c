//! The journal of a session: what it is about to do that must be undone if it cannot finish.
//!
//! Knows: steps, written and synced *before* they are done, and struck out when they are undone or
//! no longer need it. Refuses to know: how a step is undone; each job kind says that.
//!
//! The file is lines of `crc32c (8 hex digits) SPACE json`. A crash can only tear the last line;
//! a torn line was never acted upon, because acting comes after the sync, and is dropped.

use base::clock::Timestamp;
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Longest journal that is read: sessions write a few hundred bytes a machine.
const LENGTH_MAX: u64 = 64 << 20;

/// Something that must be undone if the session cannot finish.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Agents were started at this mover. Undo: end all agents of the session.
    Agents {
        /// `address:port` of the mover service.
        mover: String,
    },
    /// A consistent view of a machine was opened. Undo: remove all that carries the token; the
    /// tracker stays if the point was published.
    Backup {
        /// The machine, as its platform knows it.
        machine: String,
        /// The name that everything of this run carries.
        token: String,
    },
    /// Files were made on a host. Undo: remove them.
    Files {
        /// `address:port` of the host's mover service.
        mover: String,
        /// Absolute paths.
        paths: Vec<String>,
    },
    /// A machine was made. Undo: forget it. Its disks are in `Files`.
    Machine {
        /// Its key on the platform.
        machine: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Do {
        number: u64,
        time: Timestamp,
        step: Step,
    },
    Done {
        number: u64,
    },
}

/// A step that is written down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StepNumber(u64);

/// The journal.
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    open: Vec<(u64, Step)>,
    next: u64,
}

impl Journal {
    /// Opens the journal in a session's folder, making both where missing. What an earlier manager
    /// left open is in [`Self::open_steps`].
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("journal");
        let doing = || format!("opening the journal {}", path.display());
        std::fs::create_dir_all(folder).map_err(|error| Error::io(doing(), error))?;
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|error| Error::io(doing(), error))?;
        let mut text = Vec::new();
        (&mut file)
            .take(LENGTH_MAX)
            .read_to_end(&mut text)
            .map_err(|error| Error::io(doing(), error))?;
        let (lines, whole) = parse(&text);
        if whole < text.len() {
            // Drop the torn end, or the next line would be glued to it.
            file.set_len(whole as u64)
                .map_err(|error| Error::io(doing(), error))?;
        }
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| Error::io(doing(), error))?;
        let mut state = State {
            file,
            open: Vec::new(),
            next: 1,
        };
        for line in lines {
            match line {
                Line::Do { number, step, .. } => {
                    state.open.push((number, step));
                    state.next = state.next.max(number + 1);
                }
                Line::Done { number } => state.open.retain(|(open, _)| *open != number),
            }
        }
        Ok(Self {
            path,
            state: Mutex::new(state),
        })
    }

    /// Writes a step down, durably. Do it only after this has returned.
    pub fn begin(&self, step: Step, now: Timestamp) -> Result<StepNumber> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        self.append(
            &mut state,
            &Line::Do {
                number,
                time: now,
                step: step.clone(),
            },
        )?;
        state.next += 1;
        state.open.push((number, step));
        Ok(StepNumber(number))
    }

    /// Strikes a step out: it is undone, or it may stay.
    pub fn end(&self, number: StepNumber) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.append(&mut state, &Line::Done { number: number.0 })?;
        state.open.retain(|(open, _)| *open != number.0);
        Ok(())
    }

    /// What is not struck out, newest first: the order of undoing.
    pub fn open_steps(&self) -> Vec<(StepNumber, Step)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .open
            .iter()
            .rev()
            .map(|(number, step)| (StepNumber(*number), step.clone()))
            .collect()
    }

    fn append(&self, state: &mut State, line: &Line) -> Result<()> {
        let doing = || format!("writing the journal {}", self.path.display());
        let json = serde_json::to_string(line).map_err(|error| {
            Error::new(Kind::Bug, "manager.journal.encode", doing()).caused_by(error)
        })?;
        let text = format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
        state
            .file
            .write_all(text.as_bytes())
            .and_then(|()| state.file.sync_data())
            .map_err(|error| Error::io(doing(), error))
    }
}

/// The whole lines, and where they end.
fn parse(text: &[u8]) -> (Vec<Line>, usize) {
    let (mut lines, mut at) = (Vec::new(), 0);
    while let Some(end) = text[at..].iter().position(|byte| *byte == b'\n') {
        let Some(line) = parse_line(&text[at..at + end]) else {
            break;
        };
        lines.push(line);
        at += end + 1;
    }
    (lines, at)
}

fn parse_line(line: &[u8]) -> Option<Line> {
    let (sum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let fits = u32::from_str_radix(sum, 16).ok()? == crc32c::crc32c(json.as_bytes());
    fits.then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(machine: &str) -> Step {
        Step::Machine {
            machine: machine.into(),
        }
    }

    #[test]
    fn what_is_not_struck_out_is_found_again_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let a = journal.begin(step("a"), Timestamp(1)).unwrap();
        journal.begin(step("b"), Timestamp(2)).unwrap();
        let c = journal.begin(step("c"), Timestamp(3)).unwrap();
        journal.end(a).unwrap();
        drop(journal);
        let again = Journal::open(folder.path()).unwrap();
        let open: Vec<Step> = again
            .open_steps()
            .into_iter()
            .map(|(_, step)| step)
            .collect();
        assert_eq!(open, [step("c"), step("b")]);
        let d = again.begin(step("d"), Timestamp(4)).unwrap();
        assert!(d > c);
    }

    #[test]
    fn every_torn_end_is_dropped_and_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(folder.path()).unwrap();
        journal.begin(step("a"), Timestamp(1)).unwrap();
        let first = std::fs::metadata(&path).unwrap().len() as usize;
        journal.begin(step("b"), Timestamp(2)).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for length in first..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let journal = Journal::open(folder.path()).unwrap();
            assert_eq!(journal.open_steps().len(), 1, "{length}");
            journal.begin(step("c"), Timestamp(3)).unwrap();
            drop(journal);
            let again = Journal::open(folder.path()).unwrap();
            let open: Vec<Step> = again
                .open_steps()
                .into_iter()
                .map(|(_, step)| step)
                .collect();
            assert_eq!(open, [step("c"), step("a")]);
        }
    }
}
