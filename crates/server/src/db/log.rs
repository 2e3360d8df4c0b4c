//! Rows of session logs.
//!
//! Knows: lines in order, each kept once. Refuses to know: how lines are shown.

use super::value::{all, execute, first};
use base::id::SessionId;
use base::{Error, Kind, Result};
use protocol::words::manager::NewLine;
use protocol::words::session::{Level, LogLine};
use rusqlite::{Transaction, params};

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

fn level_of(name: &str) -> Result<Level> {
    match name {
        "info" => Ok(Level::Info),
        "warning" => Ok(Level::Warning),
        "error" => Ok(Level::Error),
        _ => Err(Error::new(
            Kind::Corrupt,
            "server.database.row",
            "a log line has no level",
        )),
    }
}

/// Adds lines. `writer` and each line's own number make it unique: a line said twice is kept once.
pub fn add(
    transaction: &Transaction<'_>,
    session: SessionId,
    writer: &str,
    lines: &[NewLine],
) -> Result<()> {
    for line in lines {
        execute(
            transaction,
            "INSERT INTO log_lines
                (session, number, writer, writer_number, time, level, code, subject, text)
             SELECT ?1, COALESCE((SELECT MAX(number) FROM log_lines WHERE session = ?1), 0) + 1,
                ?2, ?3, ?4, ?5, ?6, ?7, ?8
             WHERE NOT EXISTS (SELECT 1 FROM log_lines
                WHERE session = ?1 AND writer = ?2 AND writer_number = ?3)",
            params![
                session.to_string(),
                writer,
                i64::try_from(line.number).unwrap_or(i64::MAX),
                line.time.0,
                level_name(line.level),
                line.code,
                line.subject,
                line.text,
            ],
        )?;
    }
    Ok(())
}

/// Lines after `after`, at most `limit`.
pub fn list(
    transaction: &Transaction<'_>,
    session: SessionId,
    after: u64,
    limit: u32,
) -> Result<Vec<LogLine>> {
    all(
        transaction,
        "SELECT number, time, level, code, subject, text FROM log_lines
         WHERE session = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
        params![
            session.to_string(),
            i64::try_from(after).unwrap_or(i64::MAX),
            limit
        ],
        |columns| {
            Ok(LogLine {
                number: u64::try_from(columns.get::<i64>(0)?).unwrap_or(0),
                time: columns.time(1)?,
                level: level_of(&columns.get::<String>(2)?)?,
                code: columns.get(3)?,
                subject: columns.get(4)?,
                text: columns.get(5)?,
            })
        },
    )
}

/// The number for the server's own next line of a session.
pub fn next_own_number(transaction: &Transaction<'_>, session: SessionId) -> Result<u64> {
    let found = first(
        transaction,
        "SELECT COUNT(*) FROM log_lines WHERE session = ?1 AND writer = 'server'",
        [session.to_string()],
        |columns| columns.get::<i64>(0),
    )?;
    Ok(u64::try_from(found.unwrap_or(0)).unwrap_or(0) + 1)
}
