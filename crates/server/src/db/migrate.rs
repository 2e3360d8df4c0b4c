//! Brings a database to the schema of this program, one numbered step after another.
//!
//! Knows: the steps and their checksums. Refuses to know: what the tables mean.

use super::failed;
use base::{Error, Kind, Result};
use rusqlite::Connection;

/// The steps, in order. A released step never changes; a new one is added at the end.
const STEPS: &[(&str, &str)] = &[("0001_first", include_str!("schema/0001_first.sql"))];

/// Applies what is missing; the version reached.
///
/// # Errors
/// `Unsupported` where the database is of a newer program.
pub fn migrate(connection: &mut Connection) -> Result<u32> {
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    let doing = "migrating the database";
    let transaction = connection
        .transaction()
        .map_err(|error| failed(doing, error))?;
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_steps (
                number BIGINT PRIMARY KEY, name TEXT NOT NULL)",
        )
        .map_err(|error| failed(doing, error))?;
    let applied: u32 = transaction
        .query_row(
            "SELECT COALESCE(MAX(number), 0) FROM schema_steps",
            [],
            |row| row.get(0),
        )
        .map_err(|error| failed(doing, error))?;
    if applied > known {
        return Err(Error::new(
            Kind::Unsupported,
            "server.database.newer",
            format!("the database has schema {applied}; this program knows {known}"),
        )
        .hint("start the newer program that wrote it; nothing was changed"));
    }
    for (number, (name, sql)) in (1u32..).zip(STEPS).skip(applied as usize) {
        transaction
            .execute_batch(sql)
            .and_then(|()| {
                transaction.execute(
                    "INSERT INTO schema_steps (number, name) VALUES (?1, ?2)",
                    (number, name),
                )
            })
            .map_err(|error| failed(format!("applying schema step {name}"), error))?;
    }
    transaction.commit().map_err(|error| failed(doing, error))?;
    Ok(known)
}
