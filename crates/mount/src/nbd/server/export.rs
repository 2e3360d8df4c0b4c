//! Disks under names.
//!
//! Knows: what clients may do with an export and what it tells of itself.
//! Refuses to know: who is connected.

use super::super::client::{BASE_ALLOCATION, StatusRun};
use super::super::wire::{
    CONTEXTS_MAX, FLAG_CAN_MULTI_CONN, FLAG_HAS_FLAGS, FLAG_READ_ONLY, FLAG_SEND_DF,
    FLAG_SEND_FLUSH, FLAG_SEND_FUA, FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES, PAYLOAD_MAX,
    STRING_MAX,
};
use base::block::{BlockRead, BlockWrite};
use base::size::ByteRange;
use base::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The status of a disk in a context of its own, for example which blocks changed.
pub trait StatusSource: Send + Sync {
    /// Runs of `range` in order, from its start, without gaps. May end early, but not before the
    /// first byte.
    fn status(&self, range: ByteRange) -> Result<Vec<StatusRun>>;
}

/// A disk as clients see it.
#[derive(Clone)]
pub struct Export {
    pub(super) read: Arc<dyn BlockRead>,
    pub(super) write: Option<Arc<dyn BlockWrite>>,
    pub(super) description: String,
    pub(super) preferred: u32,
    /// Further contexts by name. `base:allocation` is always there.
    pub(super) contexts: Vec<(String, Arc<dyn StatusSource>)>,
}

impl Export {
    /// A disk that clients may only read.
    pub fn read_only(disk: Arc<dyn BlockRead>) -> Self {
        Self {
            read: disk,
            write: None,
            description: String::new(),
            preferred: 4096,
            contexts: Vec::new(),
        }
    }

    /// A disk that clients may write.
    pub fn writable(disk: Arc<dyn BlockWrite>) -> Self {
        let read: Arc<dyn BlockRead> = Arc::clone(&disk) as Arc<dyn BlockRead>;
        Self {
            write: Some(disk),
            ..Self::read_only(read)
        }
    }

    /// A text for people, shown in lists. Cut to the protocol's longest string.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        let end = self.description.floor_char_boundary(STRING_MAX);
        self.description.truncate(end);
        self
    }

    /// The block size that makes the fewest reads behind the disk: rounded to a power of two
    /// between 512 bytes and 1 MiB.
    #[must_use]
    pub fn preferred_block(mut self, bytes: u32) -> Self {
        self.preferred = bytes.clamp(512, 1 << 20).next_power_of_two();
        self
    }

    /// A further context, for example `qemu:dirty-bitmap:NAME`.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, source: Arc<dyn StatusSource>) -> Self {
        self.contexts.push((name.into(), source));
        self
    }

    /// Names of all contexts; a context's id is its place.
    pub(super) fn context_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(BASE_ALLOCATION).chain(self.contexts.iter().map(|(name, _)| name.as_str()))
    }

    /// The flags that tell clients what they may do.
    pub(super) fn transmission_flags(&self, structured: bool) -> u16 {
        // All connections reach the same disk without anything cached between.
        let mut flags = FLAG_HAS_FLAGS | FLAG_CAN_MULTI_CONN;
        if self.write.is_some() {
            flags |= FLAG_SEND_FLUSH | FLAG_SEND_FUA | FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES;
        } else {
            flags |= FLAG_READ_ONLY;
        }
        if structured {
            flags | FLAG_SEND_DF
        } else {
            flags
        }
    }

    /// Minimum, preferred and maximum block size.
    pub(super) fn block_sizes(&self) -> (u32, u32, u32) {
        (1, self.preferred, PAYLOAD_MAX)
    }
}

/// The exports of a server; may change while it runs. Clones share it.
#[derive(Clone, Default)]
pub struct ExportTable {
    exports: Arc<RwLock<BTreeMap<String, Export>>>,
}

impl ExportTable {
    /// No exports yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an export. The empty name is the default export.
    ///
    /// # Errors
    /// `Exists` where the name is taken; `Invalid` for a name or a context the protocol does not
    /// allow.
    pub fn add(&self, name: &str, export: Export) -> Result<()> {
        let unfit = |name: &str| name.len() > STRING_MAX || name.contains('\0');
        if unfit(name) || export.context_names().any(unfit) {
            return Err(Error::invalid(
                "mount.nbd-export.name-unfit",
                "the name of an NBD export or context is too long or holds a zero byte",
            ));
        }
        if export.context_names().count() > CONTEXTS_MAX {
            return Err(Error::new(
                Kind::Limit,
                "mount.nbd-export.contexts-too-many",
                format!("an NBD export has more than {CONTEXTS_MAX} metadata contexts"),
            ));
        }
        let mut exports = self.exports.write().unwrap_or_else(PoisonError::into_inner);
        if exports.contains_key(name) {
            return Err(Error::new(
                Kind::Exists,
                "mount.nbd-export.exists",
                format!("there is an NBD export \u{201c}{name}\u{201d} already"),
            ));
        }
        exports.insert(name.to_owned(), export);
        Ok(())
    }

    /// Takes an export away; false where it was not there. Connections that use it go on until
    /// they end.
    pub fn remove(&self, name: &str) -> bool {
        self.exports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name)
            .is_some()
    }

    pub(super) fn get(&self, name: &str) -> Option<Export> {
        self.exports
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Names and descriptions.
    pub(super) fn list(&self) -> Vec<(String, String)> {
        let exports = self.exports.read().unwrap_or_else(PoisonError::into_inner);
        exports
            .iter()
            .map(|(name, export)| (name.clone(), export.description.clone()))
            .collect()
    }
}
