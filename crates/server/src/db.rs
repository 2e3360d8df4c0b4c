//! The database: the only room of this crate that holds SQL.
//!
//! Knows: the schema, its migrations, and one file of queries a noun. Refuses to know: what the
//! rows are for. The database is a cache: `repository open` and a rescan rebuild the points.
//!
//! SQLite in write-ahead mode, one connection behind a lock: writes are one queue, and a session's
//! numbers are small. SQL is kept to what PostgreSQL has too.

pub mod host;
pub mod job;
pub mod lease;
pub mod log;
pub mod machine;
pub mod migrate;
pub mod point;
pub mod repository;
pub mod session;
mod value;

use base::{Error, Kind, Result};
pub use rusqlite::Transaction;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The database.
pub struct Database {
    connection: Mutex<Connection>,
    schema_version: u32,
}

impl Database {
    /// Opens the database of a state folder, making or migrating it.
    ///
    /// # Errors
    /// `Unsupported` where it is of a newer program; it is left untouched then.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("opening the database {}", path.display());
        let connection = Connection::open(path).map_err(|error| failed(doing(), error))?;
        Self::prepare(connection).map_err(|error| error.context(doing()))
    }

    /// A database that ends with the process. For tests.
    pub fn in_memory() -> Result<Self> {
        let connection =
            Connection::open_in_memory().map_err(|error| failed("opening a database", error))?;
        Self::prepare(connection)
    }

    fn prepare(mut connection: Connection) -> Result<Self> {
        let doing = "preparing the database";
        connection
            .busy_timeout(std::time::Duration::from_secs(10))
            .map_err(|error| failed(doing, error))?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
            )
            .map_err(|error| failed(doing, error))?;
        let schema_version = migrate::migrate(&mut connection)?;
        Ok(Self {
            connection: Mutex::new(connection),
            schema_version,
        })
    }

    /// Version of the schema.
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// Runs `work` in one transaction: all of it happens, or nothing.
    pub fn transaction<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| failed("beginning a transaction", error))?;
        let value = work(&transaction)?;
        transaction
            .commit()
            .map_err(|error| failed("committing a transaction", error))?;
        Ok(value)
    }
}

/// An error of the database, with what was being done.
pub(crate) fn failed(doing: impl Into<String>, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as C;
    let (kind, code) = match error.sqlite_error_code() {
        Some(C::ConstraintViolation) => (Kind::Conflict, "server.database.constraint"),
        Some(C::DiskFull) => (Kind::Full, "server.database.full"),
        Some(C::DatabaseCorrupt | C::NotADatabase) => (Kind::Corrupt, "server.database.corrupt"),
        Some(C::DatabaseBusy | C::DatabaseLocked) => (Kind::Conflict, "server.database.busy"),
        Some(C::PermissionDenied | C::ReadOnly) => (Kind::Denied, "server.database.read-only"),
        Some(C::CannotOpen) => (Kind::Io, "server.database.cannot-open"),
        _ => (Kind::Io, "server.database.failed"),
    };
    let result = Error::new(kind, code, doing).caused_by(error);
    if kind == Kind::Corrupt {
        result.hint(
            "move the database away and start again: repositories hold all that is needed; add \
             each with \u{201c}backstay repository open\u{201d} to find its points",
        )
    } else {
        result
    }
}
