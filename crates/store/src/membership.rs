//! Who writes and who reads at the moment (format page, section "Writers and readers").
//!
//! Knows: a folder with a lock file for each, held for the life of the process; pins, which are
//! empty files in it named after roots. A lock that can be taken proves its holder dead; no clock
//! is asked and nothing ever goes stale.
//! Refuses to know: what is written or read.

use crate::id::Root;
use crate::publish::{remove_if_there, write_synced};
use base::files::{FileLock, Files, Path};
use base::id::WriterId;
use base::{Error, Kind, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Name of the lock in a member's folder.
pub(crate) const LOCK: &str = "lock";
/// Name of a writer's state: the generation of collection it started with.
pub(crate) const STATE: &str = "state";
/// What the name of a pin begins with; the root follows.
pub(crate) const PIN: &str = "pin-";

/// One's own folder while one writes or reads.
pub(crate) struct Membership {
    files: Arc<dyn Files>,
    pub(crate) id: WriterId,
    pub(crate) folder: Path,
    lock: Mutex<Option<Box<dyn FileLock>>>,
    /// Roots pinned, and how many times.
    pins: Mutex<HashMap<Root, u32>>,
}

impl Membership {
    /// Joins: makes a folder of one's own below `parent` and locks it.
    pub(crate) fn join(
        files: &Arc<dyn Files>,
        parent: &str,
        environment: &crate::Environment,
    ) -> Result<Self> {
        // A collector may find the folder before we have locked it, and take us for dead: then we
        // begin anew under another id.
        for _ in 0..16 {
            let id = WriterId::generate(&*environment.clock, &*environment.random);
            let folder = Path::new(format!("{parent}/{id}"))?;
            files.make_folder(&folder)?;
            match files.try_lock(&folder.join(LOCK)?) {
                Ok(Some(lock)) => {
                    return Ok(Self {
                        files: Arc::clone(files),
                        id,
                        folder,
                        lock: Mutex::new(Some(lock)),
                        pins: Mutex::default(),
                    });
                }
                Ok(None) => {}
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => {
                    let _ = files.remove_folder(&folder);
                    return Err(error);
                }
            }
        }
        Err(Error::new(
            Kind::Conflict,
            "store.member.crowded",
            "could not join the repository",
        )
        .hint("try again"))
    }

    /// A path in one's own folder.
    pub(crate) fn path(&self, name: &str) -> Result<Path> {
        self.folder.join(name)
    }

    /// Writes down the generation of collection one has seen.
    pub(crate) fn note_generation(&self, generation: u64) -> Result<()> {
        write_synced(
            &*self.files,
            &self.path(STATE)?,
            generation.to_string().as_bytes(),
        )
    }

    /// Pins a root. Pinned before anybody checks that it is still in use, so a collector that does
    /// not see the pin has not been overtaken.
    pub(crate) fn pin(&self, root: Root) -> Result<()> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let count = pins.entry(root).or_insert(0);
        if *count == 0
            && let Err(error) = self.files.create(&self.path(&format!("{PIN}{root}"))?)
        {
            pins.remove(&root);
            return Err(error);
        }
        *pins.entry(root).or_insert(0) += 1;
        Ok(())
    }

    /// Whether one has pinned this root.
    pub(crate) fn has_pin(&self, root: &Root) -> bool {
        self.pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(root)
    }

    /// Takes a pin back.
    pub(crate) fn unpin(&self, root: &Root) -> Result<()> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        match pins.get_mut(root) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                pins.remove(root);
                remove_if_there(&*self.files, &self.path(&format!("{PIN}{root}"))?)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Leaves: removes the folder. What cannot be removed a collector will.
    pub(crate) fn leave(&self) -> Result<()> {
        let Some(lock) = self
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return Ok(());
        };
        let cleared = clear_folder(&*self.files, &self.folder);
        drop(lock);
        cleared
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// Removes a member's folder and all in it, the lock last.
pub(crate) fn clear_folder(files: &dyn Files, folder: &Path) -> Result<()> {
    let entries = match files.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.iter().filter(|entry| entry.name != LOCK) {
        remove_if_there(files, &folder.join(&entry.name)?)?;
    }
    remove_if_there(files, &folder.join(LOCK)?)?;
    // A collector that looks at the lock right now makes it anew, and then removes the folder.
    let _ = files.remove_folder(folder);
    Ok(())
}
