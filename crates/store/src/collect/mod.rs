//! Freeing what no point needs (format page, section "Collection").
//!
//! Knows: the two phases and the order of looking, which together make it safe beside any number of
//! writers and readers without asking a clock.
//! Refuses to know: which points ought to be deleted.
//!
//! # Why nothing in use is ever deleted
//! A block is *held* while a published point, a pin of a living reader or writer, or a living writer
//! that found it in the index relies on it.
//!
//! *Retire.* Everything held by a point or a pin is marked; packs without a mark, written by nobody
//! alive, are listed in a new state. A writer first makes its folder, then reads the state, then
//! the index. So for each state, a writer either saw it, and does not use what it retires, or its
//! folder was there when the state was published.
//!
//! *Sweep.* A retired pack goes only when all writers are gone that had not seen the state which
//! retired it. From then on nobody can find its blocks anew: they can only be held by points and
//! pins, which are looked through once more. What turns out to be held is taken back.
//!
//! *Order of looking.* First the records of points deleted until now are noted. Then come packs,
//! members with their pins, points, deleted points; and only those deleted points that were noted
//! at first do not count. A point that is deleted while we look still counts: it is found in one
//! folder or the other, since we look into them in the direction in which it moves. A writer that
//! leaves while we look has published before: had we not seen it among the members, we see its
//! point. What a pin held that we did not see, its writer has published, or did not need. Packs come
//! first, so what is written later is not even looked at. The index comes last, so it has all that
//! those points need.
//!
//! *Damage.* What is in use must be known completely. A point or tree node that cannot be read ends
//! the collection before anything is deleted.
//!
//! A crash at any place leaves a state from which the next collection goes on: doomed packs leave the
//! index before they are removed, and they leave the state after.

mod census;
mod mark;
mod rewrite;
mod sweep;

use crate::blocks::packs_of;
use crate::collect_state::{self, CollectState, Retired};
use crate::id::{PackId, SegmentId};
use crate::index::{self, Index, PackRow};
use crate::layout::{self, Content};
use crate::membership::Membership;
use crate::publish::{publish_bytes, remove_if_there};
use crate::report::{CollectOptions, CollectReport, Progress};
use crate::repository::{Inner, Repository};
use crate::{index as segments, reserve};
use base::files::Path;
use base::id::WriterId;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use census::{Held, Members};
use mark::Marker;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

impl Repository {
    /// Frees what no point needs. Safe beside any number of readers and writers, and at any moment
    /// interrupted; on a full disk it gives up the reserve and makes it anew at the end.
    ///
    /// # Errors
    /// `Conflict` `store.collect.busy` where another collect runs; `Corrupt`
    /// `store.collect.incomplete` where something is damaged so that what is needed cannot be told:
    /// then nothing is deleted.
    pub fn collect(
        &self,
        options: &CollectOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<CollectReport> {
        let inner = &self.inner;
        let files = &*inner.files;
        let busy = || {
            Error::new(
                Kind::Conflict,
                "store.collect.busy",
                "another collection is under way",
            )
            .hint("wait for it; if its process died, the lock is free already")
        };
        inner.config.check_writable()?;
        if !options.dry_run {
            reserve::with(files, || layout::make_folders(files))?;
        }
        let lock = reserve::with(files, || files.try_lock(&layout::collect_lock()?))?;
        let _lock = lock.ok_or_else(busy)?;
        let mut distrusted = HashSet::new();
        let report = loop {
            let run = || {
                Run::new(inner, options, progress)
                    .distrust(&distrusted)
                    .run()
            };
            match reserve::with(files, run) {
                // A segment that is damaged inside shows when it is asked. Its packs know all it
                // said: begin again without it.
                Err(error) if error.code() == INCOMPLETE => {
                    let suspects = inner.blocks.index().suspects();
                    if suspects.is_subset(&distrusted) {
                        return Err(error);
                    }
                    distrusted.extend(suspects);
                }
                other => break other?,
            }
        };
        if !options.dry_run {
            reserve::fill(files, &*inner.environment.random, inner.config.reserve)?;
        }
        Ok(report)
    }
}

/// What is known of a pack.
#[derive(Clone, Copy)]
struct PackInfo {
    content: Content,
    length: u64,
}

/// One collection.
struct Run<'a> {
    inner: &'a Arc<Inner>,
    options: &'a CollectOptions,
    progress: &'a dyn Fn(Progress),
    report: CollectReport,
    /// Names of points that were deleted before we began.
    forgotten: BTreeSet<String>,
    /// Packs there were when we began.
    packs: BTreeMap<PackId, PackInfo>,
    /// Segments that turned out damaged inside.
    distrusted: HashSet<SegmentId>,
}

impl<'a> Run<'a> {
    fn new(
        inner: &'a Arc<Inner>,
        options: &'a CollectOptions,
        progress: &'a dyn Fn(Progress),
    ) -> Self {
        Self {
            inner,
            options,
            progress,
            report: CollectReport::default(),
            forgotten: BTreeSet::new(),
            packs: BTreeMap::new(),
            distrusted: HashSet::new(),
        }
    }

    /// Takes segments for damaged.
    fn distrust(mut self, segments: &HashSet<SegmentId>) -> Self {
        self.distrusted = segments.clone();
        self
    }

    fn step(&self, step: &'static str, done: u64, total: u64) -> Result<()> {
        self.options.cancel.check()?;
        (self.progress)(Progress {
            step,
            done,
            total,
            bytes: false,
        });
        Ok(())
    }

    fn run(mut self) -> Result<CollectReport> {
        let mut state = self.read_state()?;
        self.note_forgotten()?;
        self.list_packs()?;
        let me = match self.options.dry_run {
            true => None,
            false => Some(Membership::join(
                &self.inner.files,
                "writers",
                &self.inner.environment,
            )?),
        };
        let members = self.members(me.as_ref())?;
        let roots = census::roots(self.inner, &members, &self.forgotten)?;
        self.report.points = roots.points;
        let index = self.load_index(&state, &members, me.as_ref())?;
        let writers = writers_of(&index);
        let mut marker = Marker::new(self.inner, index, self.present()?)?;
        self.mark(&mut marker, &roots)?;
        self.report.live_blocks = marker.count();

        let sorted = self.sort_packs(&marker, &state, &members, &writers);
        self.report.retired = sorted.dead.len() as u64;
        self.report.rescued = sorted.rescued.len() as u64;
        let Some(me) = me else {
            self.report.rewritten = sorted.sparse.len() as u64;
            return Ok(self.report);
        };
        let rewritten = rewrite::rewrite(&mut self, &me, &marker, &sorted.sparse)?;
        self.report.rewritten = rewritten.len() as u64;
        self.retire(&me, &mut state, &sorted, &rewritten)?;
        sweep::sweep(&mut self, &me, &mut state, &mut marker)?;
        self.finish(&me)?;
        Ok(self.report)
    }

    /// The state in force; where its record is damaged, one that retires nothing: what was retired
    /// is found again and waits for writers anew.
    fn read_state(&self) -> Result<CollectState> {
        let inner = self.inner;
        let files = &*inner.files;
        match collect_state::read(files, inner.config.id, &inner.keys, inner.config.cipher) {
            Err(error) if error.kind() == Kind::Corrupt => {
                let generation = collect_state::generations(files)?
                    .last()
                    .copied()
                    .unwrap_or(0);
                Ok(CollectState {
                    generation,
                    retired: Vec::new(),
                })
            }
            other => other,
        }
    }

    /// Notes the points deleted until now. That they are deleted is made durable first: whoever
    /// deleted them may have died before it was, and a point that came back would lack its blocks.
    fn note_forgotten(&mut self) -> Result<()> {
        let files = &*self.inner.files;
        self.forgotten = census::names(files, "deleted")?.into_iter().collect();
        if self.forgotten.is_empty() || self.options.dry_run {
            return Ok(());
        }
        files.sync_folder(&Path::new("deleted")?)?;
        files.sync_folder(&Path::new("points")?)
    }

    fn list_packs(&mut self) -> Result<()> {
        for content in Content::ALL {
            for (id, length) in packs_of(&*self.inner.files, content)? {
                self.packs.insert(id, PackInfo { content, length });
            }
        }
        self.report.packs = self.packs.len() as u64;
        Ok(())
    }

    /// Packs that are there now: those of the first look and those written since.
    fn present(&self) -> Result<HashSet<PackId>> {
        let mut present = HashSet::new();
        for content in Content::ALL {
            present.extend(
                packs_of(&*self.inner.files, content)?
                    .into_iter()
                    .map(|(id, _)| id),
            );
        }
        Ok(present)
    }

    fn members(&mut self, me: Option<&Membership>) -> Result<Members> {
        let (members, fenced) =
            census::members(&*self.inner.files, me.map(|me| me.id), self.options.dry_run)?;
        self.report.fenced += fenced;
        Ok(members)
    }

    /// The index as it is now. Packs that no segment lists, though nobody alive is writing them,
    /// are listed anew: theirs was lost, or never came to be; segments that are damaged go.
    fn load_index(
        &self,
        state: &CollectState,
        members: &Members,
        me: Option<&Membership>,
    ) -> Result<Index> {
        let inner = self.inner;
        if me.is_some() {
            inner.files.sync_folder(&Path::new("index")?)?;
        }
        let loaded = index::load(&*inner.files, inner.config.id, &[])?;
        for damaged in &loaded.damaged {
            if damaged.error.kind() == Kind::Io {
                return Err(incomplete(
                    format!("index segment {}", damaged.name),
                    &damaged.error,
                ));
            }
        }
        let (bad, sound): (Vec<_>, Vec<_>) = loaded
            .segments
            .into_iter()
            .partition(|segment| self.distrusted.contains(&segment.id));
        let index = Index::new(sound, state.packs());
        let listed = index.listed_packs();
        let unlisted: Vec<(PackId, PackInfo)> = self
            .packs
            .iter()
            .map(|(id, info)| (*id, *info))
            .filter(|(id, _)| !listed.contains(id))
            .collect();
        if me.is_none() {
            let found = crate::blocks::unlisted_packs(&*inner.files, &listed)?;
            return Ok(index.with_orphans(&found));
        }
        let Some(me) = me else { return Ok(index) };
        let index = rewrite::adopt(self, me, index, &unlisted, members)?;
        // Lists made anew from the same packs may have taken the place of the damaged ones.
        let made: HashSet<String> = index.segments.iter().map(|s| s.id.to_string()).collect();
        let names = loaded.damaged.into_iter().map(|damaged| damaged.name);
        for name in names.chain(bad.iter().map(|segment| segment.id.to_string())) {
            if !made.contains(&name) {
                remove_if_there(&*inner.files, &Path::new(format!("index/{name}"))?)?;
            }
        }
        Ok(index)
    }

    /// Marks what is held; what was visited before is not visited again.
    fn mark(&self, marker: &mut Marker<'_>, held: &Held) -> Result<()> {
        for (done, root) in held.roots.iter().enumerate() {
            self.step("mark", done as u64, held.roots.len() as u64)?;
            marker.root(root)?;
        }
        for root in held.pins.difference(&held.roots) {
            match marker.root(root) {
                Err(error) if error.code() == INCOMPLETE => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Sorts packs by what is to become of them.
    fn sort_packs(
        &self,
        marker: &Marker<'_>,
        state: &CollectState,
        members: &Members,
        writers: &HashMap<PackId, WriterId>,
    ) -> Sorted {
        let retired = state.packs();
        let mut sorted = Sorted::default();
        for (id, info) in &self.packs {
            let live = marker.live_bytes(id);
            if retired.contains(id) {
                if live > 0 {
                    sorted.rescued.insert(*id);
                }
                continue;
            }
            // Unlisted packs are being written: the others were listed by `adopt`.
            let Some(writer) = writers.get(id) else {
                continue;
            };
            if members.writers.contains_key(writer) {
                continue;
            }
            if live == 0 {
                sorted.dead.push((*id, *info));
            } else if live * 100 < info.length * u64::from(self.options.rewrite_below_percent) {
                sorted.sparse.push((*id, *info));
            }
        }
        sorted
    }

    /// Publishes a state that retires packs and takes others back.
    fn retire(
        &mut self,
        me: &Membership,
        state: &mut CollectState,
        sorted: &Sorted,
        rewritten: &[(PackId, PackInfo)],
    ) -> Result<()> {
        if sorted.dead.is_empty() && rewritten.is_empty() && sorted.rescued.is_empty() {
            return Ok(());
        }
        let since = state.generation + 1;
        state
            .retired
            .retain(|retired| !sorted.rescued.contains(&retired.pack));
        for (pack, info) in sorted.dead.iter().chain(rewritten) {
            let tree = info.content == Content::Tree;
            state.retired.push(Retired {
                pack: *pack,
                tree,
                since,
            });
        }
        self.publish_state(me, state)
    }

    /// Publishes the next state, then removes those it supersedes.
    fn publish_state(&self, me: &Membership, state: &mut CollectState) -> Result<()> {
        let inner = self.inner;
        let files = &*inner.files;
        let before = collect_state::generations(files)?;
        state.generation += 1;
        state.retired.sort_by_key(|retired| retired.pack);
        let bytes = collect_state::bytes(
            state,
            inner.config.id,
            &inner.keys,
            inner.config.cipher,
            &*inner.environment.random,
        )?;
        let working = me.path(&format!("state-{}", state.generation))?;
        publish_bytes(
            files,
            &working,
            &layout::collect_state(state.generation)?,
            &bytes,
        )?;
        for generation in before {
            remove_if_there(files, &layout::collect_state(generation)?)?;
        }
        files.sync_folder(&Path::new("collect")?)
    }

    /// Removes what has no meaning any more.
    fn finish(&mut self, me: &Membership) -> Result<()> {
        let files = &*self.inner.files;
        for name in std::mem::take(&mut self.forgotten) {
            if remove_if_there(files, &Path::new(format!("deleted/{name}"))?)? {
                self.report.forgotten += 1;
            }
        }
        files.sync_folder(&Path::new("deleted")?)?;
        census::clear_fenced(files)?;
        sweep::merge_many(self, me)?;
        self.inner.blocks.reload()
    }
}

/// Packs by what is to become of them.
#[derive(Default)]
struct Sorted {
    /// Nothing in them is in use.
    dead: Vec<(PackId, PackInfo)>,
    /// Little in them is in use.
    sparse: Vec<(PackId, PackInfo)>,
    /// Retired, but in use.
    rescued: BTreeSet<PackId>,
}

/// Who wrote each pack.
fn writers_of(index: &Index) -> HashMap<PackId, WriterId> {
    let rows = index
        .segments
        .iter()
        .flat_map(|segment: &Arc<segments::Segment>| &segment.packs);
    rows.map(|row: &PackRow| (row.id, row.writer)).collect()
}

/// The code of the error for damage that hides what is in use.
const INCOMPLETE: &str = "store.collect.incomplete";

/// The error for damage that keeps a collection from knowing what is in use.
fn incomplete(what: String, error: &Error) -> Error {
    Error::corrupt(
        INCOMPLETE,
        format!("nothing was deleted, because {what} cannot be read: {error}"),
    )
    .hint("run verify; delete the point that is damaged, or mend the repository, then collect")
}

/// Adds up bytes.
fn bytes(total: &mut ByteCount, more: u64) {
    *total += ByteCount(more);
}

/// What [`adopt_all`] did and saw.
pub(crate) struct Adopted {
    /// The segments made.
    pub(crate) segments: HashSet<SegmentId>,
    /// Writers that live; their packs were left to them.
    pub(crate) living: HashSet<WriterId>,
}

/// Lists all packs in new segments, except those of living writers.
pub(crate) fn adopt_all(inner: &Arc<Inner>, progress: &dyn Fn(Progress)) -> Result<Adopted> {
    let options = CollectOptions::default();
    let mut run = Run::new(inner, &options, progress);
    run.list_packs()?;
    let me = Membership::join(&inner.files, "writers", &inner.environment)?;
    let members = run.members(Some(&me))?;
    let packs: Vec<(PackId, PackInfo)> = run.packs.iter().map(|(id, info)| (*id, *info)).collect();
    let index = rewrite::adopt(&run, &me, Index::default(), &packs, &members)?;
    Ok(Adopted {
        segments: index.segments.iter().map(|segment| segment.id).collect(),
        living: members.writers.into_keys().collect(),
    })
}
