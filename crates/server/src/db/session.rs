//! Rows of sessions and their tasks.
//!
//! Knows: one schema for every kind. Refuses to know: what a kind does.

use super::value::{Columns, all, execute, first, from_json, to_json};
use base::clock::Timestamp;
use base::id::{JobId, RepositoryId, SessionId};
use base::{Error, Kind, Result};
use protocol::words::counters::Counters;
use protocol::words::session::{Outcome, Session, SessionOrder, SessionState, Stop, Task};
use rusqlite::{Transaction, params};

const COLUMNS: &str = "SELECT id, kind_json, name, initiator, state_json, created, started, ended,
    counters_json, outcome_json FROM sessions";

fn read(columns: &Columns<'_, '_>) -> Result<Session> {
    Ok(Session {
        id: columns.id(0)?,
        kind: columns.json(1)?,
        name: columns.get(2)?,
        initiator: columns.get(3)?,
        state: columns.json(4)?,
        created: columns.time(5)?,
        started: columns.time_option(6)?,
        ended: columns.time_option(7)?,
        counters: columns.json(8)?,
        tasks: Vec::new(),
        outcome: columns.json_option(9)?,
    })
}

/// Adds one.
pub fn add(
    transaction: &Transaction<'_>,
    session: &Session,
    job: Option<JobId>,
    repository: Option<RepositoryId>,
) -> Result<()> {
    execute(
        transaction,
        "INSERT INTO sessions (id, kind, kind_json, job, repository, name, initiator, state,
            state_json, created, counters_json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            session.id.to_string(),
            session.kind.name(),
            to_json(&session.kind)?,
            job.map(|id| id.to_string()),
            repository.map(|id| id.to_string()),
            session.name,
            session.initiator,
            session.state.name(),
            to_json(&session.state)?,
            session.created.0,
            to_json(&session.counters)?,
        ],
    )?;
    Ok(())
}

/// Newest first, without tasks; those listed after one where given.
pub fn list(
    transaction: &Transaction<'_>,
    job: Option<JobId>,
    after: Option<(Timestamp, SessionId)>,
    limit: u32,
) -> Result<Vec<Session>> {
    let (created, id) = after.unzip();
    all(
        transaction,
        &format!(
            "{COLUMNS} WHERE (?1 IS NULL OR job = ?1) AND (?2 IS NULL OR (created, id) < (?2, ?3))
             ORDER BY created DESC, id DESC LIMIT ?4"
        ),
        params![
            job.map(|id| id.to_string()),
            created.map(|created| created.0),
            id.map(|id| id.to_string()),
            limit,
        ],
        read,
    )
}

/// Those that have not ended.
pub fn at_work(transaction: &Transaction<'_>) -> Result<Vec<Session>> {
    all(
        transaction,
        &format!("{COLUMNS} WHERE final = 0 ORDER BY created"),
        [],
        read,
    )
}

/// Whether a session of this job has not ended.
pub fn job_at_work(transaction: &Transaction<'_>, job: JobId) -> Result<Option<SessionId>> {
    let sql = "SELECT id FROM sessions WHERE job = ?1 AND final = 0 LIMIT 1";
    first(transaction, sql, [job.to_string()], |columns| columns.id(0))
}

/// One with its tasks, by id or its last digits.
///
/// # Errors
/// `NotFound`; `Invalid` where several end so.
pub fn find(transaction: &Transaction<'_>, key: &str) -> Result<Session> {
    let key = key.trim().to_ascii_lowercase();
    let fit = key.len() >= 4
        && key
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let found = if fit {
        all(
            transaction,
            &format!("{COLUMNS} WHERE id LIKE '%' || ?1 LIMIT 2"),
            [&key],
            read,
        )?
    } else {
        Vec::new()
    };
    match <[Session; 1]>::try_from(found) {
        Ok([mut session]) => {
            session.tasks = tasks(transaction, session.id)?;
            Ok(session)
        }
        Err(found) if found.is_empty() => Err(Error::new(
            Kind::NotFound,
            "session.not-found",
            format!("there is no session \u{201c}{key}\u{201d}"),
        )
        .hint("\u{201c}backstay session list\u{201d} shows the last ones")),
        Err(_) => Err(Error::invalid(
            "session.ambiguous",
            format!("several sessions end in \u{201c}{key}\u{201d}"),
        )
        .hint("give more digits")),
    }
}

/// Changes the state; the first `Running` and the end are stamped.
pub fn set_state(
    transaction: &Transaction<'_>,
    id: SessionId,
    state: &SessionState,
    now: Timestamp,
) -> Result<()> {
    execute(
        transaction,
        "UPDATE sessions SET state = ?2, state_json = ?3, final = ?4,
            started = COALESCE(started, CASE WHEN ?2 IN ('queued', 'starting') THEN NULL ELSE ?5 END),
            ended = CASE WHEN ?4 = 1 THEN ?5 ELSE NULL END
         WHERE id = ?1 AND final = 0",
        params![id.to_string(), state.name(), to_json(state)?, state.is_final(), now.0],
    )?;
    if state.is_final() {
        end_tasks(transaction, id, state)?;
    }
    Ok(())
}

/// Tasks end with their session at the latest: a manager that died has not said how they did.
fn end_tasks(transaction: &Transaction<'_>, id: SessionId, state: &SessionState) -> Result<()> {
    for mut task in tasks(transaction, id)? {
        if !task.state.is_final() {
            task.state = state.clone();
            put_task(transaction, id, &task)?;
        }
    }
    Ok(())
}

/// Sets the counters.
pub fn set_counters(
    transaction: &Transaction<'_>,
    id: SessionId,
    counters: &Counters,
) -> Result<()> {
    execute(
        transaction,
        "UPDATE sessions SET counters_json = ?2 WHERE id = ?1",
        [id.to_string(), to_json(counters)?],
    )?;
    Ok(())
}

/// Sets what it found or made.
pub fn set_outcome(transaction: &Transaction<'_>, id: SessionId, outcome: &Outcome) -> Result<()> {
    execute(
        transaction,
        "UPDATE sessions SET outcome_json = ?2 WHERE id = ?1",
        [id.to_string(), to_json(outcome)?],
    )?;
    Ok(())
}

/// Notes its manager's process.
pub fn set_pid(transaction: &Transaction<'_>, id: SessionId, pid: Option<u32>) -> Result<()> {
    execute(
        transaction,
        "UPDATE sessions SET pid = ?2 WHERE id = ?1",
        params![id.to_string(), pid],
    )?;
    Ok(())
}

/// Its manager's process, as last noted.
pub fn pid(transaction: &Transaction<'_>, id: SessionId) -> Result<Option<u32>> {
    let sql = "SELECT pid FROM sessions WHERE id = ?1";
    Ok(first(transaction, sql, [id.to_string()], |columns| columns.get(0))?.flatten())
}

/// Notes that somebody asked it to stop. A stronger request stays.
pub fn set_stop(transaction: &Transaction<'_>, id: SessionId, stop: Stop) -> Result<()> {
    if self::stop(transaction, id)? == Some(Stop::Now) {
        return Ok(());
    }
    execute(
        transaction,
        "UPDATE sessions SET stop_json = ?2 WHERE id = ?1 AND final = 0",
        [id.to_string(), to_json(&stop)?],
    )?;
    Ok(())
}

/// Whether somebody asked it to stop.
pub fn stop(transaction: &Transaction<'_>, id: SessionId) -> Result<Option<Stop>> {
    let sql = "SELECT stop_json FROM sessions WHERE id = ?1";
    let found = first(transaction, sql, [id.to_string()], |columns| {
        columns.get::<Option<String>>(0)
    })?;
    found.flatten().as_deref().map(from_json).transpose()
}

/// Keeps the order, so that a manager started again gets the very same. It holds no secret: the
/// password of a repository is added when it is handed over.
pub fn set_order(transaction: &Transaction<'_>, order: &SessionOrder) -> Result<()> {
    let mut kept = order.clone();
    if let Some(repository) = &mut kept.repository {
        repository.access.password = None;
    }
    execute(
        transaction,
        "UPDATE sessions SET order_json = ?2 WHERE id = ?1",
        [order.id.to_string(), to_json(&kept)?],
    )?;
    Ok(())
}

/// The order as kept.
pub fn order(transaction: &Transaction<'_>, id: SessionId) -> Result<Option<SessionOrder>> {
    let sql = "SELECT order_json FROM sessions WHERE id = ?1";
    Ok(first(transaction, sql, [id.to_string()], |columns| {
        columns.json_option(0)
    })?
    .flatten())
}

/// Adds a task or changes it.
pub fn put_task(transaction: &Transaction<'_>, session: SessionId, task: &Task) -> Result<()> {
    execute(
        transaction,
        "INSERT INTO tasks (id, session, position, name, state_json, counters_json)
         SELECT ?1, ?2, COALESCE((SELECT MAX(position) FROM tasks WHERE session = ?2), 0) + 1,
            ?3, ?4, ?5
         WHERE 1 = 1
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, state_json = excluded.state_json,
            counters_json = excluded.counters_json",
        params![
            task.id.to_string(),
            session.to_string(),
            task.name,
            to_json(&task.state)?,
            to_json(&task.counters)?,
        ],
    )?;
    Ok(())
}

fn tasks(transaction: &Transaction<'_>, session: SessionId) -> Result<Vec<Task>> {
    all(
        transaction,
        "SELECT id, name, state_json, counters_json FROM tasks WHERE session = ?1
         ORDER BY position",
        [session.to_string()],
        |columns| {
            Ok(Task {
                id: columns.id(0)?,
                name: columns.get(1)?,
                state: columns.json(2)?,
                counters: columns.json(3)?,
            })
        },
    )
}
