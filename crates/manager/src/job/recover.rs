//! Undoing what a session left open, in this process or in one that died.
//!
//! Knows: the undo of each kind of step; all are idempotent. Refuses to know: why they are undone.
//!
//! The order is newest first, except that agents end before anything they write to is removed.

use super::Run;
use crate::journal::{Step, StepNumber};
use base::{Error, Kind, Result};
use platform::contract::{Keep, MachineKey, Token};
use protocol::words::agent::{AgentRequest, AgentResponse};
use protocol::words::job::PlatformAddress;
use protocol::words::manager::ManagerRequest;
use protocol::words::session::{Level, SessionKind, SessionState};

/// Undoes all open steps. What cannot be undone stays in the journal and is logged.
pub fn undo_all(run: &Run) {
    let steps = run.journal.open_steps();
    let (agents, others): (Vec<_>, Vec<_>) = steps
        .into_iter()
        .partition(|(_, step)| matches!(step, Step::Agents { .. }));
    for (number, step) in agents.into_iter().chain(others) {
        if let Err(error) = undo(run, number, &step) {
            let text = format!("could not undo {}: {error}", shown(&step));
            run.desk.log(Level::Error, "session.undo-failed", "", text);
        }
    }
    // Undoing may have started agents of its own.
    if let Err(error) = run.agents.stop_all() {
        run.desk.warn_error("", &error);
    }
}

/// Has the server know the points as they are. Failing to is not worth failing for: a rescan, or
/// the next run that fails, looks again.
pub fn look_again(run: &Run) {
    if let Err(error) = super::repository::relist(run) {
        let error = error.context("looking which points there are");
        run.desk.warn_error("", &error);
    }
    if let Err(error) = run.agents.stop_all() {
        run.desk.warn_error("", &error);
    }
}

/// What a manager does that was started to clean up after another.
pub fn run(run: &Run) -> Result<()> {
    undo_all(run);
    if !run.journal.open_steps().is_empty() {
        return Err(Error::new(
            Kind::Conflict,
            "session.undo-incomplete",
            "something the session left could not be undone yet",
        )
        .hint("the session's log says what; it is tried again"));
    }
    look_again(run);
    let text = "what the session had begun was undone; the next run starts afresh";
    run.desk.log(Level::Error, "session.undone", "", text);
    run.desk.finish(SessionState::Failed, None)
}

fn undo(run: &Run, number: StepNumber, step: &Step) -> Result<()> {
    match step {
        Step::Agents { mover } => run.agents.stop_at(mover)?,
        Step::Backup { machine, token } => undo_backup(run, machine, token)?,
        Step::Files { mover, paths } => remove_files(run, mover, paths)?,
        Step::Machine { machine } => {
            let platform = run.platforms.connect(platform_of(run)?)?;
            let machine = MachineKey(machine.clone());
            match platform
                .destroy(&machine)
                .and_then(|()| platform.undefine(&machine))
            {
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    run.journal.end(number)
}

fn undo_backup(run: &Run, machine: &str, token: &str) -> Result<()> {
    let token: Token = token.parse()?;
    let keep = if is_published(run, &token)? {
        Keep::Tracker
    } else {
        Keep::Nothing
    };
    let platform = run.platforms.connect(platform_of(run)?)?;
    let machine = MachineKey(machine.to_owned());
    // A guest must never stay frozen. One without an agent was not frozen by us.
    if let Err(error) = platform.thaw(&machine) {
        tracing::info!(%error, "thawing while undoing");
    }
    platform.clean_up(&token, keep)?;
    Ok(())
}

/// Whether the run's point was published before the end came. If so it is as good as any, and the
/// server is told of it.
fn is_published(run: &Run, token: &Token) -> Result<bool> {
    let (agent, summary) = run.open_repository("recovery")?;
    match agent.ask(&AgentRequest::ShowPoint {
        point: token.point(),
    }) {
        Ok(AgentResponse::Point(point)) => {
            run.desk.tell(&ManagerRequest::PointsFound {
                repository: summary.id,
                points: vec![*point],
                complete: None,
            })?;
            Ok(true)
        }
        Ok(other) => Err(agent.unexpected(&other)),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_files(run: &Run, mover: &str, paths: &[String]) -> Result<()> {
    let host = run
        .order
        .hosts
        .iter()
        .find(|host| host.mover == mover)
        .ok_or_else(|| {
            Error::new(
                Kind::Bug,
                "manager.host-missing",
                format!("no host has the mover {mover}"),
            )
        })?;
    let agent = run.agents.start(host.id, "undo")?;
    agent.done(&AgentRequest::RemoveHostFiles {
        paths: paths.to_vec(),
    })
}

fn platform_of(run: &Run) -> Result<&PlatformAddress> {
    match (&run.order.kind, &run.order.job) {
        (SessionKind::Backup { .. }, Some(job)) => Ok(&job.platform),
        (SessionKind::RestoreMachine(order), _) => Ok(&order.platform),
        _ => Err(Error::new(
            Kind::Bug,
            "manager.order.platform",
            "the journal names a machine, but the order names no platform",
        )),
    }
}

fn shown(step: &Step) -> String {
    match step {
        Step::Agents { mover } => format!("the agents at {mover}"),
        Step::Backup { machine, token } => format!("the backup {token} of machine {machine}"),
        Step::Files { paths, .. } => format!("the files {}", paths.join(", ")),
        Step::Machine { machine } => format!("the new machine {machine}"),
    }
}
