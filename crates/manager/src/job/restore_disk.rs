//! One disk of a point into a file or device.
//!
//! Knows: source, target, and that the digests must be equal. Refuses to know: machines.

use super::restore_machine::{check_root, plan::DiskPlan};
use super::{Run, transfer};
use crate::journal::Step;
use base::{Error, Kind, Result};
use protocol::words::agent::{AgentRequest, AgentResponse, ImageTarget, TaskReport};
use protocol::words::manager::Resource;
use protocol::words::session::{Level, RestoreDisk, SessionState};

/// Runs the restore.
pub fn run(run: &Run, order: &RestoreDisk) -> Result<()> {
    let (agent, _) = run.open_repository("restore")?;
    let point = match agent.ask(&AgentRequest::ShowPoint { point: order.point })? {
        AgentResponse::Point(point) => *point,
        other => return Err(agent.unexpected(&other)),
    };
    let disk = point.disk(&order.disk).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "restore.disk-not-found",
            format!("the point has no disk \u{201c}{}\u{201d}", order.disk),
        )
        .hint("\u{201c}backstay point show\u{201d} lists its disks")
    })?;
    let target = ImageTarget {
        path: order.path.clone(),
        format: order.format.clone(),
        overwrite: false,
    };
    let plan = DiskPlan {
        name: disk.name.clone(),
        size: disk.size,
        root: disk.root,
        target,
    };
    let subject = format!("{}/{}", point.draft.machine.name, disk.name);
    let task = run.desk.add_task(&subject, true);
    let _lease = run.desk.lease(Resource::Proxy(order.host), task)?;
    run.desk.task_state(task, SessionState::Running);
    let writer = run.agents.start(order.host, &subject)?;
    refuse_existing(&writer, &order.path)?;
    let mover = run.agents.host(order.host)?.mover.clone();
    let step = Step::Files {
        mover,
        paths: vec![order.path.clone()],
    };
    let number = run.journal.begin(step, run.desk.clock().now())?;
    let progress = |report: &TaskReport| run.desk.task_counters(task, report.counters);
    let report = if run.repository()?.host == order.host {
        let request = AgentRequest::RestoreDisk {
            point: order.point,
            disk: order.disk.clone(),
            target: plan.target.clone(),
        };
        agent
            .wait(agent.start(&request)?, progress)
            .map_err(advised)?
    } else {
        let from = transfer::PointDisk {
            point: order.point,
            disk: &order.disk,
            size: plan.size,
        };
        let target = plan.target.clone();
        transfer::send_point_disk(&run.desk, &agent, &writer, &from, target, progress)?
    };
    check_root(&report, &plan)?;
    run.journal.end(number)?;
    run.desk.task_state(task, SessionState::Success);
    let text = format!("{} written to {}, digest equal", plan.size, order.path);
    run.desk.log(Level::Info, "restore.disk", &subject, text);
    Ok(())
}

/// A point that cannot be read whole is for `verify` to look at.
fn advised(error: Error) -> Error {
    if error.kind() == Kind::Corrupt && error.hint_text().is_none() {
        error.hint(
            "\u{201c}backstay verify\u{201d} shows what is damaged; other points may be whole",
        )
    } else {
        error
    }
}

/// The undo of a failed restore removes its file; one that was there before must not be it.
fn refuse_existing(writer: &crate::agents::Agent, path: &str) -> Result<()> {
    match writer.ask(&AgentRequest::ProbeImage {
        path: path.to_owned(),
    }) {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        _ => Err(Error::new(
            Kind::Exists,
            "restore.file-exists",
            format!("there is something at {path} already"),
        )
        .hint("name another file, or remove that one first")),
    }
}
