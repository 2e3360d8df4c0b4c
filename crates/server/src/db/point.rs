//! Rows of restore points: what the repositories said they have.
//!
//! Knows: the points by machine and repository. Refuses to know: whether they are whole.

use super::value::{Columns, all, execute, first, to_json};
use base::clock::Timestamp;
use base::id::{PointId, RepositoryId};
use base::{Error, Kind, Result};
use protocol::words::point::Point;
use protocol::words::span::Span;
use rusqlite::{Transaction, params};
use std::collections::BTreeSet;

fn read(columns: &Columns<'_, '_>) -> Result<Point> {
    columns.json(0)
}

/// Which points are wanted.
#[derive(Clone, Copy, Default, Debug)]
pub struct Wanted<'a> {
    /// Of this machine: its name or id.
    pub machine: Option<&'a str>,
    /// In this repository.
    pub repository: Option<RepositoryId>,
    /// Listed after this one.
    pub after: Option<(Timestamp, PointId)>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// The wanted ones, newest first.
pub fn list(transaction: &Transaction<'_>, wanted: Wanted<'_>) -> Result<Vec<Point>> {
    let (created, id) = wanted.after.unzip();
    all(
        transaction,
        "SELECT point_json FROM points
         WHERE (?1 IS NULL OR machine = ?1 OR machine_name = ?1) AND (?2 IS NULL OR repository = ?2)
            AND (?3 IS NULL OR (created, id) < (?3, ?4))
         ORDER BY created DESC, id DESC LIMIT COALESCE(?5, -1)",
        params![
            wanted.machine,
            wanted.repository.map(|id| id.to_string()),
            created.map(|created| created.0),
            id.map(|id| id.to_string()),
            wanted.limit,
        ],
        read,
    )
}

/// The one with this id, or with these last digits of it.
///
/// # Errors
/// `NotFound`; `Invalid` where several end so.
pub fn find(transaction: &Transaction<'_>, key: &str) -> Result<Point> {
    let key = key.trim().to_ascii_lowercase();
    let fit = key.len() >= 4
        && key
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let found = if fit {
        let sql = "SELECT point_json FROM points WHERE id LIKE '%' || ?1 LIMIT 2";
        all(transaction, sql, [&key], read)?
    } else {
        Vec::new()
    };
    match <[Point; 1]>::try_from(found) {
        Ok([point]) => Ok(point),
        Err(found) if found.is_empty() => Err(Error::new(
            Kind::NotFound,
            "point.not-found",
            format!("there is no restore point \u{201c}{key}\u{201d}"),
        )
        .hint("\u{201c}backstay point list\u{201d} shows all; the last eight digits are enough")),
        Err(_) => Err(Error::invalid(
            "point.ambiguous",
            format!("several restore points end in \u{201c}{key}\u{201d}"),
        )
        .hint("give more digits")),
    }
}

/// Adds points, or replaces what was known of them.
pub fn put(transaction: &Transaction<'_>, points: &[Point]) -> Result<()> {
    for point in points {
        execute(
            transaction,
            "INSERT INTO points (id, repository, machine, machine_name, job, created, point_json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET repository = excluded.repository,
                machine_name = excluded.machine_name, point_json = excluded.point_json",
            params![
                point.id.to_string(),
                point.repository.to_string(),
                point.draft.machine.id.to_string(),
                point.draft.machine.name,
                point.draft.job.as_ref().map(|(id, _)| id.to_string()),
                point.created.0,
                to_json(point)?,
            ],
        )?;
    }
    Ok(())
}

/// Forgets points.
pub fn remove(transaction: &Transaction<'_>, points: &[PointId]) -> Result<()> {
    for point in points {
        execute(
            transaction,
            "DELETE FROM points WHERE id = ?1",
            [point.to_string()],
        )?;
    }
    Ok(())
}

/// Forgets all points of a repository within a span of ids that are not among these.
pub fn retain(
    transaction: &Transaction<'_>,
    repository: RepositoryId,
    span: &Span<PointId>,
    points: &[Point],
) -> Result<()> {
    // Ids are written so that their texts sort as they do.
    let known: Vec<PointId> = all(
        transaction,
        "SELECT id FROM points WHERE repository = ?1
            AND (?2 IS NULL OR id > ?2) AND (?3 IS NULL OR id <= ?3)",
        params![
            repository.to_string(),
            span.after.map(|id| id.to_string()),
            span.to.map(|id| id.to_string()),
        ],
        |columns| columns.id(0),
    )?;
    let there: BTreeSet<PointId> = points.iter().map(|point| point.id).collect();
    let gone: Vec<PointId> = known.into_iter().filter(|id| !there.contains(id)).collect();
    remove(transaction, &gone)
}

/// How many points a machine (by id) has, and when the newest was made.
pub fn summary(
    transaction: &Transaction<'_>,
    machine: &str,
) -> Result<(u64, Option<base::clock::Timestamp>)> {
    let sql = "SELECT COUNT(*), MAX(created) FROM points WHERE machine = ?1";
    let found = first(transaction, sql, [machine], |columns| {
        Ok((
            u64::try_from(columns.get::<i64>(0)?).unwrap_or(0),
            columns.time_option(1)?,
        ))
    })?;
    Ok(found.unwrap_or_default())
}
