//! `backstay session ...`
//!
//! Knows: what people say of sessions. Refuses to know: what sessions do.

use crate::follow;
use crate::server::{Server, unexpected};
use crate::show::{self, Table};
use base::Result;
use clap::Subcommand;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A};
use protocol::words::session::{Session, Stop};

/// What to do with sessions.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show the last sessions, newest first
    List {
        /// Of this job only
        #[arg(long)]
        job: Option<String>,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one session with its tasks and its log
    Show {
        /// Id, or its last digits
        session: String,
    },
    /// Watch a session to its end
    Follow {
        /// Id, or its last digits
        session: String,
    },
    /// Ask a session to stop
    Stop {
        /// Id, or its last digits
        session: String,
        /// Let the machines at work finish
        #[arg(long)]
        after_current: bool,
    },
}

/// Does it.
pub fn run(server: &Server, verb: &Verb) -> Result<u8> {
    match verb {
        Verb::List { job, limit } => list(server, job.as_ref(), *limit)?,
        Verb::Show { session } => show_one(server, &find(server, session)?)?,
        Verb::Follow { session } => return follow::follow(server, &find(server, session)?),
        Verb::Stop {
            session,
            after_current,
        } => {
            let stop = if *after_current {
                Stop::AfterCurrent
            } else {
                Stop::Now
            };
            match server.ask(&Q::SessionStop {
                key: session.clone(),
                stop,
            })? {
                A::Done => show::done(server.json(), "asked to stop")?,
                other => return Err(unexpected(&other)),
            }
        }
    }
    Ok(0)
}

fn find(server: &Server, key: &str) -> Result<Session> {
    match server.ask(&Q::SessionShow {
        key: key.to_owned(),
    })? {
        A::Session(session) => Ok(*session),
        other => Err(unexpected(&other)),
    }
}

fn list(server: &Server, job: Option<&String>, limit: u32) -> Result<()> {
    let sessions = newest(server, job, limit)?;
    if server.json() {
        return show::json(&sessions);
    }
    let mut table = Table::new(&[
        "SESSION", "KIND", "NAME", "STATE", "STARTED", "TOOK", "READ", "STORED", "BY",
    ]);
    for session in &sessions {
        let took = match (session.started, session.ended) {
            (Some(started), Some(ended)) => show::duration(ended.since(started)),
            _ => "-".to_owned(),
        };
        table.row(vec![
            session.id.short(),
            session.kind.name().to_owned(),
            session.name.clone(),
            session.state.name().to_owned(),
            show::time_or_dash(session.started),
            took,
            session.counters.read.to_string(),
            session.counters.stored.to_string(),
            session.initiator.clone(),
        ]);
    }
    table.print("no sessions yet")
}

/// The newest sessions, in as many questions as that takes.
pub fn newest(server: &Server, job: Option<&String>, limit: u32) -> Result<Vec<Session>> {
    let mut all: Vec<Session> = Vec::new();
    loop {
        let have = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let request = Q::SessionList {
            job: job.cloned(),
            limit: limit.saturating_sub(have),
            after: all.last().map(|session| (session.created, session.id)),
        };
        let (sessions, more) = match server.ask(&request)? {
            A::Sessions { sessions, more } => (sessions, more),
            other => return Err(unexpected(&other)),
        };
        let none = sessions.is_empty();
        all.extend(sessions);
        if !more || none || all.len() >= limit as usize {
            return Ok(all);
        }
    }
}

fn show_one(server: &Server, session: &Session) -> Result<()> {
    let request = Q::SessionFollow {
        session: session.id,
        seen: 0,
        line: 0,
    };
    let lines = match server.ask(&request)? {
        A::Followed { lines, .. } => lines,
        other => return Err(unexpected(&other)),
    };
    if server.json() {
        return show::json(&serde_json::json!({ "session": session, "lines": lines }));
    }
    show::line(&format!("{}  {}", session.id, follow::summary(session)))?;
    let mut table = Table::new(&[
        "TASK",
        "STATE",
        "PROCESSED",
        "READ",
        "TRANSFERRED",
        "STORED",
    ]);
    for task in &session.tasks {
        let c = &task.counters;
        table.row(vec![
            task.name.clone(),
            task.state.name().to_owned(),
            c.processed.to_string(),
            c.read.to_string(),
            c.transferred.to_string(),
            c.stored.to_string(),
        ]);
    }
    if !session.tasks.is_empty() {
        show::line(&table.text())?;
    }
    lines
        .iter()
        .try_for_each(|line| show::line(&follow::draw_line(line)))
}
