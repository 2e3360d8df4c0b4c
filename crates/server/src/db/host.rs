//! Rows of hosts.
//!
//! Knows: names, addresses, when each was seen. Refuses to know: how hosts are reached.

use super::value::{Columns, all, execute, first};
use base::clock::Timestamp;
use base::id::HostId;
use base::{Error, Kind, Result};
use protocol::words::console::Host;
use rusqlite::{Transaction, params};

const COLUMNS: &str = "SELECT id, name, mover, version FROM hosts";

fn read(columns: &Columns<'_, '_>) -> Result<Host> {
    Ok(Host {
        id: columns.id(0)?,
        name: columns.get(1)?,
        mover: columns.get(2)?,
        online: columns.get(3)?,
    })
}

/// All, by name.
pub fn list(transaction: &Transaction<'_>) -> Result<Vec<Host>> {
    all(transaction, &format!("{COLUMNS} ORDER BY name"), [], read)
}

/// The one of that name or id.
///
/// # Errors
/// `NotFound`.
pub fn find(transaction: &Transaction<'_>, key: &str) -> Result<Host> {
    let sql = format!("{COLUMNS} WHERE name = ?1 OR id = ?1");
    first(transaction, &sql, [key], read)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "host.not-found",
            format!("there is no host \u{201c}{key}\u{201d}"),
        )
        .hint("\u{201c}backstay host list\u{201d} shows all")
    })
}

/// Adds one, or changes the address of the one with this id.
pub fn put(transaction: &Transaction<'_>, id: HostId, name: &str, mover: &str) -> Result<()> {
    execute(
        transaction,
        "INSERT INTO hosts (id, name, mover) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, mover = excluded.mover",
        params![id.to_string(), name, mover],
    )?;
    Ok(())
}

/// Notes that it answered, or that it did not.
pub fn seen(
    transaction: &Transaction<'_>,
    id: HostId,
    version: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    execute(
        transaction,
        "UPDATE hosts SET version = ?2, seen = ?3 WHERE id = ?1",
        params![id.to_string(), version, now.0],
    )?;
    Ok(())
}

/// Forgets one.
///
/// # Errors
/// `Conflict` where a repository or job uses it.
pub fn remove(transaction: &Transaction<'_>, host: &Host) -> Result<()> {
    let id = host.id.to_string();
    let users = all(
        transaction,
        "SELECT 'repository ' || name FROM repositories WHERE host = ?1
         UNION ALL SELECT 'job ' || name FROM jobs WHERE settings_json LIKE '%' || ?1 || '%'",
        [&id],
        |columns| columns.get::<String>(0),
    )?;
    if !users.is_empty() {
        return Err(Error::new(
            Kind::Conflict,
            "host.in-use",
            format!("the host {} is used by: {}", host.name, users.join(", ")),
        )
        .hint("remove or change these first"));
    }
    execute(transaction, "DELETE FROM hosts WHERE id = ?1", [&id])?;
    Ok(())
}
