//! Commands on a repository as a whole.
//!
//! Knows: creating, opening, listing, deleting, collecting, verifying. Refuses to know: what is in
//! the points.

use super::{Executor, Opened, translate};
use base::files::Files;
use base::id::PointId;
use base::os::OsFiles;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::paging;
use protocol::words::agent::{AgentResponse, TaskEnd};
use protocol::words::repository::{
    RepositoryAccess, RepositoryLocation, RepositoryOptions, RepositorySummary,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{CollectOptions, CreateOptions, Password, Repository, VerifyOptions};

impl Executor {
    pub(super) fn create_repository(
        &self,
        access: &RepositoryAccess,
        options: &RepositoryOptions,
    ) -> Result<AgentResponse> {
        self.check_may_open()?;
        let password = password_of(access);
        let create = match (options.encrypted, password) {
            (true, Some(password)) => CreateOptions {
                password: Some(password),
                ..CreateOptions::default()
            },
            (false, None) => CreateOptions::default(),
            (true, None) => {
                return Err(Error::invalid(
                    "mover.repository.password-missing",
                    "an encrypted repository needs a password",
                )
                .hint("give a password, or make the repository without encryption"));
            }
            (false, Some(_)) => {
                return Err(Error::invalid(
                    "mover.repository.password-unused",
                    "a password was given for a repository without encryption",
                )
                .hint("ask for encryption, or leave the password out"));
            }
        };
        let RepositoryLocation::Folder { path } = &access.location;
        let path = crate::source::absolute(path)?;
        let files: Arc<dyn Files> = Arc::new(OsFiles::create_root(path)?);
        let made = Repository::create(Arc::clone(&files), self.environment.clone(), &create)?;
        tracing::info!("made the repository {} in {}", made.id(), path.display());
        self.keep_open(Opened {
            repository: made,
            files,
        })
    }

    pub(super) fn open_repository(&self, access: &RepositoryAccess) -> Result<AgentResponse> {
        self.check_may_open()?;
        let RepositoryLocation::Folder { path } = &access.location;
        let path = crate::source::absolute(path)?;
        let files: Arc<dyn Files> = Arc::new(OsFiles::open(path)?);
        let password = password_of(access);
        let opened = Repository::open(
            Arc::clone(&files),
            self.environment.clone(),
            password.as_ref(),
        )?;
        tracing::info!(
            "opened the repository {} in {}",
            opened.id(),
            path.display()
        );
        self.keep_open(Opened {
            repository: opened,
            files,
        })
    }

    /// A point in the making belongs to the repository that is open.
    fn check_may_open(&self) -> Result<()> {
        if self.state().making.is_none() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            "mover.repository.point-in-making",
            "a point is in the making in the repository that is open",
        )
        .hint("commit or abort it first"))
    }

    fn keep_open(&self, opened: Opened) -> Result<AgentResponse> {
        let summary = summary(&opened)?;
        self.state().opened = Some(opened);
        Ok(AgentResponse::Repository(summary))
    }

    pub(super) fn list_points(&self, after: Option<PointId>) -> Result<AgentResponse> {
        let repository = self.repository()?;
        let ids = repository.point_ids()?.into_iter();
        let wanted = ids.filter(|id| after.is_none_or(|after| *id > after));
        let points = wanted.filter_map(|id| match repository.point(id) {
            Ok(point) => Some(Ok(translate::point(&point))),
            Err(error) if error.kind() == Kind::Io => Some(Err(error)),
            // Deleted since, or damaged: the repository's summary names those.
            Err(_) => None,
        });
        let page = paging::page(points)?;
        Ok(AgentResponse::Points {
            points: page.items,
            more: page.more,
        })
    }

    pub(super) fn show_point(&self, point: PointId) -> Result<AgentResponse> {
        let point = self.repository()?.point(point)?;
        Ok(AgentResponse::Point(Box::new(translate::point(&point))))
    }

    pub(super) fn delete_points(&self, points: &[PointId]) -> Result<AgentResponse> {
        let repository = self.repository()?;
        for point in points {
            match repository.delete_point(*point) {
                Err(error) if error.kind() == Kind::NotFound => {}
                other => other?,
            }
        }
        Ok(AgentResponse::Done)
    }

    pub(super) fn collect(&self) -> Result<AgentResponse> {
        let repository = self.repository()?;
        let number = self.tasks.start("collect", move |task| {
            let options = CollectOptions {
                cancel: task.cancel.clone(),
                ..CollectOptions::default()
            };
            let before = repository.info()?.packs;
            let report = repository.collect(&options, &|_| {})?;
            let after = repository.info()?.packs;
            let some_wait = u64::from(report.waiting > ByteCount::ZERO);
            Ok(TaskEnd::Collected {
                freed: report.freed,
                // What is there now beyond what should be left was written anew.
                rewritten: after + report.freed - before,
                waiting: report.retired.saturating_sub(report.removed).max(some_wait),
            })
        })?;
        Ok(AgentResponse::Started(number))
    }

    pub(super) fn verify(&self, point: Option<PointId>, read_data: bool) -> Result<AgentResponse> {
        let repository = self.repository()?;
        if let Some(point) = point {
            repository.point(point)?;
        }
        let number = self.tasks.start("verify", move |task| {
            let options = VerifyOptions {
                read_data,
                points: point.into_iter().collect(),
                cancel: task.cancel.clone(),
            };
            let report = repository.verify(&options, &|progress| show(task, &progress))?;
            task.gauge.read.set(report.read.0);
            task.gauge.done.set(task.gauge.processed.get());
            let looked_at: Vec<PointId> = match point {
                Some(point) => vec![point],
                None => repository
                    .points()?
                    .points
                    .iter()
                    .map(|point| point.id)
                    .collect(),
            };
            if report.truncated {
                task.warn(
                    "mover.verify.truncated",
                    "there is more damage than is listed",
                );
            }
            let damages: Vec<_> = report.damage.iter().map(translate::damage).collect();
            let hurt: BTreeSet<PointId> = damages.iter().filter_map(|d| d.point).collect();
            let whole = looked_at
                .into_iter()
                .filter(|id| !hurt.contains(id))
                .collect();
            let whole = if report.truncated { Vec::new() } else { whole };
            Ok(TaskEnd::Verified {
                whole,
                blocks: report.blocks,
                damages,
            })
        })?;
        Ok(AgentResponse::Started(number))
    }
}

/// Shows how far the repository's own long work is. Counters are bytes: steps over other things do
/// not show in them.
fn show(task: &crate::task::Task, progress: &store::Progress) {
    if progress.bytes {
        task.gauge.processed.set(progress.total);
        task.gauge.done.set(progress.done);
    }
}

fn password_of(access: &RepositoryAccess) -> Option<Password> {
    access
        .password
        .as_ref()
        .map(|secret| Password::new(secret.reveal()))
}

fn summary(opened: &Opened) -> Result<RepositorySummary> {
    let info = opened.repository.info()?;
    let points = opened.repository.points()?;
    let space = opened.files.space()?;
    let major = info
        .format
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    Ok(RepositorySummary {
        id: info.id,
        format_version: major.unwrap_or(0),
        encrypted: info.encrypted,
        created: info.created,
        capacity: space.total,
        free: space.free,
        points: points.points.len() as u64,
        stored: info.packs,
        damaged_points: points
            .damaged
            .into_iter()
            .map(|d| (d.name, d.reason))
            .collect(),
    })
}
