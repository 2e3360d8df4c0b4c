//! What managers say of their sessions.
//!
//! Knows: how each word is kept. Refuses to know: why it was said.

use crate::site::Site;
use crate::{db, resources, sessions};
use base::id::{RepositoryId, SessionId};
use base::{Error, Kind, Result};
use protocol::words::manager::{LeaseAnswer, ManagerRequest as Q, ManagerResponse as A, Resource};
use protocol::words::repository::RepositorySummary;
use protocol::words::session::{Outcome, SessionState};
use std::sync::{Mutex, PoisonError};

/// One link of a manager: after `Attach` it speaks for one session.
#[derive(Default)]
pub struct Attached {
    session: Mutex<Option<(SessionId, u32)>>,
}

impl Attached {
    /// Answers a manager.
    ///
    /// # Errors
    /// `Denied` before `Attach`; `Conflict` (`session.ended`) where the session has ended: the
    /// manager must undo what it did and go.
    pub fn answer(&self, site: &Site, request: Q) -> Result<A> {
        if let Q::Attach { session, pid } = request {
            return self.attach(site, session, pid);
        }
        let held = *self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((id, pid)) = held else {
            return Err(Error::new(
                Kind::Denied,
                "session.not-attached",
                "the manager has not said which session it runs",
            ));
        };
        site.hear(id);
        let answer = note(site, id, pid, request);
        site.live.changed(id);
        answer
    }

    fn attach(&self, site: &Site, id: SessionId, pid: u32) -> Result<A> {
        let session = site
            .database
            .transaction(|t| db::session::find(t, &id.to_string()))?;
        if session.state.is_final() {
            return Err(Error::new(
                Kind::Conflict,
                "session.ended",
                format!("the session {id} has ended"),
            ));
        }
        let order = sessions::order_for_manager(site, id)?;
        site.database
            .transaction(|t| db::session::set_pid(t, id, Some(pid)))?;
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, pid));
        site.hear(id);
        Ok(A::Order(Box::new(order)))
    }
}

fn note(site: &Site, id: SessionId, pid: u32, request: Q) -> Result<A> {
    match request {
        Q::Attach { .. } | Q::Heartbeat => {
            let stop = site.database.transaction(|t| db::session::stop(t, id))?;
            return Ok(A::Alive(stop));
        }
        Q::Lease(resource) => return lease(site, id, &resource).map(A::Lease),
        Q::Release(resource) => site
            .database
            .transaction(|t| db::lease::release(t, &resources::name(&resource), id))?,
        Q::State(state) => sessions::set_state(site, id, &state),
        Q::Log(lines) => {
            site.database
                .transaction(|t| db::log::add(t, id, &pid.to_string(), &lines))?;
        }
        Q::Task(task) => site
            .database
            .transaction(|t| db::session::put_task(t, id, &task))?,
        Q::Counters(counters) => {
            site.database
                .transaction(|t| db::session::set_counters(t, id, &counters))?;
        }
        Q::PointsFound {
            repository,
            points,
            complete,
        } => site.database.transaction(|t| {
            if let Some(stray) = points.iter().find(|point| point.repository != repository) {
                return Err(Error::invalid(
                    "repository.point-foreign",
                    format!("the point {} says it is of another repository", stray.id),
                ));
            }
            db::point::put(t, &points)?;
            match &complete {
                Some(span) => db::point::retain(t, repository, span, &points),
                None => Ok(()),
            }
        })?,
        Q::PointsGone { points, .. } => {
            site.database
                .transaction(|t| db::point::remove(t, &points))?;
        }
        Q::RepositorySpace {
            repository,
            capacity,
            free,
            stored,
        } => site
            .database
            .transaction(|t| db::repository::space(t, repository, capacity, free, stored))?,
        Q::RepositoryIdentified {
            repository,
            summary,
        } => identify(site, repository, &summary)?,
        Q::MachinesFound {
            host,
            platform,
            machines,
            complete,
        } => {
            let now = site.clock.now();
            site.database.transaction(|t| {
                db::machine::replace(t, (host, &platform), &complete, &machines, now)
            })?;
        }
        Q::Finish { state, outcome } => finish(site, id, &state, outcome.as_ref())?,
    }
    Ok(A::Done)
}

fn lease(site: &Site, id: SessionId, resource: &Resource) -> Result<LeaseAnswer> {
    site.database.transaction(|t| {
        let name = resources::name(resource);
        let holders = db::lease::holders(t, &name)?;
        let decision = resources::decide(resource, &holders, id, site.limits);
        if let resources::Decision::Take(slot) = decision {
            db::lease::take(t, &name, id, slot)?;
        }
        Ok(LeaseAnswer::from(&decision))
    })
}

/// Takes the repository's own word for its id.
fn identify(site: &Site, known_as: RepositoryId, summary: &RepositorySummary) -> Result<()> {
    let identified = site
        .database
        .transaction(|t| db::repository::is_identified(t, known_as))?;
    if identified && known_as == summary.id {
        return Ok(());
    }
    if identified {
        return Err(Error::new(
            Kind::Conflict,
            "repository.changed",
            format!(
                "another repository lies in this place now: {} instead of {known_as}",
                summary.id
            ),
        )
        .hint(
            "bring the right disk or folder back; if it was meant to be replaced, remove the \
             repository here and open it anew",
        ));
    }
    let password = site
        .repository_password(known_as)?
        .filter(|_| summary.encrypted);
    let sealed = password
        .map(|password| site.seal_password(summary.id, &password))
        .transpose()?;
    site.database.transaction(|t| {
        if known_as != summary.id && db::repository::is_identified(t, summary.id)? {
            return Err(Error::new(
                Kind::Exists,
                "repository.known",
                format!(
                    "the repository {} is known already under another name",
                    summary.id
                ),
            )
            .hint("\u{201c}backstay repository list\u{201d} shows it"));
        }
        db::repository::identify(
            t,
            known_as,
            summary.id,
            summary.encrypted,
            sealed.as_deref(),
        )
    })
}

fn finish(
    site: &Site,
    id: SessionId,
    state: &SessionState,
    outcome: Option<&Outcome>,
) -> Result<()> {
    if !state.is_final() {
        return Err(Error::invalid(
            "session.not-final",
            "a session cannot end in this state",
        ));
    }
    let now = site.clock.now();
    site.database.transaction(|t| {
        if let Some(outcome) = outcome {
            db::session::set_outcome(t, id, outcome)?;
        }
        db::session::set_state(t, id, state, now)?;
        db::lease::release_all(t, id)
    })
}
