//! One folder or file a kind of session, each with its plan (pure) and its steps.
//!
//! Knows: what all kinds need. Refuses to know: any kind's details.

pub mod backup;
pub mod discover;
pub mod recover;
pub mod repository;
pub mod restore_disk;
pub mod restore_machine;
mod transfer;

use crate::agents::{Agent, Agents};
use crate::desk::Desk;
use crate::journal::Journal;
use base::{Error, Kind, Result};
use platform::contract::Platform;
use protocol::words::job::PlatformAddress;
use protocol::words::manager::ManagerRequest;
use protocol::words::repository::RepositorySummary;
use protocol::words::session::{
    Level, OrderedRepository, Outcome, SessionKind, SessionOrder, SessionState,
};
use std::sync::Arc;

/// Connects to platforms. The real one speaks to hypervisors; tests bring the simulated one.
pub trait Connect: Send + Sync {
    /// The platform at this address.
    fn connect(&self, address: &PlatformAddress) -> Result<Arc<dyn Platform>>;
}

/// All that the steps of a session use.
pub struct Run {
    /// What to do.
    pub order: SessionOrder,
    /// The server.
    pub desk: Arc<Desk>,
    /// What must be undone.
    pub journal: Arc<Journal>,
    /// Agents on the hosts that take part.
    pub agents: Agents,
    /// Hypervisors.
    pub platforms: Arc<dyn Connect>,
}

impl Run {
    /// Does the session's work; what it found or made.
    pub fn work(&self) -> Result<Option<Outcome>> {
        match &self.order.kind {
            SessionKind::Backup { job, read_all } => backup::run(self, *job, *read_all).map(Some),
            SessionKind::RestoreMachine(order) => restore_machine::run(self, order).map(Some),
            SessionKind::RestoreDisk(order) => restore_disk::run(self, order).map(|()| None),
            SessionKind::CreateRepository { options, .. } => {
                repository::create(self, options).map(|()| None)
            }
            SessionKind::RescanRepository { .. } => repository::rescan(self).map(|()| None),
            SessionKind::CollectRepository { .. } => repository::collect(self).map(Some),
            SessionKind::Verify {
                point, read_data, ..
            } => repository::verify(self, *point, *read_data).map(Some),
            SessionKind::DeletePoints { points, .. } => {
                repository::delete_points(self, points).map(|()| None)
            }
            SessionKind::Discover { host, platform } => {
                discover::run(self, *host, platform).map(Some)
            }
        }
    }

    /// Works, cleans up whatever happened, and says how it ended.
    ///
    /// # Errors
    /// Only where the server cannot be told of the end: then nothing may be assumed ended.
    pub fn to_the_end(&self) -> Result<()> {
        self.desk
            .tell(&ManagerRequest::State(SessionState::Running))?;
        let outcome = self.work();
        self.desk
            .tell(&ManagerRequest::State(SessionState::Finishing))?;
        if let Err(error) = &outcome
            && error.kind() != Kind::Cancelled
        {
            self.desk.log_error("", error);
        }
        recover::undo_all(self);
        if self.desk.worst() == Level::Error {
            recover::look_again(self);
        }
        let state = self.end_state(&outcome);
        self.desk.finish(state, outcome.ok().flatten())
    }

    fn end_state(&self, outcome: &Result<Option<Outcome>>) -> SessionState {
        if self.desk.cancel.is_cancelled() {
            self.desk
                .log(Level::Warning, "session.stopped", "", "stopped on request");
            return SessionState::Stopped;
        }
        match (outcome, self.desk.worst()) {
            (Err(_), _) | (_, Level::Error) => SessionState::Failed,
            (_, Level::Warning) => SessionState::Warning,
            (_, Level::Info) => SessionState::Success,
        }
    }

    /// The repository of the order.
    pub fn repository(&self) -> Result<&OrderedRepository> {
        self.order.repository.as_ref().ok_or_else(|| {
            Error::new(
                Kind::Bug,
                "manager.order.repository",
                "the order names no repository",
            )
        })
    }

    /// An agent on the repository's host with the repository open; the server is told how full it
    /// is, and the id is compared with the one that was expected.
    pub fn open_repository(&self, purpose: &str) -> Result<(Agent, RepositorySummary)> {
        let repository = self.repository()?;
        let agent = self.agents.start(repository.host, purpose)?;
        let summary = agent.open(&repository.access).map_err(|error| {
            let error = error.context(format!("opening the repository {}", repository.name));
            if error.kind() == Kind::NotFound && error.hint_text().is_none() {
                error.hint(
                    "see whether its disk is there, and whether its host knows it by this path",
                )
            } else {
                error
            }
        })?;
        self.tell_repository(&summary)?;
        Ok((agent, summary))
    }

    /// Tells the server what a repository says of itself.
    pub fn tell_repository(&self, summary: &RepositorySummary) -> Result<()> {
        let repository = self.repository()?;
        self.desk.tell(&ManagerRequest::RepositoryIdentified {
            repository: repository.id,
            summary: summary.clone(),
        })?;
        for (name, reason) in &summary.damaged_points {
            let text = format!("the record of point {name} cannot be read: {reason}");
            self.desk
                .log(Level::Warning, "repository.point-damaged", "", text);
        }
        self.desk.tell(&ManagerRequest::RepositorySpace {
            repository: summary.id,
            capacity: summary.capacity,
            free: summary.free,
            stored: summary.stored,
        })
    }
}
