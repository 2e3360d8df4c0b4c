//! The disks of one machine, all at once, from their source into the point in the making.
//!
//! Knows: which agent plays which part, and what is said of each disk. Refuses to know: how an agent
//! does its part.

use super::Job;
use super::plan::{self, DiskPlan};
use crate::agents::Agent;
use crate::job::transfer;
use base::id::{PointId, TaskId};
use base::{Error, Kind, Result};
use platform::contract::{Access, Backup, BackupDisk, Machine, NbdAddress, Tracking};
use protocol::words::agent::{
    AgentRequest, AgentResponse, DiskOrder, DiskSource, ReadMode, TaskReport,
};
use protocol::words::counters::Counters;
use protocol::words::manager::Resource;
use protocol::words::session::{Level, SessionState};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What copying all disks came to.
pub struct Copied {
    /// Per disk what the next run needs.
    pub trackers: BTreeMap<String, BTreeMap<String, String>>,
    /// The newest point a disk was built on.
    pub parent: Option<PointId>,
}

/// Copies all disks of a view.
///
/// # Errors
/// The first disk's that failed; the others are cancelled with the agent.
pub fn copy_all(
    job: &Job<'_>,
    machine: &Machine,
    machine_task: TaskId,
    view: &Backup,
    plans: &[DiskPlan],
    target: &Agent,
) -> Result<Copied> {
    let desk = &job.run.desk;
    let tasks: Vec<TaskId> = view
        .disks
        .iter()
        .map(|disk| desk.add_task(&format!("{}/{}", machine.name, disk.target), true))
        .collect();
    let sums = Mutex::new(vec![Counters::default(); view.disks.len()]);
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = view
            .disks
            .iter()
            .zip(plans)
            .zip(&tasks)
            .enumerate()
            .map(|(index, ((disk, plan), task))| {
                let sums = &sums;
                scope.spawn(move || {
                    let done = copy_one(job, machine, disk, plan, target, *task, &|report| {
                        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                        sums[index] = report.counters;
                        let mut sum = Counters::default();
                        sums.iter().for_each(|counters| sum += *counters);
                        drop(sums);
                        desk.task_counters(machine_task, sum);
                    });
                    desk.task_state(*task, end_state(&done));
                    done
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(died())));
        joined.collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    let trackers = view.disks.iter().filter_map(|disk| {
        Some((
            disk.target.clone(),
            plan::write_tracker(disk.tracker.as_ref()?),
        ))
    });
    let used = view
        .disks
        .iter()
        .zip(plans)
        .filter(|(disk, _)| is_changed(disk));
    Ok(Copied {
        trackers: trackers.collect(),
        parent: used.filter_map(|(_, plan)| plan.base).max(),
    })
}

fn died() -> Error {
    Error::new(
        Kind::Bug,
        "manager.thread",
        "a thread of the manager ended without a result",
    )
}

fn end_state(done: &Result<()>) -> SessionState {
    match done {
        Ok(()) => SessionState::Success,
        Err(error) if error.kind() == Kind::Cancelled => SessionState::Stopped,
        Err(_) => SessionState::Failed,
    }
}

fn is_changed(disk: &BackupDisk) -> bool {
    matches!(disk.tracking, Tracking::Changed { .. })
}

fn copy_one(
    job: &Job<'_>,
    machine: &Machine,
    disk: &BackupDisk,
    plan: &DiskPlan,
    target: &Agent,
    task: TaskId,
    progress: &dyn Fn(&TaskReport),
) -> Result<()> {
    let desk = &job.run.desk;
    let subject = format!("{}/{}", machine.name, disk.target);
    say_tracking(job, &subject, disk);
    let _proxy = desk.lease(Resource::Proxy(job.settings.host), task)?;
    desk.task_state(task, SessionState::Running);
    let order = order(job, machine, disk, plan, target)?;
    let report = |report: &TaskReport| {
        desk.task_counters(task, report.counters);
        progress(report);
    };
    let repository_host = job.run.repository()?.host;
    let end = if repository_host == job.settings.host {
        let number = target.start(&AgentRequest::CopyDisk { order })?;
        target.wait(number, report)?
    } else {
        let source = job.run.agents.start(job.settings.host, &subject)?;
        transfer::send_disk(desk, &source, target, order, report)?
    };
    for (code, text) in &end.warnings {
        desk.log(Level::Warning, code, &subject, text.clone());
    }
    let c = end.counters;
    let text = format!(
        "{} of {} read, {} stored{}",
        c.read,
        c.processed,
        c.stored,
        if is_changed(disk) {
            " (changed blocks only)"
        } else {
            ""
        }
    );
    desk.log(Level::Info, "backup.disk", &subject, text);
    Ok(())
}

/// Says why all of a disk is read, where that is so.
fn say_tracking(job: &Job<'_>, subject: &str, disk: &BackupDisk) {
    if let Tracking::Full { cause, reason } = &disk.tracking {
        let level = if cause.is_warning() {
            Level::Warning
        } else {
            Level::Info
        };
        let code = if cause.is_warning() {
            "backup.tracker-lost"
        } else {
            "backup.all-read"
        };
        job.run.desk.log(
            level,
            code,
            subject,
            format!("all of the disk is read: {reason}"),
        );
    }
}

fn order(
    job: &Job<'_>,
    machine: &Machine,
    disk: &BackupDisk,
    plan: &DiskPlan,
    target: &Agent,
) -> Result<DiskOrder> {
    let source = source(&disk.access)?;
    let mut size = disk.capacity;
    if let DiskSource::Image { path } = &source {
        // What the guest sees of an image only its format knows; the platform saw a file.
        let local = job.run.repository()?.host == job.settings.host;
        let request = AgentRequest::ProbeImage { path: path.clone() };
        let answer = if local {
            target.ask(&request)?
        } else {
            job.run
                .agents
                .start(job.settings.host, &machine.name)?
                .ask(&request)?
        };
        match answer {
            AgentResponse::Image(image) => size = image.size,
            other => return Err(target.unexpected(&other)),
        }
    }
    let mut attributes = BTreeMap::new();
    if let Some(found) = machine.disk(&disk.target) {
        let path = found.path.clone().unwrap_or_else(|| found.source.clone());
        attributes.insert("path".to_owned(), path);
        attributes.extend(
            found
                .format
                .clone()
                .map(|format| ("format".to_owned(), format)),
        );
    }
    Ok(DiskOrder {
        name: disk.target.clone(),
        source: Some(source),
        size,
        base: plan.base.filter(|_| is_changed(disk)),
        mode: if is_changed(disk) {
            ReadMode::Changed
        } else {
            ReadMode::All
        },
        attributes,
    })
}

fn source(access: &Access) -> Result<DiskSource> {
    match access {
        Access::Nbd {
            address: NbdAddress::Unix { path },
            export,
            dirty_context,
        } => Ok(DiskSource::NbdUnix {
            socket: path.clone(),
            export: export.clone(),
            changed: dirty_context.clone(),
        }),
        Access::Nbd {
            address: NbdAddress::Tcp { host, port },
            export,
            dirty_context,
        } => Ok(DiskSource::NbdTcp {
            host: host.clone(),
            port: *port,
            export: export.clone(),
            changed: dirty_context.clone(),
        }),
        Access::Image { path, .. } => Ok(DiskSource::Image { path: path.clone() }),
        Access::Memory(_) => Err(Error::new(
            Kind::Unsupported,
            "backup.disk-in-memory",
            "a disk in the manager's memory cannot be read by an agent",
        )),
    }
}
