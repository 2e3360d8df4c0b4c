//! The names of things in a repository: digests that do not mix.
//!
//! Knows: that a block's id is not a pack's id, although both are 256 bits.
//! Refuses to know: which function makes them; `cut` and `pack` say that.

use base::Result;
use base::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! digests {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(Digest(bytes))
            }

            /// Its 32 bytes.
            pub const fn bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.short())
            }
        }

        impl FromStr for $name {
            type Err = base::Error;
            fn from_str(text: &str) -> Result<Self> {
                text.parse().map(Self)
            }
        }
    )*};
}

digests! {
    /// The id of a block: BLAKE3 of its bytes, keyed with a key of the repository.
    BlockId;
    /// The id of a disk's or file's content: the id of the root record of its tree. Canonical:
    /// equal content (and size) has an equal root, however it came into the repository.
    Root;
    /// The id of a pack: plain BLAKE3 of the pack's bytes.
    PackId;
    /// The id of an index segment: plain BLAKE3 of the segment's bytes.
    SegmentId;
}

impl Root {
    /// The root record as a block.
    pub const fn block(&self) -> BlockId {
        BlockId(self.0)
    }
}
