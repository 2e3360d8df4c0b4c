//! Where a repository is and what it says of itself.
//!
//! Knows: location, options at creation, summary. Refuses to know: what is inside its files.

use super::secret::Secret;
use base::clock::Timestamp;
use base::id::RepositoryId;
use base::size::ByteCount;
use serde::{Deserialize, Serialize};

/// Where a repository's files are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepositoryLocation {
    /// A folder of the host that the agent runs on.
    Folder {
        /// Absolute path.
        path: String,
    },
}

impl std::fmt::Display for RepositoryLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder { path } => f.write_str(path),
        }
    }
}

/// A repository and the key to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepositoryAccess {
    /// Where it is.
    pub location: RepositoryLocation,
    /// The password; none for a repository without encryption.
    pub password: Option<Secret>,
}

/// How a repository compresses what is new to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd level 1.
    #[default]
    Fast,
    /// zstd level 3.
    Balanced,
    /// zstd level 9.
    High,
}

/// What a person may choose when a repository is made.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct RepositoryOptions {
    /// Seal all data with a key that the password opens.
    pub encrypted: bool,
    /// Default for new points.
    pub compression: Compression,
}

/// What a repository says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepositorySummary {
    /// Its id, the same wherever it is moved.
    pub id: RepositoryId,
    /// Version of its format.
    pub format_version: u32,
    /// Whether its data is sealed.
    pub encrypted: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Room of the file system it is on.
    pub capacity: ByteCount,
    /// Of this, what is free.
    pub free: ByteCount,
    /// How many restore points it lists.
    pub points: u64,
    /// Bytes of packs.
    pub stored: ByteCount,
    /// Points whose record cannot be read, by file name, with the reason.
    pub damaged_points: Vec<(String, String)>,
}
