//! A process's door to a simulated disk.
//!
//! Knows: each deed of [`Files`] as the real folder does it, with the errors it would give.
//! Refuses to know: what a crash leaves; the tree knows.

use super::tree::{Errno, NodeId};
use super::{Call, Event, Fault, Gate, SimDisk, State};
use base::files::{Entry, FileLock, FileRead, FileWrite, Files, Path, Space};
use base::size::{ByteCount, ByteOffset};
use base::{Error, Kind, Result};
use std::sync::Arc;

/// What `space` answers where no quota is set.
const ROOMY: u64 = 1 << 40;

/// A process's door to a [`SimDisk`].
#[derive(Clone)]
pub struct SimFiles {
    disk: SimDisk,
    process: u64,
    gate: Option<Arc<dyn Gate>>,
}

/// What a call touches, for the log and for faults.
struct Doing<'a> {
    call: Call,
    path: &'a Path,
    to: Option<&'a Path>,
    /// Bytes that are written.
    bytes: &'a [u8],
    /// Bytes that are read.
    reads: usize,
}

impl<'a> Doing<'a> {
    const fn new(call: Call, path: &'a Path) -> Self {
        Self {
            call,
            path,
            to: None,
            bytes: &[],
            reads: 0,
        }
    }

    fn failed(&self, errno: Errno) -> Error {
        let cause = std::io::Error::from_raw_os_error(errno as i32);
        Error::io(format!("{} of {}", self.call, self.path), cause)
    }
}

impl SimFiles {
    pub(super) const fn new(disk: SimDisk, process: u64, gate: Option<Arc<dyn Gate>>) -> Self {
        Self {
            disk,
            process,
            gate,
        }
    }

    /// The number of the process, for [`SimDisk::kill`] and [`super::Injection::by`].
    pub const fn process(&self) -> u64 {
        self.process
    }

    /// Ends the process, as a program does that has returned from `main`.
    pub fn end(&self) {
        self.disk.kill(self.process);
    }

    /// One call: waits for its turn, strikes faults, does the deed, logs.
    fn call<T>(
        &self,
        doing: &Doing<'_>,
        deed: impl FnOnce(&mut State, Option<Fault>) -> Result<T, Errno>,
    ) -> Result<T> {
        if let Some(gate) = &self.gate {
            gate.pass(doing.call);
        }
        let mut state = self.disk.state();
        let state = &mut *state;
        let alive = |state: &State| state.processes.get(&self.process) == Some(&true);
        if !alive(state) {
            return Err(killed());
        }
        if doing.call.changes() && state.moments.is_some() {
            let moment = state.moment();
            if let Some(moments) = &mut state.moments {
                moments.push(moment);
            }
        }
        let fault = state
            .faults
            .strike(doing.call, doing.path.as_str(), self.process);
        let result = match fault {
            Some(Fault::Kill) => {
                state.kill(self.process);
                return Err(killed());
            }
            Some(Fault::LoseLocks) => {
                state.locks.retain(|_, (holder, _)| *holder != self.process);
                deed(state, None)
            }
            Some(Fault::Io) if doing.call != Call::Sync => Err(Errno::Io),
            Some(Fault::Full) if !matches!(doing.call, Call::Sync | Call::Append) => {
                Err(Errno::Full)
            }
            Some(Fault::IoAfter) => deed(state, fault).and(Err(Errno::Io)),
            _ => deed(state, fault),
        };
        let result = result.map_err(|errno| doing.failed(errno));
        state.log.push(
            self.event(state.log.count(), doing, result.as_ref().err()),
            doing.bytes,
        );
        result
    }

    fn event(&self, number: u64, doing: &Doing<'_>, error: Option<&Error>) -> Event {
        Event {
            number,
            process: Some(self.process),
            call: Some(doing.call),
            path: doing.path.as_str().to_owned(),
            to: doing.to.map(|to| to.as_str().to_owned()),
            amount: doing.bytes.len() + doing.reads,
            failed: error.map(|error| error.code().to_owned()),
        }
    }

    fn rename(&self, call: Call, from: &Path, to: &Path) -> Result<()> {
        let doing = Doing {
            to: Some(to),
            ..Doing::new(call, from)
        };
        self.call(&doing, |state, _| {
            let replacing = call == Call::Replace || state.lies(call, to);
            state.tree.rename(from, to, replacing)
        })
    }
}

fn killed() -> Error {
    Error::new(
        Kind::Io,
        "sim.process.killed",
        "the simulated process is dead",
    )
}

impl State {
    fn lies(&self, call: Call, path: &Path) -> bool {
        self.broken.iter().any(|broken| broken.breaks(call, path))
    }

    fn need_room(&self, length: u64) -> Result<(), Errno> {
        match self.quota {
            Some(quota) if self.tree.used().saturating_add(length) > quota => Err(Errno::Full),
            _ => Ok(()),
        }
    }

    /// Appends; on faults and where the disk is full only a part.
    fn append(&mut self, node: NodeId, bytes: &[u8], fault: Option<Fault>) -> Result<(), Errno> {
        let half = &bytes[..bytes.len() / 2];
        match fault {
            Some(Fault::Short) => {
                self.tree.file_mut(node)?.append(half, false);
                return Err(Errno::Io);
            }
            Some(Fault::Full) => {
                self.tree.file_mut(node)?.append(half, false);
                return Err(Errno::Full);
            }
            _ => {}
        }
        if let Some(quota) = self.quota {
            let length = self.tree.file(node)?.length();
            // What the last sector of the file still has is free of charge.
            let slack = length.next_multiple_of(512) - length;
            let room = quota.saturating_sub(self.tree.used()) / 512 * 512 + slack;
            if room < bytes.len() as u64 {
                let fits = usize::try_from(room).unwrap_or(0);
                self.tree.file_mut(node)?.append(&bytes[..fits], false);
                return Err(Errno::Full);
            }
        }
        self.tree
            .file_mut(node)?
            .append(bytes, fault == Some(Fault::Phantom));
        Ok(())
    }
}

impl Files for SimFiles {
    fn create(&self, path: &Path) -> Result<Box<dyn FileWrite>> {
        let node = self.call(&Doing::new(Call::Create, path), |state, _| {
            state.need_room(0)?;
            state.tree.create(path)
        })?;
        Ok(Box::new(SimFileWrite {
            files: self.clone(),
            node,
            path: path.clone(),
        }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn FileRead>> {
        let node = self.call(&Doing::new(Call::Open, path), |state, _| {
            let node = state.tree.find(path)?;
            state.tree.file(node).map(|_| node)
        })?;
        Ok(Arc::new(SimFileRead {
            files: self.clone(),
            node,
            path: path.clone(),
        }))
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<()> {
        self.rename(Call::Publish, from, to)
    }

    fn replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.rename(Call::Replace, from, to)
    }

    fn rename_folder(&self, from: &Path, to: &Path) -> Result<()> {
        self.rename(Call::RenameFolder, from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.call(&Doing::new(Call::Remove, path), |state, _| {
            if state.lies(Call::Remove, path) {
                Ok(())
            } else {
                state.tree.remove(path, false)
            }
        })
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        self.call(&Doing::new(Call::MakeFolder, path), |state, _| {
            if state.tree.find(path).is_err() {
                state.need_room(512)?;
            }
            state.tree.make_folder(path)
        })
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        self.call(&Doing::new(Call::RemoveFolder, path), |state, _| {
            state.tree.remove(path, true)
        })
    }

    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        self.call(&Doing::new(Call::List, folder), |state, _| {
            let mut entries = state.tree.list(folder)?;
            if state.lies(Call::List, folder) {
                entries.clear();
            }
            Ok(entries)
        })
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.call(&Doing::new(Call::SyncFolder, folder), |state, _| {
            if state.lies(Call::SyncFolder, folder) {
                return state.tree.list(folder).map(|_| ());
            }
            state.tree.sync_folder(folder)
        })
    }

    fn space(&self) -> Result<Space> {
        self.call(&Doing::new(Call::Space, &Path::root()), |state, _| {
            let total = state.quota.unwrap_or(ROOMY);
            let free = total.saturating_sub(state.tree.used());
            Ok(Space {
                total: ByteCount(total),
                free: ByteCount(free),
            })
        })
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn FileLock>>> {
        let process = self.process;
        let held = self.call(&Doing::new(Call::Lock, path), |state, _| {
            let node = match state.tree.find(path) {
                Ok(node) => node,
                Err(Errno::NotFound) => {
                    state.need_room(0)?;
                    state.tree.create(path)?
                }
                Err(other) => return Err(other),
            };
            state.tree.file(node)?;
            if state.locks.contains_key(&node) && !state.lies(Call::Lock, path) {
                return Ok(None);
            }
            state.lockings += 1;
            state.locks.insert(node, (process, state.lockings));
            Ok(Some((node, state.lockings)))
        })?;
        Ok(held.map(|(node, number)| {
            let disk = self.disk.clone();
            Box::new(SimFileLock { disk, node, number }) as Box<dyn FileLock>
        }))
    }
}

struct SimFileRead {
    files: SimFiles,
    node: NodeId,
    path: Path,
}

impl FileRead for SimFileRead {
    fn length(&self) -> Result<ByteCount> {
        self.files
            .call(&Doing::new(Call::Length, &self.path), |state, _| {
                Ok(ByteCount(state.tree.file(self.node)?.length()))
            })
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let doing = Doing {
            reads: buffer.len(),
            ..Doing::new(Call::Read, &self.path)
        };
        let all = self.files.call(&doing, |state, fault| {
            let bytes = state.tree.file(self.node)?.bytes();
            let found = usize::try_from(offset.0)
                .ok()
                .and_then(|start| bytes.get(start..start.checked_add(buffer.len())?));
            if let (Some(found), false) = (found, fault == Some(Fault::Short)) {
                buffer.copy_from_slice(found);
                return Ok(true);
            }
            Ok(false)
        })?;
        if all {
            Ok(())
        } else {
            let message = format!("reading {}: the file is too short", self.path);
            Err(Error::corrupt("base.files.short", message))
        }
    }
}

struct SimFileWrite {
    files: SimFiles,
    node: NodeId,
    path: Path,
}

impl FileWrite for SimFileWrite {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let doing = Doing {
            bytes,
            ..Doing::new(Call::Append, &self.path)
        };
        self.files
            .call(&doing, |state, fault| state.append(self.node, bytes, fault))
    }

    fn sync(&mut self) -> Result<()> {
        self.files
            .call(&Doing::new(Call::Sync, &self.path), |state, fault| {
                let lies = state.lies(Call::Sync, &self.path);
                let content = state.tree.file_mut(self.node)?;
                match fault {
                    Some(Fault::Io) => {
                        content.fail_sync();
                        Err(Errno::Io)
                    }
                    Some(Fault::Full) => {
                        content.fail_sync();
                        Err(Errno::Full)
                    }
                    _ if lies => Ok(()),
                    _ => {
                        content.sync();
                        Ok(())
                    }
                }
            })
    }
}

struct SimFileLock {
    disk: SimDisk,
    node: NodeId,
    number: u64,
}

impl FileLock for SimFileLock {}

impl Drop for SimFileLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state
            .locks
            .get(&self.node)
            .is_some_and(|(_, number)| *number == self.number)
        {
            state.locks.remove(&self.node);
        }
    }
}
