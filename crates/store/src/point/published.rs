//! Points as they lie in the repository.
//!
//! Knows: their sealed records and how to list them. Refuses to know: how they come to be there.

use super::{Point, PointDraft};
use crate::key::{KeySet, POINT_CONTENT};
use crate::layout;
use crate::limit::RECORD_SIZE_MAX;
use crate::record::{self, Binding, RecordKind};
use crate::report::DamagedPoint;
use crate::report::PointList;
use crate::repository::Inner;
use base::digest::Digest;
use base::files::{Path, read_all};
use base::id::{PointId, RepositoryId};
use base::limit::{DISKS_PER_MACHINE_MAX, NAME_LENGTH_MAX};
use base::{Error, Kind, Result};
use std::collections::HashSet;

/// What binds a point's record to its place.
pub(crate) fn binding(repository: RepositoryId, id: PointId) -> Binding {
    Binding {
        kind: RecordKind::Point,
        repository,
        name: id.bytes(),
    }
}

/// The error for a point that is not there.
pub(crate) fn not_found(id: PointId) -> Error {
    Error::new(
        Kind::NotFound,
        "store.point.not-found",
        format!("there is no point {id}"),
    )
    .hint("list the points; it may have been deleted")
}

/// Reads one published point.
pub(crate) fn read(inner: &Inner, id: PointId) -> Result<Point> {
    match read_all(&*inner.files, &layout::point(id)?, RECORD_SIZE_MAX) {
        Ok(bytes) => read_bytes(inner, id, &bytes)
            .map_err(|error| error.context(format!("the record of point {id} cannot be read"))),
        Err(error) if error.kind() == Kind::NotFound => Err(not_found(id)),
        Err(error) => Err(error),
    }
}

/// Opens a point's record.
pub(crate) fn read_bytes(inner: &Inner, id: PointId, bytes: &[u8]) -> Result<Point> {
    let point: Point = record::read(
        bytes,
        binding(inner.config.id, id),
        &inner.keys,
        inner.config.cipher,
    )?;
    if point.id != id || point.repository != inner.config.id {
        return Err(Error::corrupt(
            "store.point.misplaced",
            "a point's record names another point",
        ));
    }
    if point.content != content_digest(&inner.keys, &point) {
        return Err(Error::corrupt(
            "store.point.content",
            "a point's digest does not fit",
        ));
    }
    Ok(point)
}

/// The ids of all points in their order, without a look into them.
pub(crate) fn ids(inner: &Inner) -> Result<Vec<PointId>> {
    let mut ids: Vec<PointId> = inner
        .files
        .list(&Path::new("points")?)?
        .iter()
        .filter_map(|entry| entry.name.parse().ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Lists all points, oldest first.
pub(crate) fn list(inner: &Inner) -> Result<PointList> {
    let mut list = PointList::default();
    let folder = Path::new("points")?;
    for entry in inner.files.list(&folder)? {
        let Ok(id) = entry.name.parse::<PointId>() else {
            list.damaged.push(DamagedPoint {
                id: None,
                name: entry.name,
                reason: "its name is not the id of a point".to_owned(),
            });
            continue;
        };
        match read(inner, id) {
            Ok(point) => list.points.push(point),
            // Deleted since the listing.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) if error.kind() == Kind::Io => return Err(error),
            Err(error) => list.damaged.push(DamagedPoint {
                id: Some(id),
                name: entry.name,
                reason: error.to_string(),
            }),
        }
    }
    list.points.sort_by_key(|point| (point.time, point.id));
    Ok(list)
}

/// The digest over what a point holds: machine, names, sizes and roots.
pub(crate) fn content_digest(keys: &KeySet, point: &Point) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(&keys.lasting(POINT_CONTENT));
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&point.machine.id.to_string());
    text(&point.machine.name);
    for disk in &point.disks {
        text("disk");
        text(&disk.name);
        text(&disk.size.0.to_string());
        text(&disk.root.to_string());
    }
    for file in &point.files {
        text("file");
        text(&file.path);
        text(&file.size.0.to_string());
        text(&file.root.to_string());
    }
    Digest(*hasher.finalize().as_bytes())
}

/// An error unless a draft makes sense: names present, unique, of bounded length, paths that stay
/// inside.
pub(crate) fn check_draft(draft: &PointDraft) -> Result<()> {
    let wrong = |what: String| Err(Error::invalid("store.point.draft", what));
    if draft.disks.len() > DISKS_PER_MACHINE_MAX {
        return wrong(format!("a point of {} disks", draft.disks.len()));
    }
    let mut names = HashSet::new();
    for disk in &draft.disks {
        if disk.name.is_empty() || disk.name.len() > NAME_LENGTH_MAX || !names.insert(&disk.name) {
            return wrong(format!(
                "the disk name \u{201c}{}\u{201d} is not usable",
                disk.name
            ));
        }
    }
    let mut paths = HashSet::new();
    for file in &draft.files {
        if file.path.is_empty() || Path::new(&*file.path).is_err() || !paths.insert(&file.path) {
            return wrong(format!(
                "the file path \u{201c}{}\u{201d} is not usable",
                file.path
            ));
        }
    }
    let name = &draft.machine.name;
    if name.is_empty() || name.len() > NAME_LENGTH_MAX {
        return wrong(format!(
            "the machine name \u{201c}{name}\u{201d} is not usable"
        ));
    }
    Ok(())
}
