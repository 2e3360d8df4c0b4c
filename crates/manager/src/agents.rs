//! Agents on the movers of hosts, as a manager uses them.
//!
//! Knows: how one is started and journaled, asked, waited for. Refuses to know: what they do.

use crate::ask::Ask;
use crate::desk::Desk;
use crate::journal::{Journal, Step, StepNumber};
use base::cancel::Cancel;
use base::id::{HostId, PointId, SessionId};
use base::{Error, Kind, Result};
use protocol::paging;
use protocol::words::agent::{
    AgentRequest as Q, AgentResponse as A, TaskEnd, TaskNumber, TaskReport,
};
use protocol::words::mover::{MoverRequest, MoverResponse};
use protocol::words::point::{Point, PointFile};
use protocol::words::repository::{RepositoryAccess, RepositorySummary};
use protocol::words::session::OrderedHost;
use protocol::words::span::Span;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one question about a task waits at the agent.
const PROGRESS_WAIT_MILLIS: u32 = 500;
/// How long a mover service may be away before that counts: it is started again within a second.
const MOVER_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait between two attempts.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);
/// How long a task may take to end after it was asked to stop.
const CANCEL_PATIENCE: Duration = Duration::from_secs(60);

/// Dials movers and agents. The real one speaks TLS; tests bring their own.
pub trait Dial: Send + Sync {
    /// The mover service of a host.
    fn mover(&self, host: &OrderedHost) -> Result<Box<dyn Ask<MoverRequest, MoverResponse>>>;
    /// The agent at `address:port` of a host.
    fn agent(&self, host: &OrderedHost, address: &str) -> Result<Box<dyn Ask<Q, A>>>;
}

/// All agents of a session.
pub struct Agents {
    session: SessionId,
    hosts: Vec<OrderedHost>,
    dial: Arc<dyn Dial>,
    journal: Arc<Journal>,
    desk: Arc<Desk>,
    /// Movers where agents were started, with the journal's step for them.
    movers: Mutex<BTreeMap<String, StepNumber>>,
}

impl Agents {
    /// None yet.
    pub fn new(
        session: SessionId,
        hosts: Vec<OrderedHost>,
        dial: Arc<dyn Dial>,
        journal: Arc<Journal>,
        desk: Arc<Desk>,
    ) -> Self {
        Self {
            session,
            hosts,
            dial,
            journal,
            desk,
            movers: Mutex::default(),
        }
    }

    /// The host with this id, among those that take part.
    pub fn host(&self, id: HostId) -> Result<&OrderedHost> {
        self.hosts.iter().find(|host| host.id == id).ok_or_else(|| {
            Error::new(
                Kind::Bug,
                "manager.host-missing",
                format!("host {id} is not in the order"),
            )
        })
    }

    /// Starts an agent on a host.
    pub fn start(&self, host: HostId, purpose: &str) -> Result<Agent> {
        let host = self.host(host)?;
        self.note_mover(&host.mover)?;
        let request = MoverRequest::StartAgent {
            session: self.session,
            purpose: purpose.to_owned(),
        };
        match self.ask_mover(host, &request)? {
            MoverResponse::Started(running) => {
                let link = self.dial.agent(host, &running.address).map_err(|error| {
                    error.context(format!("reaching the agent for {purpose} on {}", host.name))
                })?;
                Ok(Agent {
                    link,
                    purpose: purpose.to_owned(),
                    cancel: self.desk.cancel.clone(),
                })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the mover of a host; one that is being started again is waited for. A request whose
    /// answer was lost is said again: an agent that nobody leads ends by itself.
    fn ask_mover(&self, host: &OrderedHost, request: &MoverRequest) -> Result<MoverResponse> {
        let begun = std::time::Instant::now();
        loop {
            let mover = self.dial.mover(host);
            match mover.and_then(|mover| mover.ask(request)) {
                Err(error) if error.kind() != Kind::Unreachable => return Err(error),
                Err(error) if begun.elapsed() > MOVER_PATIENCE => {
                    let text = format!("reaching the mover of host {}", host.name);
                    return Err(error.context(text));
                }
                Err(_) => std::thread::sleep(BETWEEN_ATTEMPTS),
                Ok(answer) => return Ok(answer),
            }
        }
    }

    fn note_mover(&self, address: &str) -> Result<()> {
        let mut movers = self.movers.lock().unwrap_or_else(PoisonError::into_inner);
        if !movers.contains_key(address) {
            let step = Step::Agents {
                mover: address.to_owned(),
            };
            let number = self.journal.begin(step, self.desk.clock().now())?;
            movers.insert(address.to_owned(), number);
        }
        Ok(())
    }

    /// Ends all agents of the session at one mover. Idempotent.
    pub fn stop_at(&self, mover: &str) -> Result<()> {
        let host = self
            .hosts
            .iter()
            .find(|host| host.mover == mover)
            .ok_or_else(|| {
                let text = format!("no host of the order has the mover {mover}");
                Error::new(Kind::Bug, "manager.host-missing", text)
            })?;
        let request = MoverRequest::StopAgents {
            session: self.session,
        };
        match self.ask_mover(host, &request)? {
            MoverResponse::Stopped(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends all agents of the session.
    pub fn stop_all(&self) -> Result<()> {
        let movers =
            std::mem::take(&mut *self.movers.lock().unwrap_or_else(PoisonError::into_inner));
        for (mover, number) in movers {
            self.stop_at(&mover)?;
            self.journal.end(number)?;
        }
        Ok(())
    }
}

/// One agent.
pub struct Agent {
    link: Box<dyn Ask<Q, A>>,
    purpose: String,
    cancel: Cancel,
}

impl Agent {
    /// Asks for anything.
    pub fn ask(&self, request: &Q) -> Result<A> {
        self.link.ask(request)
    }

    /// Asks for something whose answer is only that it is done.
    pub fn done(&self, request: &Q) -> Result<()> {
        match self.ask(request)? {
            A::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// All points of the open repository, oldest first.
    pub fn points(&self) -> Result<Vec<Point>> {
        paging::points(|request| self.ask(request))
    }

    /// All points of the open repository page by page, each with the span of ids it tells of.
    pub fn point_pages(
        &self,
        each: impl FnMut(Vec<Point>, Span<PointId>) -> Result<()>,
    ) -> Result<()> {
        paging::point_pages(|request| self.ask(request), each)
    }

    /// A small file of a point.
    pub fn read_file(&self, point: PointId, path: &str) -> Result<Vec<u8>> {
        paging::read_file(|request| self.ask(request), point, path)
    }

    /// Puts a small file into the point in the making.
    pub fn put_file(&self, path: &str, bytes: &[u8]) -> Result<PointFile> {
        paging::put_file(|request| self.ask(request), path, bytes)
    }

    /// A small file of the agent's host.
    pub fn read_host_file(&self, path: &str) -> Result<Vec<u8>> {
        paging::read_host_file(|request| self.ask(request), path)
    }

    /// Writes a small file of the agent's host that must not exist.
    pub fn write_host_file(&self, path: &str, bytes: &[u8]) -> Result<()> {
        paging::write_host_file(|request| self.ask(request), path, bytes)
    }

    /// Opens a repository.
    pub fn open(&self, access: &RepositoryAccess) -> Result<RepositorySummary> {
        match self.ask(&Q::OpenRepository {
            access: access.clone(),
        })? {
            A::Repository(summary) => Ok(summary),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Starts a task.
    pub fn start(&self, request: &Q) -> Result<TaskNumber> {
        match self.ask(request)? {
            A::Started(task) => Ok(task),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Starts a task that listens: its number and address.
    pub fn listen(&self, request: &Q) -> Result<(TaskNumber, String)> {
        match self.ask(request)? {
            A::Listening(task, address) => Ok((task, address)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits for a task to end, telling of its progress; cancels it when the session is stopped.
    ///
    /// # Errors
    /// The task's own failure; `Cancelled`.
    pub fn wait(
        &self,
        task: TaskNumber,
        mut progress: impl FnMut(&TaskReport),
    ) -> Result<TaskReport> {
        let mut cancelled_at: Option<std::time::Instant> = None;
        loop {
            if self.cancel.is_cancelled() && cancelled_at.is_none() {
                self.done(&Q::Cancel { task })?;
                cancelled_at = Some(std::time::Instant::now());
            }
            if cancelled_at.is_some_and(|at| at.elapsed() > CANCEL_PATIENCE) {
                self.cancel.check()?;
            }
            let report = match self.ask(&Q::Progress {
                task,
                wait_millis: PROGRESS_WAIT_MILLIS,
            })? {
                A::Task(report) => *report,
                other => return Err(self.unexpected(&other)),
            };
            progress(&report);
            match &report.end {
                None => {}
                Some(TaskEnd::Failed {
                    kind,
                    code,
                    message,
                    hint,
                }) => {
                    let error = Error::new(*kind, code.clone(), message.clone());
                    return Err(match hint {
                        Some(hint) => error.hint(hint.clone()),
                        None => error,
                    });
                }
                Some(_) => return Ok(report),
            }
        }
    }

    /// An error for an answer that does not fit.
    pub fn unexpected(&self, answer: &A) -> Error {
        let shown: String = format!("{answer:?}").chars().take(200).collect();
        Error::new(
            Kind::Bug,
            "manager.agent.answer",
            format!(
                "the answer of the agent for {} does not fit: {shown}",
                self.purpose
            ),
        )
    }
}

fn unexpected(answer: &MoverResponse) -> Error {
    Error::new(
        Kind::Bug,
        "manager.mover.answer",
        format!("the mover's answer does not fit the question: {answer:?}"),
    )
}
