//! Making the index anew from the packs alone.
//!
//! Knows: that trailers list all, and frames where a trailer is gone. Refuses to know: points.

use crate::blocks::packs_of;
use crate::collect::adopt_all;
use crate::index::{self, Segment};
use crate::layout::{self, Content};
use crate::publish::remove_if_there;
use crate::report::Progress;
use crate::repository::Repository;
use base::files::Path;
use base::{Error, Kind, Result};

impl Repository {
    /// Makes the index anew from the packs alone and removes the old one. Packs of living writers
    /// are left to their writers. Returns how many packs there are.
    ///
    /// # Errors
    /// `Conflict` `store.collect.busy` while a collect is under way; `Full`; `Io`.
    pub fn rebuild_index(&self, progress: &dyn Fn(Progress)) -> Result<u64> {
        let inner = &self.inner;
        let files = &*inner.files;
        inner.config.check_writable()?;
        layout::make_folders(files)?;
        let _lock = files.try_lock(&layout::collect_lock()?)?.ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                "store.collect.busy",
                "a collection is under way",
            )
            .hint("wait until it is done")
        })?;
        let folder = Path::new("index")?;
        let old = index::load(files, inner.config.id, &[])?;
        let made = adopt_all(inner, progress)?;
        // The new segments are durable. Those that list packs of living writers stay.
        let theirs = |segment: &Segment| {
            segment
                .packs
                .iter()
                .any(|row| made.living.contains(&row.writer))
        };
        let replaced = old
            .segments
            .iter()
            .filter(|segment| !theirs(segment))
            .map(|s| s.id);
        for id in replaced
            .chain(old.replaced)
            .filter(|id| !made.segments.contains(id))
        {
            remove_if_there(files, &layout::segment(&id)?)?;
        }
        let made: Vec<String> = made.segments.iter().map(ToString::to_string).collect();
        for damaged in old
            .damaged
            .iter()
            .filter(|damaged| !made.contains(&damaged.name))
        {
            remove_if_there(files, &folder.join(&damaged.name)?)?;
        }
        files.sync_folder(&folder)?;
        inner.blocks.reload()?;
        let mut count = 0;
        for content in Content::ALL {
            count += packs_of(files, content)?.len() as u64;
        }
        Ok(count)
    }
}
