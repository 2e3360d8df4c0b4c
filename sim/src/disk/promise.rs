//! Promises of the `Files` door that a test breaks on purpose.
//!
//! Knows: which calls say yes and do nothing. A checker that is not shown a broken promise, and does
//! not cry, proves nothing. Refuses to know: which oracle should find it.

use super::Call;
use base::files::Path;

/// One promise that is not kept.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The kind of call that says yes and does nothing: `Sync`, `SyncFolder`, `Remove`. A `List`
    /// that lies is empty, a `Lock` that lies is given to everybody, a `Publish` that lies replaces
    /// what has the name.
    pub call: Call,
    /// On which paths.
    pub on: On,
}

/// Paths on which a promise is broken.
#[derive(Clone, Debug)]
pub enum On {
    /// This path alone.
    Only(String),
    /// Paths that start so.
    Below(String),
    /// Paths that contain this.
    With(String),
}

impl Broken {
    /// `call` lies on this path alone.
    pub fn only(call: Call, path: &str) -> Self {
        Self {
            call,
            on: On::Only(path.to_owned()),
        }
    }

    /// `call` lies on paths that start so.
    pub fn below(call: Call, start: &str) -> Self {
        Self {
            call,
            on: On::Below(start.to_owned()),
        }
    }

    /// `call` lies on paths that contain this.
    pub fn with(call: Call, part: &str) -> Self {
        Self {
            call,
            on: On::With(part.to_owned()),
        }
    }

    /// Whether this call is one that lies.
    pub(super) fn breaks(&self, call: Call, path: &Path) -> bool {
        let path = path.as_str();
        self.call == call
            && match &self.on {
                On::Only(text) => path == text,
                On::Below(text) => path.starts_with(text.as_str()),
                On::With(text) => path.contains(text.as_str()),
            }
    }
}
