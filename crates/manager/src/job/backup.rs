//! A run of a backup job.
//!
//! Knows: which machines, how many at once, and what follows when they are done: retention and the
//! freeing of space. Refuses to know: how one machine is backed up ([`machine`]).

mod disks;
mod machine;
pub mod plan;
pub mod select;

use super::Run;
use super::discover::tell_machines;
use crate::retention::{Candidate, expired};
use base::id::{JobId, PointId};
use base::{Error, Kind, Result};
use platform::contract::{AgentPresence, Machine, Platform, Power, Trackable};
use protocol::words::agent::{AgentRequest, TaskEnd};
use protocol::words::job::JobSettings;
use protocol::words::manager::{FoundDisk, FoundMachine, ManagerRequest};
use protocol::words::point::Point;
use protocol::words::session::{Level, Outcome, SessionState};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Machines that one run works on at once. Their disks share the slots of hosts and repositories.
const MACHINES_AT_ONCE: usize = 2;

/// What all machines of a run share.
struct Job<'a> {
    run: &'a Run,
    id: JobId,
    settings: &'a JobSettings,
    read_all: bool,
    platform: Arc<dyn Platform>,
    /// The name of the platform's host, as points record it.
    host_name: String,
    /// Points of the repository when the run began.
    known: Vec<Point>,
}

/// Runs the job; the points it made.
pub fn run(run: &Run, id: JobId, read_all: bool) -> Result<Outcome> {
    let settings = run.order.job.as_ref().ok_or_else(|| {
        Error::new(
            Kind::Bug,
            "manager.order.job",
            "the order of a backup has no job",
        )
    })?;
    let platform = run.platforms.connect(&settings.platform)?;
    let host_name = platform.host()?.name;
    let machines = platform.machines()?;
    let found = machines.iter().map(found_machine).collect();
    tell_machines(run, settings.host, settings.platform.name(), found)?;
    let chosen = select::select(&settings.selection, &machines);
    for name in &chosen.missing {
        let text = format!("the machine {name} is not there any more");
        run.desk
            .log(Level::Warning, "backup.machine-missing", name, text);
    }
    if chosen.machines.is_empty() {
        return Err(Error::new(
            Kind::NotFound,
            "backup.no-machines",
            "none of the job's machines is there",
        )
        .hint("\u{201c}backstay machine discover\u{201d} shows what the platform has"));
    }
    let known = known_points(run)?;
    let job = Job {
        run,
        id,
        settings,
        read_all,
        platform,
        host_name,
        known,
    };
    let points = all_machines(&job, chosen.machines);
    retain(&job, &points)?;
    run.desk.cancel.check()?;
    Ok(Outcome::Points(
        points.iter().map(|point| point.id).collect(),
    ))
}

/// Backs up all machines, some at once. A machine that fails does not keep others from it.
fn all_machines(job: &Job<'_>, machines: Vec<Machine>) -> Vec<Point> {
    let desk = &job.run.desk;
    let queue: Mutex<VecDeque<_>> = Mutex::new(
        machines
            .into_iter()
            .map(|machine| (desk.add_task(&machine.name, false), machine))
            .collect(),
    );
    let points = Mutex::new(Vec::new());
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    std::thread::scope(|scope| {
        for _ in 0..MACHINES_AT_ONCE {
            scope.spawn(|| {
                while let Some((task, found)) = next() {
                    if desk.is_stopping() {
                        desk.task_state(task, SessionState::Stopped);
                        continue;
                    }
                    match machine::back_up(job, &found, task) {
                        Ok(point) => {
                            desk.task_state(task, SessionState::Success);
                            points
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(point);
                        }
                        Err(error) if error.kind() == Kind::Cancelled => {
                            desk.task_state(task, SessionState::Stopped);
                        }
                        Err(error) => {
                            desk.log_error(&found.name, &error);
                            desk.task_state(task, SessionState::Failed);
                        }
                    }
                }
            });
        }
    });
    points.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn known_points(run: &Run) -> Result<Vec<Point>> {
    let (agent, _) = run.open_repository("planning")?;
    agent.points()
}

/// Deletes the points that the job does not keep and frees what they alone needed.
fn retain(job: &Job<'_>, made: &[Point]) -> Result<()> {
    let mut of_machine: BTreeMap<_, Vec<Candidate>> = BTreeMap::new();
    for point in made.iter().chain(&job.known) {
        // Points of other jobs have their own rule; only machines with a new point are looked at,
        // so that a machine whose backups fail loses nothing.
        let same_job = point
            .draft
            .job
            .as_ref()
            .is_some_and(|(id, _)| *id == job.id);
        let fresh = made
            .iter()
            .any(|new| new.draft.machine.id == point.draft.machine.id);
        if same_job && fresh {
            of_machine
                .entry(point.draft.machine.id)
                .or_default()
                .push(Candidate {
                    id: point.id,
                    created: point.created,
                });
        }
    }
    let gone: Vec<PointId> = of_machine
        .values()
        .flat_map(|points| expired(points, job.settings.keep_points))
        .collect();
    if gone.is_empty() || job.run.desk.cancel.is_cancelled() {
        return Ok(());
    }
    let (agent, summary) = job.run.open_repository("retention")?;
    agent.done(&AgentRequest::DeletePoints {
        points: gone.clone(),
    })?;
    let text = format!(
        "{} beyond the {} kept",
        count(gone.len()),
        job.settings.keep_points
    );
    job.run.desk.log(
        Level::Info,
        "backup.retention",
        "",
        format!("removed {text}"),
    );
    job.run.desk.tell(&ManagerRequest::PointsGone {
        repository: summary.id,
        points: gone,
    })?;
    let task = agent.start(&AgentRequest::Collect)?;
    let report = agent.wait(task, |_| {})?;
    if let Some(TaskEnd::Collected { freed, .. }) = report.end {
        job.run.desk.log(
            Level::Info,
            "backup.collected",
            "",
            format!("{freed} came free"),
        );
    }
    Ok(())
}

fn count(points: usize) -> String {
    if points == 1 {
        "1 restore point".to_owned()
    } else {
        format!("{points} restore points")
    }
}

/// A machine as the server keeps it.
pub fn found_machine(machine: &Machine) -> FoundMachine {
    let disks = machine.disks.iter().map(|disk| FoundDisk {
        name: disk.target.clone(),
        size: disk.capacity,
        format: disk.format.clone().unwrap_or_default(),
        path: disk.path.clone().unwrap_or_else(|| disk.source.clone()),
        trackable: disk.trackable == Trackable::Yes,
    });
    FoundMachine {
        platform_id: machine.key.0.clone(),
        name: machine.name.clone(),
        state: match machine.power {
            Power::Running => "running",
            Power::Paused => "paused",
            Power::Off => "off",
            Power::Stalled => "stalled",
        }
        .to_owned(),
        disks: disks.collect(),
        agent: match machine.agent {
            AgentPresence::NoChannel => None,
            AgentPresence::Silent => Some(false),
            AgentPresence::Connected | AgentPresence::Frozen => Some(true),
        },
    }
}
