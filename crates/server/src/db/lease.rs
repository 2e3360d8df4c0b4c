//! Rows of leases: which session uses which slot of what.
//!
//! Knows: slots, and that one slot has one holder. Refuses to know: how many slots there should be.

use super::value::{all, execute};
use base::Result;
use base::id::SessionId;
use rusqlite::{Transaction, params};

/// Who holds slots of a resource.
pub fn holders(transaction: &Transaction<'_>, resource: &str) -> Result<Vec<(SessionId, i64)>> {
    let sql = "SELECT session, slot FROM leases WHERE resource = ?1 ORDER BY slot";
    all(transaction, sql, [resource], |columns| {
        Ok((columns.id(0)?, columns.get(1)?))
    })
}

/// Takes a slot.
pub fn take(
    transaction: &Transaction<'_>,
    resource: &str,
    session: SessionId,
    slot: i64,
) -> Result<()> {
    execute(
        transaction,
        "INSERT INTO leases (resource, session, slot) VALUES (?1, ?2, ?3)",
        params![resource, session.to_string(), slot],
    )?;
    Ok(())
}

/// Gives one slot of a session back.
pub fn release(transaction: &Transaction<'_>, resource: &str, session: SessionId) -> Result<()> {
    execute(
        transaction,
        "DELETE FROM leases WHERE resource = ?1 AND session = ?2 AND slot =
            (SELECT MAX(slot) FROM leases WHERE resource = ?1 AND session = ?2)",
        [resource, &session.to_string()],
    )?;
    Ok(())
}

/// Gives all slots of a session back.
pub fn release_all(transaction: &Transaction<'_>, session: SessionId) -> Result<()> {
    execute(
        transaction,
        "DELETE FROM leases WHERE session = ?1",
        [session.to_string()],
    )?;
    Ok(())
}

/// How many leases there are at all.
pub fn total(transaction: &Transaction<'_>) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM leases";
    let counts = all(transaction, sql, [], |columns| columns.get::<i64>(0))?;
    Ok(counts
        .first()
        .and_then(|count| u64::try_from(*count).ok())
        .unwrap_or(0))
}
