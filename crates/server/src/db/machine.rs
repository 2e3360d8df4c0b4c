//! Rows of machines: what platforms said they have.
//!
//! Knows: machines by host and platform. Refuses to know: which jobs cover them.

use super::value::{Columns, all, execute, to_json};
use base::Result;
use base::clock::Timestamp;
use base::id::{HostId, MachineId};
use protocol::words::manager::FoundMachine;
use protocol::words::span::Span;
use rusqlite::{Transaction, params};

/// A machine as last seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineRow {
    /// The host of its platform.
    pub host: HostId,
    /// The platform's name.
    pub platform: String,
    /// Ours.
    pub machine: MachineId,
    /// As the platform has it.
    pub found: FoundMachine,
}

fn read(columns: &Columns<'_, '_>) -> Result<MachineRow> {
    Ok(MachineRow {
        host: columns.id(0)?,
        platform: columns.get(1)?,
        machine: columns.id(2)?,
        found: columns.json(3)?,
    })
}

/// All, by name.
pub fn list(transaction: &Transaction<'_>) -> Result<Vec<MachineRow>> {
    let sql = "SELECT host, platform, machine, found_json FROM machines ORDER BY name, host";
    all(transaction, sql, [], read)
}

/// Takes in what a platform of a host has now, and forgets what it does not have any more of the
/// span of the platform's ids that these machines tell of.
pub fn replace(
    transaction: &Transaction<'_>,
    (host, platform): (HostId, &str),
    complete: &Span<String>,
    machines: &[FoundMachine],
    now: Timestamp,
) -> Result<()> {
    let key = [host.to_string(), platform.to_owned()];
    execute(
        transaction,
        "DELETE FROM machines WHERE host = ?1 AND platform = ?2
            AND (?3 IS NULL OR platform_id > ?3) AND (?4 IS NULL OR platform_id <= ?4)",
        params![key[0], key[1], complete.after, complete.to],
    )?;
    for found in machines {
        let machine = MachineId::of_platform(platform, &found.platform_id);
        execute(
            transaction,
            "INSERT INTO machines (host, platform, platform_id, machine, name, found_json, seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (host, platform, platform_id) DO NOTHING",
            params![
                key[0],
                key[1],
                found.platform_id,
                machine.to_string(),
                found.name,
                to_json(found)?,
                now.0,
            ],
        )?;
    }
    Ok(())
}
