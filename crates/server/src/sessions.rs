//! The life of a session: asked for, started, watched, recovered, ended.
//!
//! Knows: that each session has one manager process, and that a manager that ends without saying
//! so is followed by another that undoes what it left. Refuses to know: what managers do.
//!
//! ```text
//! Queued -> Starting -> Running ... -> Success | Warning | Failed | Stopped
//!              |            |
//!              v            v          manager gone without a word, or silent for too long
//!           recovery manager: reads the journal, undoes, says Failed
//! ```

use crate::db;
use crate::db::Transaction;
use crate::launch::is_manager_of;
use crate::site::Site;
use base::id::{HostId, JobId, RepositoryId, SessionId};
use base::{Error, Kind, Result};
use protocol::words::console::Repository;
use protocol::words::counters::Counters;
use protocol::words::job::Job;
use protocol::words::manager::NewLine;
use protocol::words::repository::RepositoryAccess;
use protocol::words::session::{
    Level, OrderedHost, OrderedRepository, Session, SessionKind, SessionOrder, SessionState,
};
use std::sync::Arc;
use std::time::Duration;

/// How long a manager may be silent before it counts as dead. Leases end with it.
pub const SILENCE_MAX: Duration = Duration::from_secs(40);
/// How long managers that outlived the server may take to come back after its restart.
pub const GRACE_AFTER_RESTART: Duration = Duration::from_secs(15);
/// How often recovery is tried before a session is given up as failed.
const RECOVERY_ATTEMPTS: u32 = 5;

/// What a new session is about.
pub struct Request {
    /// What to do.
    pub kind: SessionKind,
    /// What people call it.
    pub name: String,
    /// Who asked.
    pub initiator: String,
    /// The job, for a backup.
    pub job: Option<Job>,
    /// The repository it works with.
    pub repository: Option<RepositoryId>,
    /// Hosts that take part besides the repository's.
    pub hosts: Vec<HostId>,
}

/// Records a session and starts its manager.
///
/// # Errors
/// `Conflict` with code `job.already-running` where a session of the job is at work.
pub fn start(site: &Arc<Site>, request: Request) -> Result<Session> {
    let session = site.database.transaction(|t| record(site, t, &request))?;
    site.live.changed(session.id);
    tokio::spawn(run(site.clone(), session.id));
    Ok(session)
}

fn record(site: &Site, t: &Transaction<'_>, request: &Request) -> Result<Session> {
    let job: Option<JobId> = request.job.as_ref().map(|job| job.id);
    if let Some(other) = job
        .map(|id| db::session::job_at_work(t, id))
        .transpose()?
        .flatten()
    {
        return Err(Error::new(
            Kind::Conflict,
            "job.already-running",
            format!(
                "the job {} is running already, as session {}",
                request.name,
                other.short()
            ),
        )
        .hint(format!(
            "follow it with \u{201c}backstay session follow {}\u{201d}",
            other.short()
        )));
    }
    let session = Session {
        id: SessionId::generate(site.clock.as_ref(), site.random.as_ref()),
        kind: request.kind.clone(),
        name: request.name.clone(),
        initiator: request.initiator.clone(),
        state: SessionState::Queued,
        created: site.clock.now(),
        started: None,
        ended: None,
        counters: Counters::default(),
        tasks: Vec::new(),
        outcome: None,
    };
    db::session::add(t, &session, job, request.repository)?;
    db::session::set_order(t, &order(t, session.id, request)?)?;
    Ok(session)
}

fn order(t: &Transaction<'_>, id: SessionId, request: &Request) -> Result<SessionOrder> {
    let repository: Option<Repository> = request
        .repository
        .map(|id| db::repository::find(t, &id.to_string()))
        .transpose()?;
    let mut wanted = request.hosts.clone();
    wanted.extend(repository.iter().map(|repository| repository.host));
    let mut hosts: Vec<OrderedHost> = Vec::new();
    for host in wanted {
        if hosts.iter().all(|known| known.id != host) {
            let host = db::host::find(t, &host.to_string())?;
            hosts.push(OrderedHost {
                id: host.id,
                name: host.name,
                mover: host.mover,
            });
        }
    }
    Ok(SessionOrder {
        id,
        kind: request.kind.clone(),
        job: request.job.as_ref().map(|job| job.settings.clone()),
        repository: repository.map(|repository| OrderedRepository {
            id: repository.id,
            name: repository.name,
            access: RepositoryAccess {
                location: repository.location,
                password: None,
            },
            host: repository.host,
        }),
        hosts,
        image_machines: Vec::new(),
    })
}

/// The order of a session, with the key to its repository, as its manager gets it.
pub fn order_for_manager(site: &Site, id: SessionId) -> Result<SessionOrder> {
    let mut order = site
        .database
        .transaction(|t| db::session::order(t, id))?
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "session.not-found",
                format!("there is no session {id}"),
            )
        })?;
    if let Some(repository) = &mut order.repository {
        repository.access.password = site.repository_password(repository.id)?;
    }
    Ok(order)
}

/// Starts the manager of a new session and watches it to its end.
async fn run(site: Arc<Site>, id: SessionId) {
    set_state(&site, id, &SessionState::Starting);
    match site.launch.manager(id, false) {
        Ok(mut child) => {
            note_pid(&site, id, child.id());
            // Its exit status says nothing that its words to the server have not said.
            let _ = child.wait().await;
        }
        Err(error) => say(&site, id, Level::Error, error.code(), &error.to_string()),
    }
    recover_unless_ended(&site, id).await;
}

/// Takes up the sessions that were at work when an earlier server ended.
pub fn resume_all(site: &Arc<Site>) -> Result<()> {
    for session in site.database.transaction(db::session::at_work)? {
        tokio::spawn(resume(site.clone(), session.id));
    }
    Ok(())
}

async fn resume(site: Arc<Site>, id: SessionId) {
    let pid = site
        .database
        .transaction(|t| db::session::pid(t, id))
        .ok()
        .flatten();
    let restarted = tokio::time::Instant::now();
    while let Some(pid) = pid {
        let alive = is_manager_of(pid, id);
        let attached = site
            .silence(id)
            .is_some_and(|silence| silence < SILENCE_MAX);
        if !alive || (!attached && restarted.elapsed() > GRACE_AFTER_RESTART) {
            if alive {
                end_process(pid).await;
            }
            break;
        }
        if is_ended(&site, id) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    recover_unless_ended(&site, id).await;
}

/// Where the session has not ended: has a manager undo what is left, and ends it.
async fn recover_unless_ended(site: &Arc<Site>, id: SessionId) {
    for attempt in 1..=RECOVERY_ATTEMPTS {
        if is_ended(site, id) {
            finish(site, id);
            return;
        }
        if attempt == 1 {
            let text = "the manager ended without finishing; what it left is being undone";
            say(site, id, Level::Error, "session.manager-lost", text);
        }
        match site.launch.manager(id, true) {
            Ok(mut child) => {
                note_pid(site, id, child.id());
                let _ = child.wait().await;
            }
            Err(error) => say(site, id, Level::Error, error.code(), &error.to_string()),
        }
        if !is_ended(site, id) {
            tokio::time::sleep(Duration::from_secs(u64::from(attempt) * 2)).await;
        }
    }
    if !is_ended(site, id) {
        let text = format!(
            "what the session left could not be undone in {RECOVERY_ATTEMPTS} attempts; the next \
             run of the job tries again"
        );
        say(site, id, Level::Error, "session.recovery-failed", &text);
        set_state(site, id, &SessionState::Failed);
    }
    finish(site, id);
}

/// Asks a process to end, and ends it where it does not.
async fn end_process(pid: u32) {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return;
    };
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Gives back what an ended session held.
fn finish(site: &Site, id: SessionId) {
    let released = site.database.transaction(|t| {
        db::lease::release_all(t, id)?;
        match db::session::find(t, &id.to_string())?.kind {
            // A repository that could not be made or opened is not worth remembering.
            SessionKind::CreateRepository { repository, .. }
            | SessionKind::RescanRepository { repository } => {
                db::repository::remove_unidentified(t, repository)
            }
            _ => Ok(()),
        }
    });
    if let Err(error) = released {
        tracing::error!(session = %id, %error, "giving back what a session held");
    }
    site.unhear(id);
    site.live.changed(id);
}

fn is_ended(site: &Site, id: SessionId) -> bool {
    match site
        .database
        .transaction(|t| db::session::find(t, &id.to_string()))
    {
        Ok(session) => session.state.is_final(),
        // A session that is gone has nothing left to end.
        Err(error) => error.kind() == Kind::NotFound,
    }
}

fn note_pid(site: &Site, id: SessionId, pid: Option<u32>) {
    if let Err(error) = site
        .database
        .transaction(|t| db::session::set_pid(t, id, pid))
    {
        tracing::error!(session = %id, %error, "noting a manager's process");
    }
}

/// Changes the state of a session and tells those who follow it.
pub fn set_state(site: &Site, id: SessionId, state: &SessionState) {
    let now = site.clock.now();
    if let Err(error) = site
        .database
        .transaction(|t| db::session::set_state(t, id, state, now))
    {
        tracing::error!(session = %id, %error, "changing a session's state");
    }
    site.live.changed(id);
}

/// Adds a line of the server's own to a session's log.
pub fn say(site: &Site, id: SessionId, level: Level, code: &str, text: &str) {
    let time = site.clock.now();
    let added = site.database.transaction(|t| {
        let number = db::log::next_own_number(t, id)?;
        let line = NewLine {
            number,
            time,
            level,
            code: code.to_owned(),
            subject: String::new(),
            text: text.to_owned(),
        };
        db::log::add(t, id, "server", &[line])
    });
    if let Err(error) = added {
        tracing::error!(session = %id, %error, "writing to a session's log");
    }
    site.live.changed(id);
}
