//! Rows of jobs.
//!
//! Knows: settings and the next time each is due. Refuses to know: how that time is found.

use super::value::{Columns, all, execute, first, to_json};
use base::clock::Timestamp;
use base::id::JobId;
use base::{Error, Kind, Result};
use protocol::words::job::{Job, JobSettings};
use rusqlite::{Transaction, params};

/// A job and when it is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRow {
    /// The job.
    pub job: Job,
    /// When it was made or last changed.
    pub created: Timestamp,
    /// When it runs next by itself.
    pub next_run: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT id, settings_json, created, next_run FROM jobs";

fn read(columns: &Columns<'_, '_>) -> Result<JobRow> {
    Ok(JobRow {
        job: Job {
            id: columns.id(0)?,
            settings: columns.json(1)?,
        },
        created: columns.time(2)?,
        next_run: columns.time_option(3)?,
    })
}

/// All, by name.
pub fn list(transaction: &Transaction<'_>) -> Result<Vec<JobRow>> {
    all(transaction, &format!("{COLUMNS} ORDER BY name"), [], read)
}

/// Those that are due.
pub fn due(transaction: &Transaction<'_>, now: Timestamp) -> Result<Vec<JobRow>> {
    let sql = format!("{COLUMNS} WHERE next_run <= ?1 ORDER BY next_run");
    all(transaction, &sql, [now.0], read)
}

/// The one of that name or id.
///
/// # Errors
/// `NotFound`.
pub fn find(transaction: &Transaction<'_>, key: &str) -> Result<JobRow> {
    let sql = format!("{COLUMNS} WHERE name = ?1 OR id = ?1");
    first(transaction, &sql, [key], read)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "job.not-found",
            format!("there is no job \u{201c}{key}\u{201d}"),
        )
        .hint("\u{201c}backstay job list\u{201d} shows all")
    })
}

/// Adds one or changes the one with this id.
///
/// # Errors
/// `Exists` where another job has the name.
pub fn put(
    transaction: &Transaction<'_>,
    id: JobId,
    settings: &JobSettings,
    now: Timestamp,
    next_run: Option<Timestamp>,
) -> Result<()> {
    let taken = first(
        transaction,
        "SELECT 1 FROM jobs WHERE name = ?1 AND id <> ?2",
        [&settings.name, &id.to_string()],
        |_| Ok(()),
    )?;
    if taken.is_some() {
        return Err(Error::new(
            Kind::Exists,
            "job.name-taken",
            format!("there is a job \u{201c}{}\u{201d} already", settings.name),
        )
        .hint(
            "choose another name, or change the one there with \u{201c}backstay job edit\u{201d}",
        ));
    }
    execute(
        transaction,
        "INSERT INTO jobs (id, name, repository, settings_json, created, next_run)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, repository = excluded.repository,
            settings_json = excluded.settings_json, next_run = excluded.next_run",
        params![
            id.to_string(),
            settings.name,
            settings.repository.to_string(),
            to_json(settings)?,
            now.0,
            next_run.map(|time| time.0),
        ],
    )?;
    Ok(())
}

/// Sets when it runs next.
pub fn set_next_run(
    transaction: &Transaction<'_>,
    id: JobId,
    next_run: Option<Timestamp>,
) -> Result<()> {
    execute(
        transaction,
        "UPDATE jobs SET next_run = ?2 WHERE id = ?1",
        params![id.to_string(), next_run.map(|time| time.0)],
    )?;
    Ok(())
}

/// Removes one. Its points and the record of its runs stay.
pub fn remove(transaction: &Transaction<'_>, id: JobId) -> Result<()> {
    execute(
        transaction,
        "DELETE FROM jobs WHERE id = ?1",
        [id.to_string()],
    )?;
    Ok(())
}
