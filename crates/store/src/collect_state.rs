//! The state of collection: which packs are retired (format page, section "Collection").
//!
//! Knows: the record `collect/<generation>`, of which the highest counts.
//! Refuses to know: why a pack was retired.

use crate::id::PackId;
use crate::key::KeySet;
use crate::layout::{self, Content};
use crate::limit::RECORD_SIZE_MAX;
use crate::record::{self, Binding, RecordKind};
use crate::seal::Cipher;
use base::files::{Files, Path, read_all};
use base::id::RepositoryId;
use base::{Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// A pack that no new tree may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Retired {
    pub(crate) pack: PackId,
    /// Whether it is a pack of tree nodes.
    pub(crate) tree: bool,
    /// The generation that retired it: writers that saw it do not use the pack.
    pub(crate) since: u64,
}

impl Retired {
    pub(crate) const fn content(&self) -> Content {
        if self.tree {
            Content::Tree
        } else {
            Content::Data
        }
    }
}

/// A state of collection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CollectState {
    /// Rises with every state.
    pub(crate) generation: u64,
    pub(crate) retired: Vec<Retired>,
}

impl CollectState {
    pub(crate) fn packs(&self) -> HashSet<PackId> {
        self.retired.iter().map(|retired| retired.pack).collect()
    }
}

fn binding(repository: RepositoryId, generation: u64) -> Binding {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&generation.to_le_bytes());
    Binding {
        kind: RecordKind::Collect,
        repository,
        name,
    }
}

/// Generations that have a state, in order.
pub(crate) fn generations(files: &dyn Files) -> Result<Vec<u64>> {
    let entries = match files.list(&Path::new("collect")?) {
        // A copy of a repository may lack folders that were empty.
        Err(error) if error.kind() == Kind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    Ok(entries
        .iter()
        .filter_map(|entry| entry.name.parse().ok())
        .collect())
}

/// The state in force. A repository that was never collected has generation 0.
///
/// A damaged state is an error: writers must not use packs that are about to go.
pub(crate) fn read(
    files: &dyn Files,
    repository: RepositoryId,
    keys: &KeySet,
    cipher: Cipher,
) -> Result<CollectState> {
    loop {
        let Some(generation) = generations(files)?.last().copied() else {
            return Ok(CollectState::default());
        };
        match read_all(files, &layout::collect_state(generation)?, RECORD_SIZE_MAX) {
            Ok(bytes) => {
                let state: CollectState =
                    record::read(&bytes, binding(repository, generation), keys, cipher)?;
                return Ok(state);
            }
            // Superseded between listing and reading.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// The bytes of a state's record.
pub(crate) fn bytes(
    state: &CollectState,
    repository: RepositoryId,
    keys: &KeySet,
    cipher: Cipher,
    random: &dyn base::random::Random,
) -> Result<Vec<u8>> {
    record::write(
        state,
        binding(repository, state.generation),
        keys,
        cipher,
        random,
    )
}
