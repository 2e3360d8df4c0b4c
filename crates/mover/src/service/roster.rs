//! Which agents there are.
//!
//! Knows: one record a running agent, in memory and in the state folder, so that a service that was
//! restarted knows them again. Refuses to know: why they run.

use super::process::ProcessMark;
use base::id::SessionId;
use base::{Error, Kind, Result};
use protocol::words::mover::RunningAgent;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an agent may take to end when asked to.
const TERM_PATIENCE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a killed one.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a service that is ending may take: it may be starting an agent.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// The longest record, in bytes.
const RECORD_LENGTH_MAX: u64 = 64 << 10;

/// An agent as the state folder records it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its process.
    pub process: ProcessMark,
    /// `address:port` it takes commands on.
    pub address: String,
    /// The session it works for.
    pub session: SessionId,
    /// What it is for.
    pub purpose: String,
}

impl Record {
    fn running(&self) -> RunningAgent {
        RunningAgent {
            pid: self.process.pid,
            address: self.address.clone(),
            session: self.session,
            purpose: self.purpose.clone(),
        }
    }
}

/// All agents of this host.
pub struct Roster {
    folder: PathBuf,
    /// Held for life: a service that is ending may still record the agent it has just started, and
    /// the next one must not have looked before.
    _lock: File,
    agents: Mutex<Agents>,
}

#[derive(Default)]
struct Agents {
    known: BTreeMap<u32, Known>,
    /// Places taken for agents that are being started.
    reserved: usize,
}

struct Known {
    record: Record,
    /// There for agents that this very process has started: it must wait for them.
    child: Option<Child>,
}

/// The right to add one agent.
pub struct Place<'a> {
    roster: &'a Roster,
}

impl Roster {
    /// Reads the records in `folder`, keeping those whose process lives.
    ///
    /// # Errors
    /// Of the folder; `Conflict` (`mover.service.second`) where another service has it.
    pub fn open(folder: &Path) -> Result<Self> {
        let doing = |error| Error::io(format!("reading the folder {}", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(doing)?;
        let lock = lock(&folder.with_extension("lock"))?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(doing)? {
            let path = entry.map_err(doing)?.path();
            match read_record(&path) {
                Some(record) if record.process.is_alive() => {
                    tracing::info!(
                        pid = record.process.pid,
                        "found an agent of session {} again",
                        record.session
                    );
                    known.insert(
                        record.process.pid,
                        Known {
                            record,
                            child: None,
                        },
                    );
                }
                _ => remove(&path),
            }
        }
        let agents = Mutex::new(Agents { known, reserved: 0 });
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
            agents,
        })
    }

    fn agents(&self) -> MutexGuard<'_, Agents> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, pid: u32) -> PathBuf {
        self.folder.join(format!("{pid}.json"))
    }

    /// Takes a place for an agent that is about to be started.
    ///
    /// # Errors
    /// `Limit` (`mover.agent.too-many`).
    pub fn reserve(&self, most: usize) -> Result<Place<'_>> {
        self.look();
        let mut agents = self.agents();
        if agents.known.len() + agents.reserved >= most {
            return Err(Error::new(
                Kind::Limit,
                "mover.agent.too-many",
                format!("{most} agents run on this host already"),
            )
            .hint("run fewer tasks at once on this host"));
        }
        agents.reserved += 1;
        Ok(Place { roster: self })
    }

    /// Forgets agents that have ended.
    pub fn look(&self) {
        let mut agents = self.agents();
        let mut gone = Vec::new();
        for (pid, known) in &mut agents.known {
            if let Some(child) = &mut known.child {
                // Takes its exit status, without which it would stay a zombie.
                drop(child.try_wait());
            }
            if !known.record.process.is_alive() {
                gone.push(*pid);
            }
        }
        for pid in gone {
            agents.known.remove(&pid);
            remove(&self.path(pid));
        }
    }

    /// The agents of a session, or all.
    pub fn list(&self, session: Option<SessionId>) -> Vec<RunningAgent> {
        self.look();
        let agents = self.agents();
        let records = agents.known.values().map(|known| &known.record);
        records
            .filter(|record| session.is_none_or(|session| session == record.session))
            .map(Record::running)
            .collect()
    }

    /// Ends all agents of a session and waits until they are gone: asked first, killed where they
    /// do not end. How many there were.
    ///
    /// # Errors
    /// `Timeout` (`mover.agent.unkillable`) where the kernel does not let one go.
    pub fn stop(&self, session: SessionId) -> Result<u32> {
        let marks: Vec<ProcessMark> = {
            let agents = self.agents();
            let records = agents.known.values().map(|known| &known.record);
            let of_session = records.filter(|record| record.session == session);
            of_session.map(|record| record.process.clone()).collect()
        };
        marks.iter().for_each(|mark| mark.signal(Signal::TERM));
        let mut stuck = None;
        for mark in &marks {
            if !mark.wait(TERM_PATIENCE) {
                tracing::warn!(
                    pid = mark.pid,
                    "an agent does not end when asked; killing it"
                );
                mark.kill_group();
                if !mark.wait(KILL_PATIENCE) {
                    stuck = Some(mark.pid);
                }
            }
        }
        self.look();
        match stuck {
            None => Ok(u32::try_from(marks.len()).unwrap_or(u32::MAX)),
            Some(pid) => Err(Error::new(
                Kind::Timeout,
                "mover.agent.unkillable",
                format!("the agent with process {pid} was killed but is not gone"),
            )
            .hint("it waits for a disk that does not answer; look at that disk")),
        }
    }
}

impl Place<'_> {
    /// Records the agent that was started.
    ///
    /// # Errors
    /// Of the state folder; the agent is ended then, for nobody would find it again.
    pub fn fill(self, agent: RunningAgent, mut child: Child) -> Result<()> {
        let recorded = ProcessMark::of(agent.pid).and_then(|process| {
            let RunningAgent {
                address,
                session,
                purpose,
                ..
            } = agent;
            let record = Record {
                process,
                address,
                session,
                purpose,
            };
            write_record(&self.roster.path(record.process.pid), &record)?;
            Ok(record)
        });
        match recorded {
            Ok(record) => {
                let known = Known {
                    record,
                    child: Some(child),
                };
                self.roster
                    .agents()
                    .known
                    .insert(known.record.process.pid, known);
                Ok(())
            }
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                Err(error)
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut agents = self.roster.agents();
        agents.reserved = agents.reserved.saturating_sub(1);
    }
}

/// Takes a lock that falls with the process. A service that is ending is waited for.
fn lock(path: &Path) -> Result<File> {
    let doing = |error| Error::io(format!("locking {}", path.display()), error);
    let open = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = open.map_err(doing)?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(Errno::WOULDBLOCK) => {
                let text = format!("another mover service holds {}", path.display());
                return Err(Error::new(Kind::Conflict, "mover.service.second", text)
                    .hint("end that one first, or give this one another --state"));
            }
            Err(error) => return Err(doing(error.into())),
        }
    }
}

fn read_record(path: &Path) -> Option<Record> {
    let length = std::fs::metadata(path).ok()?.len();
    if length > RECORD_LENGTH_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Written beside and renamed, so that a crash leaves no half record. Not synced: after a power cut
/// the processes are gone too.
fn write_record(path: &Path, record: &Record) -> Result<()> {
    let doing = |error| Error::io(format!("writing {}", path.display()), error);
    let bytes = serde_json::to_vec(record).map_err(|error| doing(error.into()))?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).map_err(doing)?;
    std::fs::rename(&beside, path).map_err(doing)
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("removing {}: {error}", path.display());
    }
}
