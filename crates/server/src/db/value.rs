//! How words are kept in columns.
//!
//! Knows: ids as text, words as JSON, times as microseconds. Refuses to know: tables.

use base::clock::Timestamp;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use rusqlite::{OptionalExtension, Params, Row, Transaction};
use serde::{Serialize, de::DeserializeOwned};
use std::str::FromStr;

use super::failed;

/// A word as JSON text.
pub fn to_json(word: &impl Serialize) -> Result<String> {
    serde_json::to_string(word).map_err(|error| {
        Error::new(Kind::Bug, "server.database.encode", "encoding a row").caused_by(error)
    })
}

/// A word from JSON text.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::corrupt(
            "server.database.row",
            "a row of the database cannot be read",
        )
        .caused_by(error)
    })
}

/// Bytes as SQLite has them. Sizes over 2^63 do not exist.
pub fn count(bytes: ByteCount) -> i64 {
    i64::try_from(bytes.0).unwrap_or(i64::MAX)
}

/// Reads one row's columns by position, with the house's errors.
pub struct Columns<'a, 'b>(pub &'a Row<'b>);

impl Columns<'_, '_> {
    /// A column that SQLite converts by itself.
    pub fn get<T: rusqlite::types::FromSql>(&self, index: usize) -> Result<T> {
        self.0
            .get(index)
            .map_err(|error| failed("reading a row", error))
    }

    /// An id.
    pub fn id<T: FromStr<Err = Error>>(&self, index: usize) -> Result<T> {
        self.get::<String>(index)?.parse()
    }

    /// A word kept as JSON.
    pub fn json<T: DeserializeOwned>(&self, index: usize) -> Result<T> {
        from_json(&self.get::<String>(index)?)
    }

    /// A word kept as JSON, where there is one.
    pub fn json_option<T: DeserializeOwned>(&self, index: usize) -> Result<Option<T>> {
        self.get::<Option<String>>(index)?
            .as_deref()
            .map(from_json)
            .transpose()
    }

    /// A time.
    pub fn time(&self, index: usize) -> Result<Timestamp> {
        self.get(index).map(Timestamp)
    }

    /// A time, where there is one.
    pub fn time_option(&self, index: usize) -> Result<Option<Timestamp>> {
        Ok(self.get::<Option<i64>>(index)?.map(Timestamp))
    }

    /// A number of bytes.
    pub fn count(&self, index: usize) -> Result<ByteCount> {
        let value: i64 = self.get(index)?;
        Ok(ByteCount(u64::try_from(value).unwrap_or(0)))
    }
}

/// All rows of a query.
pub fn all<T>(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: impl Params,
    mut read: impl FnMut(&Columns<'_, '_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = transaction
        .prepare_cached(sql)
        .map_err(|error| failed("preparing a query", error))?;
    let mut rows = statement
        .query(parameters)
        .map_err(|error| failed("querying", error))?;
    let mut values = Vec::new();
    while let Some(row) = rows.next().map_err(|error| failed("querying", error))? {
        values.push(read(&Columns(row))?);
    }
    Ok(values)
}

/// The first row of a query, if any.
pub fn first<T>(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Columns<'_, '_>) -> Result<T>,
) -> Result<Option<T>> {
    let mut statement = transaction
        .prepare_cached(sql)
        .map_err(|error| failed("preparing a query", error))?;
    let found = statement
        .query_row(parameters, |row| Ok(read(&Columns(row))))
        .optional()
        .map_err(|error| failed("querying", error))?;
    found.transpose()
}

/// Runs a statement; the number of rows it touched.
pub fn execute(transaction: &Transaction<'_>, sql: &str, parameters: impl Params) -> Result<usize> {
    let mut statement = transaction
        .prepare_cached(sql)
        .map_err(|error| failed("preparing a statement", error))?;
    statement
        .execute(parameters)
        .map_err(|error| failed("writing to the database", error))
}
