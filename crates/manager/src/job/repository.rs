//! Work on a repository itself: make it, look through it, free space, check it, delete points.
//!
//! Knows: which command of an agent does each. Refuses to know: how.

use super::Run;
use base::id::PointId;
use base::{Error, Kind, Result};
use protocol::words::agent::{AgentRequest, AgentResponse, Damage, TaskEnd, TaskReport};
use protocol::words::manager::ManagerRequest;
use protocol::words::repository::RepositoryOptions;
use protocol::words::session::{Level, Outcome, SessionKind, SessionState};

/// Makes an empty repository.
pub fn create(run: &Run, options: &RepositoryOptions) -> Result<()> {
    let repository = run.repository()?;
    let agent = run.agents.start(repository.host, &repository.name)?;
    let request = AgentRequest::CreateRepository {
        access: repository.access.clone(),
        options: options.clone(),
    };
    match agent.ask(&request)? {
        AgentResponse::Repository(summary) => run.tell_repository(&summary)?,
        other => return Err(agent.unexpected(&other)),
    }
    let text = format!("made in {}", repository.access.location);
    run.desk
        .log(Level::Info, "repository.created", &repository.name, text);
    Ok(())
}

/// Finds all points of a repository.
pub fn rescan(run: &Run) -> Result<()> {
    let (agent, summary) = run.open_repository("rescan")?;
    let mut count = 0;
    agent.point_pages(|points, span| {
        count += points.len();
        run.desk.tell(&ManagerRequest::PointsFound {
            repository: summary.id,
            points,
            complete: Some(span),
        })
    })?;
    let text = format!("{count} restore points found");
    run.desk.log(
        Level::Info,
        "repository.rescanned",
        &run.repository()?.name,
        text,
    );
    Ok(())
}

/// Tells the server which points there really are, after work on them that did not end well: an
/// agent or manager that died has not said which it had made or removed.
pub fn relist(run: &Run) -> Result<()> {
    if !matches!(
        run.order.kind,
        SessionKind::Backup { .. } | SessionKind::DeletePoints { .. }
    ) {
        return Ok(());
    }
    let (agent, summary) = run.open_repository("looking which points there are")?;
    // Twice: what another session has published between the first look and the word about it was
    // forgotten with that word, and is found by the second.
    for complete in [true, false] {
        agent.point_pages(|points, span| {
            run.desk.tell(&ManagerRequest::PointsFound {
                repository: summary.id,
                points,
                complete: complete.then_some(span),
            })
        })?;
    }
    Ok(())
}

/// Frees what no point needs.
pub fn collect(run: &Run) -> Result<Outcome> {
    match task(run, "collect", &AgentRequest::Collect)?.end {
        Some(TaskEnd::Collected {
            freed,
            rewritten,
            waiting,
        }) => {
            let mut text = format!("{freed} came free");
            if waiting > 0 {
                text += &format!("; {waiting} packs wait for writers or readers at work");
            }
            run.desk.log(
                Level::Info,
                "repository.collected",
                &run.repository()?.name,
                text,
            );
            Ok(Outcome::Collected { freed, rewritten })
        }
        other => Err(unexpected(other.as_ref())),
    }
}

/// Checks points.
pub fn verify(run: &Run, point: Option<PointId>, read_data: bool) -> Result<Outcome> {
    match task(run, "verify", &AgentRequest::Verify { point, read_data })?.end {
        Some(TaskEnd::Verified {
            whole,
            blocks,
            damages,
        }) => {
            for damage in &damages {
                // What is broken elsewhere is worth knowing, but the point asked for is whole.
                let elsewhere = damage.point.is_none() && point.is_some_and(|p| whole.contains(&p));
                let level = if elsewhere {
                    Level::Warning
                } else {
                    Level::Error
                };
                run.desk
                    .log(level, "verify.damaged", &damage.file, shown(damage));
            }
            let text = format!("{} points are whole; {blocks} blocks checked", whole.len());
            run.desk
                .log(Level::Info, "verify.done", &run.repository()?.name, text);
            Ok(Outcome::Verified {
                whole: whole.len() as u64,
                blocks,
                damages: damages.iter().map(shown).collect(),
            })
        }
        other => Err(unexpected(other.as_ref())),
    }
}

/// Removes points.
pub fn delete_points(run: &Run, points: &[PointId]) -> Result<()> {
    let (agent, summary) = run.open_repository("delete")?;
    agent.done(&AgentRequest::DeletePoints {
        points: points.to_vec(),
    })?;
    let repository = summary.id;
    run.desk.tell(&ManagerRequest::PointsGone {
        repository,
        points: points.to_vec(),
    })?;
    let text = format!("{} restore points removed", points.len());
    run.desk.log(
        Level::Info,
        "repository.points-deleted",
        &run.repository()?.name,
        text,
    );
    Ok(())
}

/// Runs one task of an agent in the open repository, shown as a task of the session.
fn task(run: &Run, purpose: &str, request: &AgentRequest) -> Result<TaskReport> {
    let shown = run.desk.add_task(&run.repository()?.name, true);
    let (agent, _) = run.open_repository(purpose)?;
    run.desk.task_state(shown, SessionState::Running);
    let number = agent.start(request)?;
    let report = agent.wait(number, |report| {
        run.desk.task_counters(shown, report.counters)
    });
    let state = match &report {
        Ok(_) => SessionState::Success,
        Err(error) if error.kind() == Kind::Cancelled => SessionState::Stopped,
        Err(_) => SessionState::Failed,
    };
    run.desk.task_state(shown, state);
    let report = report?;
    for (code, text) in &report.warnings {
        run.desk.log(Level::Warning, code, "", text.clone());
    }
    Ok(report)
}

fn shown(damage: &Damage) -> String {
    let mut text = String::new();
    if let Some(point) = damage.point {
        text += &format!("point {}", point.short());
    }
    if !damage.file.is_empty() {
        text += &format!(" {}", damage.file);
    }
    if !damage.range.is_empty() {
        text += &format!(" at {}", damage.range);
    }
    match text.trim_start() {
        "" => damage.what.clone(),
        place => format!("{place}: {}", damage.what),
    }
}

fn unexpected(end: Option<&TaskEnd>) -> Error {
    Error::new(
        Kind::Bug,
        "manager.agent.answer",
        format!("a task ended with {end:?}"),
    )
}
