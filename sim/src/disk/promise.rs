//! Promises of the `Files` door that a test breaks on purpose.
//!
//! Knows: which calls say yes and do nothing. A checker that is not shown a broken promise, and does
//! not cry, proves nothing. Refuses to know: which oracle should find it.

use super::Call;
use base::files::Path;

/// One promise that is not kept.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The kind of call that says yes and does nothing: `Sync`, `SyncFolder`, `Remove` ...; for
    /// `Lock` it is given to everybody, for `Publish` a taken name is replaced.
    pub call: Call,
    /// Only on paths that start with one of these; empty means all.
    pub starts: Vec<String>,
    /// And contain one of these; empty means all.
    pub contains: Vec<String>,
}

impl Broken {
    /// `call` lies on every path.
    pub fn always(call: Call) -> Self {
        Self {
            call,
            starts: Vec::new(),
            contains: Vec::new(),
        }
    }

    /// `call` lies on paths that start so.
    pub fn below(call: Call, start: &str) -> Self {
        Self {
            call,
            starts: vec![start.to_owned()],
            contains: Vec::new(),
        }
    }

    /// `call` lies on paths that contain this.
    pub fn on(call: Call, part: &str) -> Self {
        Self {
            call,
            starts: Vec::new(),
            contains: vec![part.to_owned()],
        }
    }

    /// Whether this call is one that lies.
    pub(super) fn breaks(&self, call: Call, path: &Path) -> bool {
        let path = path.as_str();
        let any = |list: &[String], fits: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|text| fits(text))
        };
        self.call == call
            && any(&self.starts, &|text| path.starts_with(text))
            && any(&self.contains, &|text| path.contains(text))
    }
}
