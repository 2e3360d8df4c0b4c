//! A machine from a point: new, or over the one it was made of.
//!
//! Knows: the order that leaves either a whole machine or nothing new. Refuses to know: how bytes
//! move.
//!
//! New: journal, disks, definition, start. Original: stop it, overwrite its disks, bring it back.

pub mod plan;

use super::{Run, transfer};
use crate::agents::Agent;
use crate::journal::Step;
use base::id::TaskId;
use base::{Error, Kind, Result};
use plan::{DiskPlan, RestorePlan};
use platform::contract::{
    Addresses, Content, Definition, DefinitionFile, DiskPlacement, Identity, MachineKey, Networks,
    Platform, Power, ProvisionOptions,
};
use protocol::words::agent::{AgentRequest, AgentResponse, TaskEnd, TaskReport};
use protocol::words::manager::Resource;
use protocol::words::point::Point;
use protocol::words::session::{Level, Outcome, RestoreMachine, RestoreTarget, SessionState};
use std::time::Duration;
use uuid::Uuid;

/// How long a guest may take to shut down before its plug is pulled. What it would still write is
/// overwritten anyway.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the restore; the key of the machine.
pub fn run(run: &Run, order: &RestoreMachine) -> Result<Outcome> {
    let (agent, _) = run.open_repository("restore")?;
    let point = match agent.ask(&AgentRequest::ShowPoint { point: order.point })? {
        AgentResponse::Point(point) => *point,
        other => return Err(agent.unexpected(&other)),
    };
    let platform = run.platforms.connect(&order.platform)?;
    let definition = read_definition(&point, &agent, order)?;
    let plan = plan::plan(&point, order)?;
    let key = match &order.target {
        RestoreTarget::New { name, keep_mac } => make_new(
            run,
            order,
            &point,
            &plan,
            &definition,
            &agent,
            platform.as_ref(),
            (name, *keep_mac),
        )?,
        RestoreTarget::Original => over_original(
            run,
            order,
            &point,
            &plan,
            &definition,
            &agent,
            platform.as_ref(),
        )?,
    };
    if order.start {
        platform
            .start(&key)
            .map_err(|error| error.context("starting the restored machine"))?;
        run.desk.log(
            Level::Info,
            "restore.started",
            &point.draft.machine.name,
            "started",
        );
    }
    Ok(Outcome::Restored(key.0))
}

fn read_definition(point: &Point, agent: &Agent, order: &RestoreMachine) -> Result<Definition> {
    let mut definition = Definition {
        platform: order.platform.name().to_owned(),
        ..Definition::default()
    };
    for file in &point.files {
        let content = Content::Bytes(agent.read_file(point.id, &file.path)?);
        definition.files.push(DefinitionFile {
            name: file.path.clone(),
            content,
        });
    }
    Ok(definition)
}

#[allow(clippy::too_many_arguments)]
fn make_new(
    run: &Run,
    order: &RestoreMachine,
    point: &Point,
    plan: &RestorePlan,
    definition: &Definition,
    agent: &Agent,
    platform: &dyn Platform,
    (name, keep_mac): (&str, bool),
) -> Result<MachineKey> {
    if platform
        .machines()?
        .iter()
        .any(|machine| machine.name == name)
    {
        return Err(platform::contract::failure::machine_exists(name));
    }
    let mover = run.agents.host(order.host)?.mover.clone();
    let mut paths: Vec<String> = plan
        .disks
        .iter()
        .map(|disk| disk.target.path.clone())
        .collect();
    paths.extend(plan.nvram.clone());
    let files = run
        .journal
        .begin(Step::Files { mover, paths }, run.desk.clock().now())?;
    restore_disks(run, order, point, &plan.disks, agent)?;
    let nvram = write_nvram(run, order, plan, definition)?;
    let mut random = [0; 16];
    run.desk.random().fill(&mut random);
    let identity = uuid::Builder::from_random_bytes(random).into_uuid();
    let key = MachineKey(platform_key(order, plan, identity));
    let machine = run.journal.begin(
        Step::Machine {
            machine: key.0.clone(),
        },
        run.desk.clock().now(),
    )?;
    let options = ProvisionOptions {
        name: Some(name.to_owned()),
        identity: Identity::New(identity),
        disks: placements(&plan.disks),
        networks: Networks::Keep,
        addresses: if keep_mac {
            Addresses::Keep
        } else {
            Addresses::Renew
        },
        nvram,
    };
    let made = platform.provision(definition, &options)?;
    warn(run, &made.warnings, name);
    run.journal.end(machine)?;
    run.journal.end(files)?;
    Ok(made.machine.key)
}

/// The key a new machine will have, known before it is made so that it can be undone.
fn platform_key(order: &RestoreMachine, plan: &RestorePlan, identity: Uuid) -> String {
    match order.platform.name() {
        "libvirt" => identity.to_string(),
        // A machine of images is known by its first image.
        _ => plan
            .disks
            .first()
            .map(|disk| disk.target.path.clone())
            .unwrap_or_default(),
    }
}

fn over_original(
    run: &Run,
    order: &RestoreMachine,
    point: &Point,
    plan: &RestorePlan,
    definition: &Definition,
    agent: &Agent,
    platform: &dyn Platform,
) -> Result<MachineKey> {
    let key = MachineKey(point.draft.machine.platform_id.clone());
    let name = &point.draft.machine.name;
    let task = run.desk.add_task(name, false);
    let held = Resource::Machine {
        host: order.host,
        platform_id: key.0.clone(),
    };
    let _lease = run.desk.lease(held, task)?;
    run.desk.task_state(task, SessionState::Running);
    let exists = match platform.power(&key) {
        Ok(power) => {
            if power != Power::Off {
                stop(run, platform, &key, name)?;
            }
            true
        }
        Err(error) if error.kind() == Kind::NotFound => false,
        Err(error) => return Err(error),
    };
    if exists {
        // Their maps would say of blocks that the restore writes that they had not changed.
        for tracker in platform.trackers(&key)? {
            if tracker.token.is_some() {
                platform.delete_tracker(&key, &tracker.name)?;
            }
        }
    }
    restore_disks(run, order, point, &plan.disks, agent)?;
    if !exists {
        let options = ProvisionOptions {
            name: None,
            identity: Identity::Same,
            disks: placements(&plan.disks),
            networks: Networks::Keep,
            addresses: Addresses::Keep,
            nvram: write_nvram(run, order, plan, definition)?,
        };
        let made = platform.provision(definition, &options)?;
        warn(run, &made.warnings, name);
    }
    run.desk.task_state(task, SessionState::Success);
    Ok(key)
}

fn stop(run: &Run, platform: &dyn Platform, key: &MachineKey, name: &str) -> Result<()> {
    match platform.stop(key, STOP_PATIENCE, &run.desk.cancel) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == Kind::Cancelled => Err(error),
        Err(error) => {
            let text = format!("the guest did not shut down ({error}); it is switched off");
            run.desk
                .log(Level::Warning, "restore.switched-off", name, text);
            platform.destroy(key)
        }
    }
}

fn placements(disks: &[DiskPlan]) -> Vec<DiskPlacement> {
    disks
        .iter()
        .map(|disk| DiskPlacement {
            target: disk.name.clone(),
            path: disk.target.path.clone(),
            format: disk.target.format.clone(),
        })
        .collect()
}

fn warn(run: &Run, warnings: &[String], name: &str) {
    for warning in warnings {
        run.desk
            .log(Level::Warning, "restore.definition", name, warning.clone());
    }
}

fn write_nvram(
    run: &Run,
    order: &RestoreMachine,
    plan: &RestorePlan,
    definition: &Definition,
) -> Result<Option<String>> {
    let (Some(path), Some(bytes)) = (&plan.nvram, definition.bytes_of(plan::NVRAM)) else {
        return Ok(None);
    };
    let agent = run.agents.start(order.host, "nvram")?;
    agent.write_host_file(path, bytes)?;
    Ok(Some(path.clone()))
}

/// Restores all disks, at once.
fn restore_disks(
    run: &Run,
    order: &RestoreMachine,
    point: &Point,
    disks: &[DiskPlan],
    agent: &Agent,
) -> Result<()> {
    let tasks: Vec<(TaskId, &DiskPlan)> = disks
        .iter()
        .map(|disk| {
            let name = format!("{}/{}", point.draft.machine.name, disk.name);
            (run.desk.add_task(&name, true), disk)
        })
        .collect();
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = tasks
            .iter()
            .map(|(task, disk)| {
                scope.spawn(move || {
                    let done = restore_one(run, order, point, disk, agent, *task);
                    let state = match &done {
                        Ok(()) => SessionState::Success,
                        Err(error) if error.kind() == Kind::Cancelled => SessionState::Stopped,
                        Err(_) => SessionState::Failed,
                    };
                    run.desk.task_state(*task, state);
                    done
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(died())))
            .collect()
    });
    results.into_iter().collect()
}

fn died() -> Error {
    Error::new(
        Kind::Bug,
        "manager.thread",
        "a thread of the manager ended without a result",
    )
}

fn restore_one(
    run: &Run,
    order: &RestoreMachine,
    point: &Point,
    disk: &DiskPlan,
    agent: &Agent,
    task: TaskId,
) -> Result<()> {
    let _lease = run.desk.lease(Resource::Proxy(order.host), task)?;
    run.desk.task_state(task, SessionState::Running);
    let subject = format!("{}/{}", point.draft.machine.name, disk.name);
    let progress = |report: &TaskReport| run.desk.task_counters(task, report.counters);
    let report = if run.repository()?.host == order.host {
        let number = agent.start(&AgentRequest::RestoreDisk {
            point: point.id,
            disk: disk.name.clone(),
            target: disk.target.clone(),
        })?;
        agent.wait(number, progress)?
    } else {
        let writer = run.agents.start(order.host, &subject)?;
        let from = transfer::PointDisk {
            point: point.id,
            disk: &disk.name,
            size: disk.size,
        };
        let target = disk.target.clone();
        transfer::send_point_disk(&run.desk, agent, &writer, &from, target, progress)?
    };
    check_root(&report, disk)?;
    let text = format!(
        "{} written to {}, digest equal",
        disk.size, disk.target.path
    );
    run.desk.log(Level::Info, "restore.disk", &subject, text);
    Ok(())
}

/// What was written must be what the point holds.
pub fn check_root(report: &TaskReport, disk: &DiskPlan) -> Result<()> {
    match &report.end {
        Some(TaskEnd::Restored { root }) if *root == disk.root => Ok(()),
        Some(TaskEnd::Restored { .. }) => Err(Error::corrupt(
            "restore.digest-differs",
            format!(
                "what was written of disk {} is not what the point holds",
                disk.name
            ),
        )
        .hint("verify the repository, then restore again")),
        other => Err(Error::new(
            Kind::Bug,
            "manager.agent.answer",
            format!("a restore ended with {other:?}"),
        )),
    }
}
