//! Requests about jobs.
//!
//! Knows: what settings make sense, and how a run is begun. Refuses to know: how a run goes.

use crate::db::{self, job::JobRow};
use crate::schedule::next_run;
use crate::sessions::{self, Request};
use crate::site::{Site, check_name};
use base::clock::Timestamp;
use base::id::JobId;
use base::{Error, Result};
use protocol::words::console::{ConsoleResponse as A, JobOverview};
use protocol::words::job::{Job, JobSettings, PlatformAddress, Selection};
use protocol::words::session::{Session, SessionKind};
use std::sync::Arc;

pub fn list(site: &Site) -> Result<A> {
    let jobs = site.database.transaction(|t| {
        let mut jobs = Vec::new();
        for row in db::job::list(t)? {
            let last = db::session::list(t, Some(row.job.id), None, 1)?
                .into_iter()
                .next();
            jobs.push(JobOverview {
                job: row.job,
                last: last.map(Box::new),
                next: row.next_run,
            });
        }
        Ok(jobs)
    })?;
    Ok(A::Jobs(jobs))
}

pub fn create(site: &Site, settings: JobSettings) -> Result<A> {
    let id = JobId::generate(site.clock.as_ref(), site.random.as_ref());
    put(site, id, settings)
}

pub fn update(site: &Site, key: &str, settings: JobSettings) -> Result<A> {
    let row = site.database.transaction(|t| db::job::find(t, key))?;
    put(site, row.job.id, settings)
}

fn put(site: &Site, id: JobId, settings: JobSettings) -> Result<A> {
    check(&settings)?;
    let now = site.clock.now();
    let next = due_after(&settings, now)?;
    site.database.transaction(|t| {
        db::host::find(t, &settings.host.to_string())?;
        db::repository::find(t, &settings.repository.to_string())?;
        db::job::put(t, id, &settings, now, next)
    })?;
    Ok(A::Job(Job { id, settings }))
}

/// When a job with these settings runs next by itself.
pub fn due_after(settings: &JobSettings, after: Timestamp) -> Result<Option<Timestamp>> {
    let next = next_run(&settings.schedule, after)?;
    Ok(next.filter(|_| settings.enabled))
}

fn check(settings: &JobSettings) -> Result<()> {
    check_name("job", &settings.name)?;
    if settings.keep_points == 0 {
        return Err(
            Error::invalid("job.keep-invalid", "a job keeps at least one point")
                .hint("give --keep a number from 1 on"),
        );
    }
    if matches!(&settings.selection, Selection::Machines(names) if names.is_empty()) {
        return Err(
            Error::invalid("job.selection-empty", "the job names no machine")
                .hint("name machines with --machine, or take all with --all"),
        );
    }
    match &settings.platform {
        PlatformAddress::Libvirt { uri } if !uri.starts_with("qemu") => Err(Error::invalid(
            "job.platform-uri",
            format!("\u{201c}{uri}\u{201d} is not a libvirt connection that is supported"),
        )
        .hint("for example qemu:///system or qemu+ssh://root@host/system")),
        PlatformAddress::Image { machines } => {
            let relative = machines
                .iter()
                .flat_map(|machine| &machine.disks)
                .find(|(_, path)| !path.starts_with('/'));
            match relative {
                Some((disk, path)) => Err(Error::invalid(
                    "job.image-path-relative",
                    format!("the image of disk {disk} is not an absolute path: {path}"),
                )
                .hint("name the file from the root on, as its host sees it")),
                None => Ok(()),
            }
        }
        PlatformAddress::Libvirt { .. } => Ok(()),
    }
}

pub fn delete(site: &Site, key: &str) -> Result<A> {
    site.database.transaction(|t| {
        let row = db::job::find(t, key)?;
        db::job::remove(t, row.job.id)
    })?;
    Ok(A::Done)
}

pub fn run(site: &Arc<Site>, who: &str, key: &str, read_all: bool) -> Result<A> {
    let row = site.database.transaction(|t| db::job::find(t, key))?;
    Ok(A::Session(Box::new(start(site, who, &row, read_all)?)))
}

/// Begins a run of a job.
///
/// # Errors
/// `Conflict` where one is at work.
pub fn start(site: &Arc<Site>, who: &str, row: &JobRow, read_all: bool) -> Result<Session> {
    let settings = &row.job.settings;
    let request = Request {
        kind: SessionKind::Backup {
            job: row.job.id,
            read_all,
        },
        name: settings.name.clone(),
        initiator: who.to_owned(),
        job: Some(row.job.clone()),
        repository: Some(settings.repository),
        hosts: vec![settings.host],
    };
    sessions::start(site, request)
}
