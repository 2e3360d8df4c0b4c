//! The names of a simulated disk: as processes see them now, and as a crash would find them.
//!
//! Knows: folders, files, and the list of changes of names that no sync has made durable yet.
//! Refuses to know: processes, locks, faults.
//!
//! Every change of names is one [`Change`], atomic in itself. Syncing a folder makes durable the
//! changes that touch it, and those that they stand on. A crash keeps any subset of the others, as
//! long as a kept change finds what it stands on: an earlier change of the same name or of the same
//! file. A rename is never half done.

use super::content::{Content, Fate};
use base::files::{Entry, Path};
use base::random::SeededRandom;
use base::size::ByteCount;
use std::collections::BTreeMap;

/// A file or folder, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct NodeId(u64);

pub(super) const ROOT: NodeId = NodeId(0);

/// Error numbers of the operating system, as the real folder would say them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Errno {
    NotFound = 2,
    Io = 5,
    Exists = 17,
    NotFolder = 20,
    IsFolder = 21,
    Invalid = 22,
    Full = 28,
    NotEmpty = 39,
}

/// Names in a folder.
type Names = BTreeMap<String, NodeId>;

#[derive(Clone, Debug)]
enum Node {
    Folder { now: Names, durable: Names },
    File(Content),
}

/// One atomic change of names.
#[derive(Clone, Debug)]
struct Change {
    node: NodeId,
    /// The name it loses.
    clear: Option<(NodeId, String)>,
    /// The name it gets.
    set: Option<(NodeId, String)>,
}

impl Change {
    fn names(&self) -> impl Iterator<Item = &(NodeId, String)> {
        self.clear.iter().chain(self.set.iter())
    }

    fn touches(&self, folder: NodeId) -> bool {
        self.names().any(|(at, _)| *at == folder)
    }

    /// Whether `self` cannot be durable without `earlier`.
    fn stands_on(&self, earlier: &Self) -> bool {
        self.node == earlier.node
            || self
                .names()
                .any(|name| earlier.names().any(|other| name == other))
    }
}

/// How a crash treats what is not durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Only processes died: all that was done is there.
    Everything,
    /// All that was not synced is gone.
    Nothing,
    /// All names are there, and none of the bytes that were not synced (the classic empty file).
    NamesOnly,
    /// All is there but this one change of names (counted from the oldest that is not durable), and
    /// what stands on it.
    AllBut(usize),
    /// A random subset of names; files torn at random.
    Random(u64),
}

/// A tree of names and files.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    pending: Vec<Change>,
    next: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node::Folder {
            now: Names::new(),
            durable: Names::new(),
        };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            pending: Vec::new(),
            next: 1,
        }
    }

    /// How many changes of names a crash may lose now.
    pub(super) fn pending_changes(&self) -> usize {
        self.pending.len()
    }

    fn names(&self, folder: NodeId) -> Result<&Names, Errno> {
        match self.nodes.get(&folder) {
            Some(Node::Folder { now, .. }) => Ok(now),
            Some(Node::File(_)) => Err(Errno::NotFolder),
            None => Err(Errno::NotFound),
        }
    }

    fn is_folder(&self, node: NodeId) -> bool {
        matches!(self.nodes.get(&node), Some(Node::Folder { .. }))
    }

    /// The node of a path.
    pub(super) fn find(&self, path: &Path) -> Result<NodeId, Errno> {
        let mut at = ROOT;
        for part in path.as_str().split('/').filter(|part| !part.is_empty()) {
            at = *self.names(at)?.get(part).ok_or(Errno::NotFound)?;
        }
        Ok(at)
    }

    /// The folder of a path, which must exist, and the last name.
    fn place(&self, path: &Path) -> Result<(NodeId, String), Errno> {
        if path.as_str().is_empty() {
            return Err(Errno::Invalid);
        }
        let folder = self.find(&path.folder())?;
        self.names(folder)?;
        Ok((folder, path.name().to_owned()))
    }

    pub(super) fn file(&self, node: NodeId) -> Result<&Content, Errno> {
        match self.nodes.get(&node) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Folder { .. }) => Err(Errno::IsFolder),
            None => Err(Errno::NotFound),
        }
    }

    pub(super) fn file_mut(&mut self, node: NodeId) -> Result<&mut Content, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Folder { .. }) => Err(Errno::IsFolder),
            None => Err(Errno::NotFound),
        }
    }

    fn change(&mut self, change: Change) {
        for (is_set, name) in [(false, &change.clear), (true, &change.set)] {
            let Some((folder, name)) = name else { continue };
            if let Some(Node::Folder { now, .. }) = self.nodes.get_mut(folder) {
                apply(now, name, change.node, is_set);
            }
        }
        self.pending.push(change);
    }

    fn add(&mut self, path: &Path, node: Node) -> Result<NodeId, Errno> {
        let (folder, name) = self.place(path)?;
        if self.names(folder)?.contains_key(&name) {
            return Err(Errno::Exists);
        }
        let id = NodeId(self.next);
        self.next += 1;
        self.nodes.insert(id, node);
        self.change(Change {
            node: id,
            clear: None,
            set: Some((folder, name)),
        });
        Ok(id)
    }

    pub(super) fn create(&mut self, path: &Path) -> Result<NodeId, Errno> {
        self.add(path, Node::File(Content::default()))
    }

    pub(super) fn make_folder(&mut self, path: &Path) -> Result<(), Errno> {
        let node = Node::Folder {
            now: Names::new(),
            durable: Names::new(),
        };
        match self.add(path, node) {
            Ok(_) | Err(Errno::Exists) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Moves a file or folder; onto a taken name only if `replacing`.
    pub(super) fn rename(&mut self, from: &Path, to: &Path, replacing: bool) -> Result<(), Errno> {
        let clear = self.place(from)?;
        let set = self.place(to)?;
        let node = *self.names(clear.0)?.get(&clear.1).ok_or(Errno::NotFound)?;
        if clear == set {
            return if replacing {
                Ok(())
            } else {
                Err(Errno::Exists)
            };
        }
        let taken = self.names(set.0)?.get(&set.1);
        if taken.is_some() && !replacing {
            return Err(Errno::Exists);
        }
        if self.is_folder(node) && to.as_str().starts_with(&format!("{from}/")) {
            return Err(Errno::Invalid);
        }
        if let Some(taken) = taken {
            match (self.is_folder(node), self.is_folder(*taken)) {
                (false, true) => return Err(Errno::IsFolder),
                (true, false) => return Err(Errno::NotFolder),
                (true, true) if !self.names(*taken)?.is_empty() => return Err(Errno::NotEmpty),
                _ => {}
            }
        }
        if clear != set {
            self.change(Change {
                node,
                clear: Some(clear),
                set: Some(set),
            });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, folder_wanted: bool) -> Result<(), Errno> {
        let clear = self.place(path)?;
        let node = *self.names(clear.0)?.get(&clear.1).ok_or(Errno::NotFound)?;
        match (self.is_folder(node), folder_wanted) {
            (true, false) => return Err(Errno::IsFolder),
            (false, true) => return Err(Errno::NotFolder),
            (true, true) if !self.names(node)?.is_empty() => return Err(Errno::NotEmpty),
            _ => {}
        }
        self.change(Change {
            node,
            clear: Some(clear),
            set: None,
        });
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<Entry>, Errno> {
        let names = self.names(self.find(path)?)?;
        let entry = |(name, node): (&String, &NodeId)| Entry {
            name: name.clone(),
            is_folder: self.is_folder(*node),
            length: ByteCount(self.file(*node).map_or(0, Content::length)),
        };
        Ok(names.iter().map(entry).collect())
    }

    /// Makes durable all changes that touch `folder`, and those that they stand on.
    pub(super) fn sync_folder(&mut self, path: &Path) -> Result<(), Errno> {
        let folder = self.find(path)?;
        self.names(folder)?;
        let mut needed: Vec<bool> = self.pending.iter().map(|c| c.touches(folder)).collect();
        for later in (0..self.pending.len()).rev().filter(|i| *i > 0) {
            if needed[later] {
                for (needed, earlier) in needed.iter_mut().zip(&self.pending[..later]) {
                    *needed |= self.pending[later].stands_on(earlier);
                }
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (change, needed) in pending.into_iter().zip(needed) {
            if needed {
                self.make_durable(&change);
            } else {
                self.pending.push(change);
            }
        }
        Ok(())
    }

    fn make_durable(&mut self, change: &Change) {
        for (is_set, name) in [(false, &change.clear), (true, &change.set)] {
            let Some((folder, name)) = name else { continue };
            if let Some(Node::Folder { durable, .. }) = self.nodes.get_mut(folder) {
                apply(durable, name, change.node, is_set);
            }
        }
    }

    /// The tree as it is found after a crash: everything in it is durable.
    pub(super) fn after_crash(&self, outcome: Outcome) -> Self {
        let random = match outcome {
            Outcome::Random(seed) => SeededRandom::new(seed),
            _ => SeededRandom::new(0),
        };
        let keep = self.kept(outcome, &random);
        let mut found = self.clone();
        found.pending.clear();
        for (change, keep) in self.pending.iter().zip(keep) {
            if keep {
                found.make_durable(change);
            }
        }
        let reachable = found.durable_nodes();
        found.nodes.retain(|node, _| reachable.contains(node));
        for node in found.nodes.values_mut() {
            match node {
                Node::Folder { now, durable } => *now = durable.clone(),
                Node::File(content) => {
                    let fate = match outcome {
                        Outcome::Everything | Outcome::AllBut(_) => Fate::Kept,
                        Outcome::Nothing | Outcome::NamesOnly => Fate::Gone,
                        Outcome::Random(_) => match random.below(4) {
                            0 => Fate::Kept,
                            1 => Fate::Gone,
                            _ => Fate::Torn(&random),
                        },
                    };
                    *content = content.after_crash(fate);
                }
            }
        }
        found
    }

    /// Which pending changes a crash keeps: never one without those it stands on.
    fn kept(&self, outcome: Outcome, random: &SeededRandom) -> Vec<bool> {
        let chance = 1 + random.below(9);
        let mut kept: Vec<bool> = Vec::with_capacity(self.pending.len());
        for (index, change) in self.pending.iter().enumerate() {
            let wanted = match outcome {
                Outcome::Everything | Outcome::NamesOnly => true,
                Outcome::Nothing => false,
                Outcome::AllBut(lost) => index != lost,
                Outcome::Random(_) => random.below(10) < chance,
            };
            let stands = (0..index).all(|e| kept[e] || !change.stands_on(&self.pending[e]));
            kept.push(wanted && stands);
        }
        kept
    }

    fn durable_nodes(&self) -> std::collections::BTreeSet<NodeId> {
        let mut reachable = std::collections::BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            if let Some(Node::Folder { durable, .. }) = self.nodes.get(&id) {
                open.extend(durable.values().filter(|node| reachable.insert(**node)));
            }
        }
        reachable
    }

    /// Every file that has a name, with its path, in the order of paths.
    pub(super) fn files(&self) -> Vec<(String, NodeId)> {
        let mut all = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, id)) = open.pop() {
            let Ok(names) = self.names(id) else { continue };
            for (name, node) in names {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}/{name}")
                };
                if self.is_folder(*node) {
                    open.push((path, *node));
                } else {
                    all.push((path, *node));
                }
            }
        }
        all.sort();
        all
    }

    /// The digest of all names and bytes as seen now.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            match self.nodes.get(&id) {
                Some(Node::Folder { now, .. }) => {
                    hasher
                        .update(b"folder")
                        .update(&(now.len() as u64).to_le_bytes());
                    for (name, node) in now {
                        hasher.update(&(name.len() as u64).to_le_bytes());
                        hasher.update(name.as_bytes());
                        open.push(*node);
                    }
                }
                Some(Node::File(content)) => {
                    hasher
                        .update(b"file")
                        .update(&content.length().to_le_bytes());
                    hasher.update(content.bytes());
                }
                None => {}
            }
        }
        hasher.finalize()
    }

    /// Bytes that count against a quota: every file and folder with a name, in whole sectors.
    pub(super) fn used(&self) -> u64 {
        let mut used = 0;
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            match self.nodes.get(&id) {
                Some(Node::Folder { now, .. }) => {
                    used += 512;
                    open.extend(now.values());
                }
                Some(Node::File(content)) => used += content.length().next_multiple_of(512),
                None => {}
            }
        }
        used
    }
}

/// Sets or clears one name. A name that has passed to another node is not cleared.
fn apply(names: &mut Names, name: &str, node: NodeId, is_set: bool) {
    if is_set {
        names.insert(name.to_owned(), node);
    } else if names.get(name) == Some(&node) {
        names.remove(name);
    }
}
