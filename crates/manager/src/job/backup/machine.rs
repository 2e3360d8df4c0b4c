//! The backup of one machine: its steps, in order, each with its undo.
//!
//! Knows: the order that leaves nothing behind. Refuses to know: how bytes move ([`super::disks`]).
//!
//! 1. leases on the machine and the repository
//! 2. a target agent with the repository open and a point in the making
//! 3. journal, then freeze, view, thaw
//! 4. configuration files, then all disks
//! 5. commit: from here on the point exists
//! 6. close the view, keep its tracker, delete the job's older trackers

use super::plan::{self, DiskPlan};
use super::{Job, disks};
use crate::agents::Agent;
use crate::journal::Step;
use base::id::{MachineId, PointId, TaskId};
use base::{Error, Kind, Result};
use platform::contract::{
    Backup, BackupRequest, Consistency as Frozen, Content, Keep, Machine, Power, ResourceKind,
    Token, begin_quiesced,
};
use protocol::words::agent::{AgentRequest, AgentResponse};
use protocol::words::job::Quiesce;
use protocol::words::manager::{ManagerRequest, Resource};
use protocol::words::point::{Consistency, Point, PointDraft, PointMachine};
use protocol::words::session::{Level, SessionState};
use std::time::Duration;

/// A guest is frozen for at most so long.
const FREEZE_MAX: Duration = Duration::from_secs(10);

/// Backs a machine up; the point.
pub fn back_up(job: &Job<'_>, machine: &Machine, task: TaskId) -> Result<Point> {
    let (run, desk) = (job.run, &job.run.desk);
    let held = Resource::Machine {
        host: job.settings.host,
        platform_id: machine.key.0.clone(),
    };
    let _machine = desk.lease(held, task)?;
    let _repository = desk.lease(Resource::Repository(run.repository()?.id), task)?;
    desk.task_state(task, SessionState::Running);
    if machine.disks.is_empty() {
        return Err(Error::new(
            Kind::Unsupported,
            "backup.no-disks",
            format!(
                "the machine {} has no disk that can be backed up",
                machine.name
            ),
        )
        .hint("leave the machine out of the job, or see what kinds of disks it has"));
    }
    clean_left_overs(job, machine);
    let id = MachineId::of_platform(job.settings.platform.name(), &machine.key.0);
    let plans = plan::plan(machine, id, job.id, &job.known, job.read_all);
    let point = PointId::generate(desk.clock(), desk.random());
    let token = Token::new(&job.id, &point);
    let (agent, _) = run.open_repository(&machine.name)?;
    agent.done(&AgentRequest::BeginPoint {
        point,
        compression: job.settings.compression,
    })?;

    let step = Step::Backup {
        machine: machine.key.0.clone(),
        token: token.to_string(),
    };
    let number = run.journal.begin(step, desk.clock().now())?;
    let made = with_view(job, machine, task, &token, &plans, id, &agent);
    let keep = if made.is_ok() {
        Keep::Tracker
    } else {
        Keep::Nothing
    };
    match job.platform.end_backup(&machine.key, &token, keep) {
        Ok(()) => run.journal.end(number)?,
        // The step stays in the journal and is undone at the end of the session.
        Err(error) => desk.warn_error(&machine.name, &error.context("closing the backup's view")),
    }
    let point = made?;
    desk.tell(&ManagerRequest::PointsFound {
        repository: point.repository,
        points: vec![point.clone()],
        complete: None,
    })?;
    delete_old_trackers(job, machine, &token);
    Ok(point)
}

fn with_view(
    job: &Job<'_>,
    machine: &Machine,
    task: TaskId,
    token: &Token,
    plans: &[DiskPlan],
    id: MachineId,
    agent: &Agent,
) -> Result<Point> {
    let (view, consistency) = begin(job, machine, token, plans)?;
    for note in &view.notes {
        job.run
            .desk
            .log(Level::Info, "backup.note", &machine.name, note.clone());
    }
    put_definition(job, machine, agent)?;
    let copied = disks::copy_all(job, machine, task, &view, plans, agent)?;
    let draft = PointDraft {
        machine: PointMachine {
            id,
            name: machine.name.clone(),
            platform: job.settings.platform.name().to_owned(),
            platform_id: machine.key.0.clone(),
            host: job.host_name.clone(),
        },
        job: Some((job.id, job.settings.name.clone())),
        session: job.run.order.id,
        consistency,
        parent: copied.parent,
    };
    // Last look: what is published cannot be taken back by a stop.
    job.run.desk.cancel.check()?;
    match agent.ask(&AgentRequest::CommitPoint {
        draft,
        trackers: copied.trackers,
    })? {
        AgentResponse::Point(point) => Ok(*point),
        other => Err(agent.unexpected(&other)),
    }
}

/// Opens the view, with the guest frozen as the job wants it.
fn begin(
    job: &Job<'_>,
    machine: &Machine,
    token: &Token,
    plans: &[DiskPlan],
) -> Result<(Backup, Consistency)> {
    let request = BackupRequest {
        machine: machine.key.clone(),
        token: token.clone(),
        track: true,
        disks: plans.iter().map(|plan| plan.request.clone()).collect(),
    };
    let platform = job.platform.as_ref();
    if platform.power(&machine.key)? == Power::Off {
        return Ok((platform.begin_backup(&request)?, Consistency::PoweredOff));
    }
    if job.settings.quiesce == Quiesce::Off {
        return Ok((platform.begin_backup(&request)?, Consistency::Crash));
    }
    match begin_quiesced(platform, &request, FREEZE_MAX)? {
        (view, Frozen::FileSystems { frozen }) => {
            let text = format!("{frozen} file systems of the guest were frozen for the moment");
            job.run
                .desk
                .log(Level::Info, "backup.frozen", &machine.name, text);
            Ok((view, Consistency::FileSystem))
        }
        (_, Frozen::Crash { reason }) if job.settings.quiesce == Quiesce::Required => {
            Err(Error::new(
                Kind::Conflict,
                "backup.freeze-required",
                format!("the guest's file systems could not be frozen: {reason}"),
            )
            .hint("see to the guest agent, or set the job to freeze only if possible"))
        }
        (view, Frozen::Crash { reason }) => {
            let text = format!("the point is as after a power cut: {reason}");
            job.run
                .desk
                .log(Level::Warning, "backup.not-frozen", &machine.name, text);
            Ok((view, Consistency::Crash))
        }
    }
}

/// Puts what defines the machine into the point.
fn put_definition(job: &Job<'_>, machine: &Machine, agent: &Agent) -> Result<()> {
    let definition = job.platform.definition(&machine.key)?;
    for warning in &definition.warnings {
        job.run.desk.log(
            Level::Warning,
            "backup.definition",
            &machine.name,
            warning.clone(),
        );
    }
    for file in &definition.files {
        let bytes = match &file.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::HostPath(path) => {
                let reader = job.run.agents.start(job.settings.host, &machine.name)?;
                match reader.read_host_file(path) {
                    Ok(bytes) => bytes,
                    // NVRAM of a machine that never started does not exist yet.
                    Err(error) if error.kind() == Kind::NotFound => {
                        job.run.desk.warn_error(&machine.name, &error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        agent.put_file(&file.name, &bytes)?;
    }
    Ok(())
}

/// Removes what an earlier run of this job left on the machine, should its own undoing have failed.
fn clean_left_overs(job: &Job<'_>, machine: &Machine) {
    let left = match job.platform.resources() {
        Ok(resources) => resources,
        Err(error) => return job.run.desk.warn_error(&machine.name, &error),
    };
    for resource in left {
        let ours = resource.token.job_short() == job.id.short()
            && resource.machine.as_ref() == Some(&machine.key)
            && resource.kind != ResourceKind::Tracker;
        if ours {
            let text = format!("removing what an earlier run left: {}", resource.name);
            job.run
                .desk
                .log(Level::Warning, "backup.left-over", &machine.name, text);
            if let Err(error) = job.platform.clean_up(&resource.token, Keep::Tracker) {
                job.run.desk.warn_error(&machine.name, &error);
            }
        }
    }
}

/// Deletes the job's trackers that no later run will ask for: all but the new one.
fn delete_old_trackers(job: &Job<'_>, machine: &Machine, newest: &Token) {
    let result = job.platform.trackers(&machine.key).and_then(|trackers| {
        for tracker in trackers {
            let old = tracker
                .token
                .as_ref()
                .is_some_and(|token| token != newest && token.job_short() == newest.job_short());
            if old {
                job.platform.delete_tracker(&machine.key, &tracker.name)?;
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        job.run
            .desk
            .warn_error(&machine.name, &error.context("deleting old trackers"));
    }
}
