//! Rows of repositories.
//!
//! Knows: names, places, sealed passwords, how full each was. Refuses to know: what is inside.

use super::value::{Columns, all, count, execute, first, to_json};
use base::id::RepositoryId;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::console::Repository;
use rusqlite::{Transaction, params};

const COLUMNS: &str = "SELECT id, name, host, location_json, encrypted, capacity, free, stored,
    (SELECT COUNT(*) FROM points WHERE points.repository = repositories.id) FROM repositories";

fn read(columns: &Columns<'_, '_>) -> Result<Repository> {
    Ok(Repository {
        id: columns.id(0)?,
        name: columns.get(1)?,
        host: columns.id(2)?,
        location: columns.json(3)?,
        encrypted: columns.get(4)?,
        capacity: columns.count(5)?,
        free: columns.count(6)?,
        stored: columns.count(7)?,
        points: u64::try_from(columns.get::<i64>(8)?).unwrap_or(0),
        summary: None,
    })
}

/// All, by name.
pub fn list(transaction: &Transaction<'_>) -> Result<Vec<Repository>> {
    all(transaction, &format!("{COLUMNS} ORDER BY name"), [], read)
}

/// The one of that name or id.
///
/// # Errors
/// `NotFound`.
pub fn find(transaction: &Transaction<'_>, key: &str) -> Result<Repository> {
    let sql = format!("{COLUMNS} WHERE name = ?1 OR id = ?1");
    first(transaction, &sql, [key], read)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "repository.not-found",
            format!("there is no repository \u{201c}{key}\u{201d}"),
        )
        .hint("\u{201c}backstay repository list\u{201d} shows all")
    })
}

/// Adds one.
///
/// # Errors
/// `Exists` where the name is taken.
pub fn add(
    transaction: &Transaction<'_>,
    repository: &Repository,
    password_sealed: Option<&[u8]>,
) -> Result<()> {
    let taken = first(
        transaction,
        "SELECT 1 FROM repositories WHERE name = ?1",
        [&repository.name],
        |_| Ok(()),
    )?;
    if taken.is_some() {
        return Err(Error::new(
            Kind::Exists,
            "repository.name-taken",
            format!(
                "there is a repository \u{201c}{}\u{201d} already",
                repository.name
            ),
        )
        .hint("choose another name; \u{201c}backstay repository list\u{201d} shows those taken"));
    }
    execute(
        transaction,
        "INSERT INTO repositories (id, name, host, location_json, encrypted, password_sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            repository.id.to_string(),
            repository.name,
            repository.host.to_string(),
            to_json(&repository.location)?,
            repository.encrypted,
            password_sealed,
        ],
    )?;
    Ok(())
}

/// The sealed password, if it has one.
pub fn password(transaction: &Transaction<'_>, id: RepositoryId) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT password_sealed FROM repositories WHERE id = ?1";
    Ok(first(transaction, sql, [id.to_string()], |columns| columns.get(0))?.flatten())
}

/// Whether it was opened and has said its own id.
pub fn is_identified(transaction: &Transaction<'_>, id: RepositoryId) -> Result<bool> {
    let sql = "SELECT identified FROM repositories WHERE id = ?1";
    let found = first(transaction, sql, [id.to_string()], |columns| {
        columns.get::<bool>(0)
    })?;
    Ok(found.unwrap_or(false))
}

/// Gives a repository the id that it says itself to have, with its password sealed for that id.
pub fn identify(
    transaction: &Transaction<'_>,
    from: RepositoryId,
    to: RepositoryId,
    encrypted: bool,
    password_sealed: Option<&[u8]>,
) -> Result<()> {
    execute(
        transaction,
        "UPDATE repositories SET id = ?2, identified = 1, encrypted = ?3, password_sealed = ?4
         WHERE id = ?1",
        params![from.to_string(), to.to_string(), encrypted, password_sealed],
    )?;
    execute(
        transaction,
        "UPDATE sessions SET repository = ?2 WHERE repository = ?1",
        [from.to_string(), to.to_string()],
    )?;
    Ok(())
}

/// Removes a repository that was never opened.
pub fn remove_unidentified(transaction: &Transaction<'_>, id: RepositoryId) -> Result<()> {
    let sql = "DELETE FROM repositories WHERE id = ?1 AND identified = 0";
    execute(transaction, sql, [id.to_string()])?;
    Ok(())
}

/// Notes how full it is.
pub fn space(
    transaction: &Transaction<'_>,
    id: RepositoryId,
    capacity: ByteCount,
    free: ByteCount,
    stored: ByteCount,
) -> Result<()> {
    execute(
        transaction,
        "UPDATE repositories SET capacity = ?2, free = ?3, stored = ?4 WHERE id = ?1",
        params![id.to_string(), count(capacity), count(free), count(stored)],
    )?;
    Ok(())
}

/// Forgets one. Its files stay.
///
/// # Errors
/// `Conflict` where a job uses it.
pub fn remove(transaction: &Transaction<'_>, repository: &Repository) -> Result<()> {
    let id = repository.id.to_string();
    let jobs = all(
        transaction,
        "SELECT name FROM jobs WHERE repository = ?1",
        [&id],
        |columns| columns.get::<String>(0),
    )?;
    if !jobs.is_empty() {
        return Err(Error::new(
            Kind::Conflict,
            "repository.in-use",
            format!(
                "the repository {} is used by: job {}",
                repository.name,
                jobs.join(", job ")
            ),
        )
        .hint("delete or change these jobs first"));
    }
    execute(transaction, "DELETE FROM repositories WHERE id = ?1", [&id])?;
    Ok(())
}
