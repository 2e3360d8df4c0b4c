//! The second phase: removing retired packs that nobody can hold any more.
//!
//! Knows: whom to wait for, what to look at again, and in which order things go. Refuses to know:
//! why a pack was retired.

use super::{Run, bytes, census, incomplete};
use crate::collect_state::{CollectState, Retired};
use crate::id::PackId;
use crate::index::{self, Index, Segment, merge};
use crate::layout::{self, Content};
use crate::limit::SEGMENTS_MANY;
use crate::membership::Membership;
use crate::publish::remove_if_there;
use base::Result;
use base::files::Path;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::mark::Marker;

/// Removes what can be removed.
pub(super) fn sweep(
    run: &mut Run<'_>,
    me: &Membership,
    state: &mut CollectState,
    marker: &mut Marker<'_>,
) -> Result<()> {
    // Whom to wait for comes before the second look at points: see the head of `collect`.
    let members = run.members(Some(me))?;
    let waits = |retired: &Retired| {
        members
            .writers
            .values()
            .any(|seen| seen.is_none_or(|seen| seen < retired.since))
    };
    let (waiting, ready): (Vec<Retired>, Vec<Retired>) =
        state.retired.iter().copied().partition(waits);
    for retired in &waiting {
        let length = run.packs.get(&retired.pack).map_or(0, |info| info.length);
        bytes(&mut run.report.waiting, length);
    }
    if ready.is_empty() {
        return Ok(());
    }
    let held = census::roots(run.inner, &members, &run.forgotten)?;
    let loaded = index::load(&*run.inner.files, run.inner.config.id, &[])?;
    if let Some(damaged) = loaded.damaged.first() {
        // A segment that cannot be read now might go on listing packs that we remove.
        return Err(incomplete(
            format!("index segment {}", damaged.name),
            &damaged.error,
        ));
    }
    marker.renew(Index::new(loaded.segments, state.packs()), run.present()?);
    run.mark(marker, &held)?;

    let (needed, doomed): (Vec<Retired>, Vec<Retired>) = ready
        .into_iter()
        .partition(|retired| marker.live_bytes(&retired.pack) > 0);
    run.report.rescued += needed.len() as u64;
    remove_packs(run, me, marker.index(), &doomed)?;
    let gone: HashSet<PackId> = doomed
        .iter()
        .chain(&needed)
        .map(|retired| retired.pack)
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    state
        .retired
        .retain(|retired| !gone.contains(&retired.pack));
    run.publish_state(me, state)
}

/// Takes packs out of the index, then removes them.
fn remove_packs(
    run: &mut Run<'_>,
    me: &Membership,
    index: &Index,
    doomed: &[Retired],
) -> Result<()> {
    let files = &*run.inner.files;
    let packs: HashSet<PackId> = doomed.iter().map(|retired| retired.pack).collect();
    for content in Content::ALL {
        let touched: Vec<Arc<Segment>> = index
            .segments
            .iter()
            .filter(|segment| segment.content == content)
            .filter(|segment| segment.packs.iter().any(|row| packs.contains(&row.id)))
            .cloned()
            .collect();
        replace_segments(run, me, content, &touched, &|pack| !packs.contains(pack))?;
    }
    let mut folders = BTreeSet::new();
    for (number, retired) in doomed.iter().enumerate() {
        run.step("remove", number as u64, doomed.len() as u64)?;
        let path = layout::pack(retired.content(), &retired.pack)?;
        if remove_if_there(files, &path)? {
            folders.insert(path.folder());
            run.report.removed += 1;
            let length = run.packs.get(&retired.pack).map_or(0, |info| info.length);
            bytes(&mut run.report.freed, length);
        }
    }
    for folder in folders {
        files.sync_folder(&folder)?;
    }
    Ok(())
}

/// Puts one segment in the place of several, with only those packs for which `keep` says so.
fn replace_segments(
    run: &Run<'_>,
    me: &Membership,
    content: Content,
    segments: &[Arc<Segment>],
    keep: &dyn Fn(&PackId) -> bool,
) -> Result<()> {
    if segments.is_empty() {
        return Ok(());
    }
    let files = &*run.inner.files;
    let any = segments
        .iter()
        .any(|segment| segment.packs.iter().any(|row| keep(&row.id)));
    if any {
        let path = me.path(&format!("merged-{}-{}", content.code(), segments[0].id))?;
        merge(files, path, content, run.inner.config.id, segments, keep)?;
    }
    for segment in segments {
        remove_if_there(files, &layout::segment(&segment.id)?)?;
    }
    files.sync_folder(&Path::new("index")?)
}

/// Merges segments where there are many, and removes those that were replaced before.
pub(super) fn merge_many(run: &Run<'_>, me: &Membership) -> Result<()> {
    let files = &*run.inner.files;
    let loaded = index::load(files, run.inner.config.id, &[])?;
    for id in &loaded.replaced {
        remove_if_there(files, &layout::segment(id)?)?;
    }
    for content in Content::ALL {
        let mut segments: Vec<Arc<Segment>> = loaded
            .segments
            .iter()
            .filter(|segment| segment.content == content)
            .cloned()
            .collect();
        if segments.len() <= SEGMENTS_MANY {
            continue;
        }
        // The largest stay as they are: each merge then costs in proportion to what is new.
        segments.sort_by_key(|segment| (segment.count, segment.id));
        let keep_large = SEGMENTS_MANY / 4;
        segments.truncate(segments.len() - keep_large);
        replace_segments(run, me, content, &segments, &|_| true)?;
    }
    Ok(())
}
