//! Requests about sessions.
//!
//! Knows: how to list, show, follow and stop them. Refuses to know: what they do.

use crate::db;
use crate::site::Site;
use base::clock::Timestamp;
use base::id::SessionId;
use base::{Error, Kind, Result};
use protocol::paging;
use protocol::words::console::ConsoleResponse as A;
use protocol::words::session::Stop;
use std::time::Duration;

/// How long a follower waits for a change.
const FOLLOW_MAX: Duration = Duration::from_secs(10);
/// Log lines in one answer.
const LINES_MAX: u32 = 1000;
/// Sessions looked at for one answer; as many of them go into it as one message holds.
const ROWS_MAX: u32 = 5_000;

pub fn list(
    site: &Site,
    job: Option<&str>,
    after: Option<(Timestamp, SessionId)>,
    limit: u32,
) -> Result<A> {
    let limit = limit.min(ROWS_MAX);
    let sessions = site.database.transaction(|t| {
        let job = job.map(|key| db::job::find(t, key)).transpose()?;
        db::session::list(t, job.map(|row| row.job.id), after, limit)
    })?;
    let rows_left = limit > 0 && sessions.len() == limit as usize;
    let page = paging::page(sessions.into_iter().map(Ok))?;
    Ok(A::Sessions {
        sessions: page.items,
        more: page.more || rows_left,
    })
}

pub fn show(site: &Site, key: &str) -> Result<A> {
    let session = site.database.transaction(|t| db::session::find(t, key))?;
    Ok(A::Session(Box::new(session)))
}

pub async fn follow(site: &Site, id: SessionId, seen: u64, line: u64) -> Result<A> {
    let key = id.to_string();
    // An unknown session is an error at once, not after the wait.
    site.database.transaction(|t| db::session::find(t, &key))?;
    let revision = site.live.wait(id, seen, FOLLOW_MAX).await;
    let (session, lines) = site.database.transaction(|t| {
        Ok((
            db::session::find(t, &key)?,
            db::log::list(t, id, line, LINES_MAX)?,
        ))
    })?;
    // The follower asks on after the last line it got.
    let lines = paging::page(lines.into_iter().map(Ok))?.items;
    Ok(A::Followed {
        session: Box::new(session),
        lines,
        revision,
    })
}

pub fn stop(site: &Site, key: &str, stop: Stop) -> Result<A> {
    let session = site.database.transaction(|t| {
        let session = db::session::find(t, key)?;
        if session.state.is_final() {
            return Err(Error::new(
                Kind::Conflict,
                "session.ended",
                format!("the session {} has ended already", session.id.short()),
            )
            .hint("\u{201c}backstay session show\u{201d} says how"));
        }
        db::session::set_stop(t, session.id, stop)?;
        Ok(session)
    })?;
    site.live.changed(session.id);
    Ok(A::Done)
}
