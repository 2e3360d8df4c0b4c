//! Requests about machines.
//!
//! Knows: what was seen of them and what points they have. Refuses to know: hypervisors; looking is
//! a session.

use crate::db::Transaction;
use crate::db::{self, machine::MachineRow};
use crate::sessions::{self, Request};
use crate::site::Site;
use base::Result;
use base::id::{HostId, JobId, MachineId};
use protocol::paging;
use protocol::words::console::{ConsoleResponse as A, Machine};
use protocol::words::job::{Job, PlatformAddress, Selection};
use protocol::words::manager::{FoundDisk, FoundMachine};
use protocol::words::point::Point;
use protocol::words::session::SessionKind;
use std::sync::Arc;

pub fn list(site: &Site, from: u64) -> Result<A> {
    let machines = site.database.transaction(|t| {
        let jobs: Vec<Job> = db::job::list(t)?.into_iter().map(|row| row.job).collect();
        let mut machines = Vec::new();
        for row in db::machine::list(t)? {
            machines.push(seen(t, row, &jobs)?);
        }
        for point in db::point::list(t, db::point::Wanted::default())? {
            let id = point.draft.machine.id;
            if machines
                .iter()
                .all(|machine: &Machine| machine.id != Some(id))
            {
                machines.push(remembered(t, &point)?);
            }
        }
        Ok(machines)
    })?;
    let skipped = usize::try_from(from).unwrap_or(usize::MAX);
    let page = paging::page(machines.into_iter().skip(skipped).map(Ok))?;
    Ok(A::Machines {
        machines: page.items,
        more: page.more,
    })
}

fn seen(t: &Transaction<'_>, row: MachineRow, jobs: &[Job]) -> Result<Machine> {
    let (points, newest) = db::point::summary(t, &row.machine.to_string())?;
    let jobs = covering(jobs, &row);
    Ok(Machine {
        id: (points > 0 || !jobs.is_empty()).then_some(row.machine),
        found: row.found,
        platform: row.platform,
        host: row.host,
        jobs,
        points,
        newest,
    })
}

fn covering(jobs: &[Job], row: &MachineRow) -> Vec<JobId> {
    let named = |names: &[String]| {
        names
            .iter()
            .any(|name| *name == row.found.name || *name == row.found.platform_id)
    };
    let covers = |job: &&Job| {
        job.settings.host == row.host
            && job.settings.platform.name() == row.platform
            && match &job.settings.selection {
                Selection::Machines(names) => named(names),
                Selection::AllExcept(names) => !named(names),
            }
    };
    jobs.iter().filter(covers).map(|job| job.id).collect()
}

/// A machine that is known from its points only: deleted, or the database is new.
fn remembered(t: &Transaction<'_>, point: &Point) -> Result<Machine> {
    let machine = &point.draft.machine;
    let (points, newest) = db::point::summary(t, &machine.id.to_string())?;
    let disks = point.disks.iter().map(|disk| FoundDisk {
        name: disk.name.clone(),
        size: disk.size,
        format: disk.attributes.get("format").cloned().unwrap_or_default(),
        path: disk.attributes.get("path").cloned().unwrap_or_default(),
        trackable: !disk.tracker.is_empty(),
    });
    let none = MachineId::from_bytes([0; 16]);
    Ok(Machine {
        id: (machine.id != none).then_some(machine.id),
        found: FoundMachine {
            platform_id: machine.platform_id.clone(),
            name: machine.name.clone(),
            state: "unknown".to_owned(),
            disks: disks.collect(),
            agent: None,
        },
        platform: machine.platform.clone(),
        host: HostId::from_bytes([0; 16]),
        jobs: Vec::new(),
        points,
        newest,
    })
}

pub fn discover(site: &Arc<Site>, who: &str, host: &str, platform: PlatformAddress) -> Result<A> {
    let host = site.database.transaction(|t| db::host::find(t, host))?;
    let request = Request {
        name: host.name.clone(),
        kind: SessionKind::Discover {
            host: host.id,
            platform,
        },
        initiator: who.to_owned(),
        job: None,
        repository: None,
        hosts: vec![host.id],
    };
    Ok(A::Session(Box::new(sessions::start(site, request)?)))
}
