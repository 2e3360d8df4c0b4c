//! The manager's desk: all it says to the server goes over it.
//!
//! Knows: log lines and their numbers, tasks, counters, leases, and whether somebody asked to stop.
//! Refuses to know: what the session does.
//!
//! A server that is away for a while does not stop the work: the link below asks again until it is
//! back (see [`crate::link`]), and every word may be said twice.

use crate::ask::Ask;
use base::cancel::Cancel;
use base::clock::Clock;
use base::id::TaskId;
use base::random::Random;
use base::{Error, Kind, Result};
use protocol::words::counters::Counters;
use protocol::words::manager::{
    LeaseAnswer, ManagerRequest as Q, ManagerResponse as A, NewLine, Resource,
};
use protocol::words::session::{Level, Outcome, SessionState, Stop, Task};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the server is told of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How often a lease is asked for again.
const LEASE_EVERY: Duration = Duration::from_secs(1);

/// The link to the server.
pub type Server = Arc<dyn Ask<Q, A>>;

/// The manager's desk.
pub struct Desk {
    server: Server,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    next_line: AtomicU64,
    worst: Mutex<Level>,
    tasks: Mutex<BTreeMap<TaskId, Shown>>,
    /// Ends all work at once.
    pub cancel: Cancel,
    stop_after_current: AtomicBool,
}

struct Shown {
    task: Task,
    /// Whether its counters add to the session's: tasks of disks do, tasks of machines repeat them.
    counted: bool,
    said: Option<Duration>,
}

impl Desk {
    /// A desk with a link to the server.
    pub fn new(server: Server, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            server,
            clock,
            random,
            next_line: AtomicU64::new(1),
            worst: Mutex::new(Level::Info),
            tasks: Mutex::default(),
            cancel: Cancel::new(),
            stop_after_current: AtomicBool::new(false),
        }
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// Randomness.
    pub fn random(&self) -> &dyn Random {
        self.random.as_ref()
    }

    /// Says something that the server only has to note.
    pub fn tell(&self, word: &Q) -> Result<()> {
        match self.server.ask(word)? {
            A::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes to the session's log. The worst line decides how the session ends.
    pub fn log(&self, level: Level, code: &str, subject: &str, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(?level, code, subject, "{text}");
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        *worst = (*worst).max(level);
        drop(worst);
        let line = NewLine {
            number: self.next_line.fetch_add(1, Ordering::Relaxed),
            time: self.clock.now(),
            level,
            code: code.to_owned(),
            subject: subject.to_owned(),
            text,
        };
        if let Err(error) = self.tell(&Q::Log(vec![line])) {
            tracing::error!(%error, "writing to the session's log");
        }
    }

    /// Logs an error with its hint.
    pub fn log_error(&self, subject: &str, error: &Error) {
        let hint = error
            .hint_text()
            .map(|hint| format!(" ({hint})"))
            .unwrap_or_default();
        self.log(
            Level::Error,
            error.code(),
            subject,
            format!("{error}{hint}"),
        );
    }

    /// Logs something that did not go as it should without failing the work.
    pub fn warn_error(&self, subject: &str, error: &Error) {
        self.log(Level::Warning, error.code(), subject, error.to_string());
    }

    /// The worst that was logged.
    pub fn worst(&self) -> Level {
        *self.worst.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a new task. `counted`: its counters add to the session's.
    pub fn add_task(&self, name: &str, counted: bool) -> TaskId {
        let id = TaskId::generate(self.clock(), self.random());
        let task = Task {
            id,
            name: name.to_owned(),
            state: SessionState::Queued,
            counters: Counters::default(),
        };
        self.say_task(&task);
        let shown = Shown {
            task,
            counted,
            said: None,
        };
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, shown);
        id
    }

    /// Changes a task's state; said at once.
    pub fn task_state(&self, id: TaskId, state: SessionState) {
        self.change(id, true, |task| task.state = state);
    }

    /// Changes a task's counters; said now and then.
    pub fn task_counters(&self, id: TaskId, counters: Counters) {
        self.change(id, false, |task| task.counters = counters);
    }

    fn change(&self, id: TaskId, at_once: bool, change: impl FnOnce(&mut Task)) {
        let now = self.clock.monotonic();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shown) = tasks.get_mut(&id) else {
            return;
        };
        change(&mut shown.task);
        let due = shown
            .said
            .is_none_or(|said| now.saturating_sub(said) >= PROGRESS_EVERY);
        if !at_once && !due {
            return;
        }
        shown.said = Some(now);
        let task = shown.task.clone();
        let mut sum = Counters::default();
        tasks
            .values()
            .filter(|shown| shown.counted)
            .for_each(|shown| sum += shown.task.counters);
        drop(tasks);
        self.say_task(&task);
        if let Err(error) = self.tell(&Q::Counters(sum)) {
            tracing::error!(%error, "saying the session's counters");
        }
    }

    fn say_task(&self, task: &Task) {
        if let Err(error) = self.tell(&Q::Task(task.clone())) {
            tracing::error!(%error, "saying how far a task is");
        }
    }

    /// Waits until a resource may be used. The waiting and its reason are shown with the task.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn lease(self: &Arc<Self>, resource: Resource, task: TaskId) -> Result<Lease> {
        loop {
            self.cancel.check()?;
            match self.server.ask(&Q::Lease(resource.clone()))? {
                A::Lease(LeaseAnswer::Granted) => {
                    return Ok(Lease {
                        desk: self.clone(),
                        resource,
                    });
                }
                A::Lease(LeaseAnswer::Wait(reason)) => {
                    self.task_state(task, SessionState::Waiting(reason));
                    self.clock.sleep(LEASE_EVERY);
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Says that the manager lives and learns whether to stop.
    pub fn heartbeat(&self) -> Result<()> {
        match self.server.ask(&Q::Heartbeat)? {
            A::Alive(stop) => {
                match stop {
                    Some(Stop::Now) => self.cancel.cancel(),
                    Some(Stop::AfterCurrent) => {
                        self.stop_after_current.store(true, Ordering::Release);
                    }
                    None => {}
                }
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Whether no new machine should be begun.
    pub fn is_stopping(&self) -> bool {
        self.cancel.is_cancelled() || self.stop_after_current.load(Ordering::Acquire)
    }

    /// Ends the session in the server's eyes.
    pub fn finish(&self, state: SessionState, outcome: Option<Outcome>) -> Result<()> {
        self.tell(&Q::Finish { state, outcome })
    }
}

/// Permission to use something; given back when dropped.
pub struct Lease {
    desk: Arc<Desk>,
    resource: Resource,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = self.desk.tell(&Q::Release(self.resource.clone())) {
            // The server gives all leases of a session back when it ends.
            tracing::warn!(%error, "giving a lease back");
        }
    }
}

fn unexpected(answer: &A) -> Error {
    Error::new(
        Kind::Bug,
        "manager.server.answer",
        format!("the server's answer does not fit the question: {answer:?}"),
    )
}
