//! Who is there, and what they hold.
//!
//! Knows: living and dead members, their pins, the roots of all points. Refuses to know: blocks.

use super::incomplete;
use crate::id::Root;
use crate::layout;
use crate::limit::RECORD_SIZE_MAX;
use crate::membership::{LOCK, PIN, STATE, clear_folder};
use crate::point;
use crate::repository::Inner;
use base::files::{Files, Path, read_all};
use base::id::{PointId, WriterId};
use base::{Kind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Those who live.
#[derive(Default)]
pub(super) struct Members {
    /// Writers, and the generation of collection each has seen; `None`: not known yet.
    pub(super) writers: BTreeMap<WriterId, Option<u64>>,
    /// What writers and readers have pinned.
    pub(super) pins: BTreeSet<Root>,
}

/// All names in a folder.
pub(super) fn names(files: &dyn Files, folder: &str) -> Result<Vec<String>> {
    Ok(files
        .list(&Path::new(folder)?)?
        .into_iter()
        .map(|entry| entry.name)
        .collect())
}

/// Looks at all writers and readers; fences the dead. Also says how many writers were fenced.
pub(super) fn members(
    files: &dyn Files,
    me: Option<WriterId>,
    dry_run: bool,
) -> Result<(Members, u64)> {
    let mut members = Members::default();
    let mut fenced = 0;
    for parent in ["writers", "readers"] {
        for name in names(files, parent)? {
            let Ok(id) = name.parse::<WriterId>() else {
                continue;
            };
            if Some(id) == me {
                continue;
            }
            let folder = Path::new(format!("{parent}/{name}"))?;
            let lock = match files.try_lock(&folder.join(LOCK)?) {
                // It has left since the listing.
                Err(error) if error.kind() == Kind::NotFound => continue,
                other => other?,
            };
            match lock {
                None => look_at(files, &folder, parent, id, &mut members)?,
                Some(_) if dry_run => {}
                Some(lock) => {
                    fenced += u64::from(fence(files, &folder, id)? && parent == "writers");
                    drop(lock);
                }
            }
        }
    }
    Ok((members, fenced))
}

/// Notes what a living member holds.
fn look_at(
    files: &dyn Files,
    folder: &Path,
    parent: &str,
    id: WriterId,
    members: &mut Members,
) -> Result<()> {
    let entries = match files.list(folder) {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        other => other?,
    };
    if parent == "writers" {
        members.writers.insert(id, generation_of(files, folder)?);
    }
    for entry in entries {
        if let Some(root) = entry
            .name
            .strip_prefix(PIN)
            .and_then(|root| root.parse().ok())
        {
            members.pins.insert(root);
        }
    }
    Ok(())
}

/// The generation a writer has noted. What cannot be read counts as not known: that only makes us
/// wait.
fn generation_of(files: &dyn Files, folder: &Path) -> Result<Option<u64>> {
    match read_all(files, &folder.join(STATE)?, 64) {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.parse().ok())),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt | Kind::Limit) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Moves a dead member's folder away, in one step: should it live in spite of all, nothing it
/// publishes from there can arrive any more. False where it has gone by itself.
fn fence(files: &dyn Files, folder: &Path, id: WriterId) -> Result<bool> {
    let to = layout::fenced(id)?;
    match files.rename_folder(folder, &to) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::NotFound => return Ok(false),
        // Left over from a fencing that a crash took back halfway.
        Err(error) if error.kind() == Kind::Exists => {
            clear_folder(files, &to)?;
            files.rename_folder(folder, &to)?;
        }
        Err(error) => return Err(error),
    }
    files.sync_folder(&folder.folder())?;
    files.sync_folder(&Path::new("fenced")?)?;
    Ok(true)
}

/// Removes what fenced members left.
pub(super) fn clear_fenced(files: &dyn Files) -> Result<()> {
    let folder = Path::new("fenced")?;
    for name in names(files, "fenced")? {
        clear_folder(files, &folder.join(name)?)?;
    }
    files.sync_folder(&folder)
}

/// Roots that are held.
pub(super) struct Held {
    /// Of points. All they hold must be there.
    pub(super) roots: BTreeSet<Root>,
    /// Pinned. A pin that came too late, after its point was deleted and collected, holds what is
    /// left: its owner is about to find out and to take it back.
    pub(super) pins: BTreeSet<Root>,
    pub(super) points: u64,
}

/// The roots of all points and pins. Points are looked for where they are before where they go when
/// deleted, so that none slips by.
pub(super) fn roots(
    inner: &Inner,
    members: &Members,
    forgotten: &BTreeSet<String>,
) -> Result<Held> {
    let mut held = Held {
        roots: BTreeSet::new(),
        pins: members.pins.clone(),
        points: 0,
    };
    for folder in ["points", "deleted"] {
        for name in names(&*inner.files, folder)? {
            let Ok(id) = name.parse::<PointId>() else {
                // No name of a point: nobody could have published it, nobody can restore it.
                continue;
            };
            if folder == "deleted" && forgotten.contains(&name) {
                continue;
            }
            held.points += u64::from(folder == "points");
            held.roots.extend(roots_of(inner, folder, id)?);
        }
    }
    Ok(held)
}

/// The roots of one point, wherever it is by now.
fn roots_of(inner: &Inner, folder: &str, id: PointId) -> Result<Vec<Root>> {
    for folder in [folder, "deleted"] {
        match read_all(
            &*inner.files,
            &Path::new(format!("{folder}/{id}"))?,
            RECORD_SIZE_MAX,
        ) {
            Ok(bytes) => {
                return point::read_bytes(inner, id, &bytes)
                    .map(|point| point.roots())
                    .map_err(|error| incomplete(format!("the point {id}"), &error));
            }
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(incomplete(format!("the point {id}"), &error)),
        }
    }
    // Only a collection removes deleted points, and that is us.
    Ok(Vec::new())
}
