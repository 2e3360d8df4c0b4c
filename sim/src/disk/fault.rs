//! What can go wrong, and when.
//!
//! Knows: the kinds of calls, the menu of faults, and which call each strikes.
//! Refuses to know: why a test wants it.

use base::random::SeededRandom;
use std::fmt;

/// A kind of call of the `Files` door and of the files behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Call {
    Create,
    Open,
    Length,
    Read,
    Append,
    Sync,
    Publish,
    Replace,
    RenameFolder,
    Remove,
    MakeFolder,
    RemoveFolder,
    List,
    SyncFolder,
    Space,
    Lock,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Create,
        Self::Open,
        Self::Length,
        Self::Read,
        Self::Append,
        Self::Sync,
        Self::Publish,
        Self::Replace,
        Self::RenameFolder,
        Self::Remove,
        Self::MakeFolder,
        Self::RemoveFolder,
        Self::List,
        Self::SyncFolder,
        Self::Space,
        Self::Lock,
    ];

    /// Whether the call may change what a crash would find.
    pub const fn changes(self) -> bool {
        !matches!(
            self,
            Self::Open | Self::Length | Self::Read | Self::List | Self::Space
        )
    }

    /// Whether other processes can see that the call was made, or it sees what they did: between
    /// two calls that are not, an interleaving makes no difference.
    pub const fn is_shared(self) -> bool {
        !matches!(
            self,
            Self::Length | Self::Read | Self::Append | Self::Sync | Self::Space
        )
    }

    /// Whether the call needs room on the disk.
    pub const fn needs_room(self) -> bool {
        matches!(
            self,
            Self::Create | Self::Append | Self::MakeFolder | Self::Lock
        )
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The call fails with an input/output error and does nothing. A sync that fails so has marked
    /// the pages clean without writing them.
    Io,
    /// The call is done, and fails with an input/output error all the same (a lost answer).
    IoAfter,
    /// No space left. An append may have written a part.
    Full,
    /// An append that writes half and fails; a read that ends early.
    Short,
    /// An append that says yes, is seen by readers, and never reaches the disk.
    Phantom,
    /// The process ends here, before the call.
    Kill,
    /// The system lets go of all locks of the process, which lives on (a network file system that
    /// lost its lease, a machine that was suspended).
    LoseLocks,
}

/// A fault and when it strikes.
#[derive(Clone, Debug)]
pub struct Injection {
    /// The kinds of calls that count; empty means all.
    pub calls: Vec<Call>,
    /// Only calls on paths that contain this text count; empty means all.
    pub path: String,
    /// Only calls of this process count.
    pub process: Option<u64>,
    /// Strikes when this many calls have been counted and passed.
    pub after: u64,
    /// Strikes at every later call too.
    pub lasting: bool,
    /// What goes wrong.
    pub fault: Fault,
}

impl Injection {
    /// A fault at the call number `after` (from 0) of any kind.
    pub fn at(after: u64, fault: Fault) -> Self {
        Self {
            calls: Vec::new(),
            path: String::new(),
            process: None,
            after,
            lasting: false,
            fault,
        }
    }

    /// The same for these kinds of calls only.
    #[must_use]
    pub fn of(mut self, calls: &[Call]) -> Self {
        self.calls = calls.to_vec();
        self
    }

    /// The same for paths that contain `text` only.
    #[must_use]
    pub fn on(mut self, text: &str) -> Self {
        text.clone_into(&mut self.path);
        self
    }

    /// The same for one process only.
    #[must_use]
    pub fn by(mut self, process: u64) -> Self {
        self.process = Some(process);
        self
    }

    /// The same, from that call on for ever.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }
}

/// All faults that wait for their call.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<(Injection, u64)>,
    rates: Vec<(Vec<Call>, u64, Fault, SeededRandom)>,
    /// How many have struck.
    pub(super) struck: u64,
}

impl Faults {
    pub(super) fn add(&mut self, injection: Injection) {
        self.waiting.push((injection, 0));
    }

    /// Strikes one call of these kinds in `one_in`, at random.
    pub(super) fn add_rate(&mut self, calls: &[Call], one_in: u64, fault: Fault, seed: u64) {
        self.rates
            .push((calls.to_vec(), one_in, fault, SeededRandom::new(seed)));
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.rates.clear();
    }

    /// The fault that strikes this call, if any.
    pub(super) fn strike(&mut self, call: Call, path: &str, process: u64) -> Option<Fault> {
        let mut struck = None;
        for (injection, seen) in &mut self.waiting {
            let counts = (injection.calls.is_empty() || injection.calls.contains(&call))
                && path.contains(injection.path.as_str())
                && injection.process.is_none_or(|only| only == process);
            if counts {
                let now =
                    *seen == injection.after || (injection.lasting && *seen > injection.after);
                *seen += 1;
                if now && struck.is_none() {
                    struck = Some(injection.fault);
                }
            }
        }
        for (calls, one_in, fault, random) in &self.rates {
            if struck.is_none() && calls.contains(&call) && random.one_in(*one_in) {
                struck = Some(*fault);
            }
        }
        self.struck += u64::from(struck.is_some());
        struck
    }
}
