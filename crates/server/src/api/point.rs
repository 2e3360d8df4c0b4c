//! Requests about restore points: list, delete, restore.
//!
//! Knows: which session each request starts. Refuses to know: what is in a point.

use crate::db;
use crate::sessions::{self, Request};
use crate::site::Site;
use base::clock::Timestamp;
use base::id::{HostId, PointId, RepositoryId};
use base::{Error, Kind, Result};
use protocol::paging;
use protocol::words::console::ConsoleResponse as A;
use protocol::words::point::Point;
use protocol::words::session::{RestoreDisk, RestoreMachine, RestoreTarget, SessionKind};
use std::sync::Arc;

/// Points looked at for one answer; as many of them go into it as one message holds.
const ROWS_MAX: u32 = 5_000;

pub fn list(
    site: &Site,
    machine: Option<&str>,
    repository: Option<&str>,
    after: Option<(Timestamp, PointId)>,
) -> Result<A> {
    let points = site.database.transaction(|t| {
        let repository = repository
            .map(|key| db::repository::find(t, key))
            .transpose()?;
        let wanted = db::point::Wanted {
            machine,
            repository: repository.map(|repository| repository.id),
            after,
            limit: Some(ROWS_MAX),
        };
        db::point::list(t, wanted)
    })?;
    let rows_left = points.len() == ROWS_MAX as usize;
    let page = paging::page(points.into_iter().map(Ok))?;
    Ok(A::Points {
        points: page.items,
        more: page.more || rows_left,
    })
}

pub fn show(site: &Site, key: &str) -> Result<A> {
    site.database
        .transaction(|t| db::point::find(t, key))
        .map(|point| A::Point(Box::new(point)))
}

pub fn delete(site: &Arc<Site>, who: &str, keys: &[String]) -> Result<A> {
    let points: Vec<Point> = site
        .database
        .transaction(|t| keys.iter().map(|key| db::point::find(t, key)).collect())?;
    let Some(first) = points.first() else {
        return Err(
            Error::invalid("point.none-named", "no restore point was named")
                .hint("\u{201c}backstay point list\u{201d} shows all"),
        );
    };
    if points
        .iter()
        .any(|point| point.repository != first.repository)
    {
        return Err(Error::invalid(
            "point.several-repositories",
            "the restore points are in different repositories",
        )
        .hint("delete those of one repository at a time"));
    }
    let kind = SessionKind::DeletePoints {
        repository: first.repository,
        points: points.iter().map(|point| point.id).collect(),
    };
    start(
        site,
        who,
        first.draft.machine.name.clone(),
        kind,
        first.repository,
        Vec::new(),
    )
}

pub fn restore_machine(site: &Arc<Site>, who: &str, order: RestoreMachine) -> Result<A> {
    let point = check_point(site, &order.point.to_string(), order.repository)?;
    if let RestoreTarget::New { name, .. } = &order.target {
        crate::site::check_name("machine", name)?;
    }
    if order.platform.name() != point.draft.machine.platform {
        return Err(Error::new(
            Kind::Unsupported,
            "restore.platform-differs",
            format!(
                "the point is of a machine of {}; it cannot become a machine of {}",
                point.draft.machine.platform,
                order.platform.name()
            ),
        )
        .hint("restore its disks with \u{201c}backstay restore disk\u{201d}"));
    }
    let hosts = vec![order.host];
    let name = point.draft.machine.name;
    start(
        site,
        who,
        name,
        SessionKind::RestoreMachine(order.clone()),
        order.repository,
        hosts,
    )
}

pub fn restore_disk(site: &Arc<Site>, who: &str, order: RestoreDisk) -> Result<A> {
    let point = check_point(site, &order.point.to_string(), order.repository)?;
    if point.disk(&order.disk).is_none() {
        let names: Vec<&str> = point.disks.iter().map(|disk| disk.name.as_str()).collect();
        return Err(Error::new(
            Kind::NotFound,
            "restore.disk-not-found",
            format!("the point has no disk \u{201c}{}\u{201d}", order.disk),
        )
        .hint(format!("its disks are: {}", names.join(", "))));
    }
    if !order.path.starts_with('/') {
        return Err(Error::invalid(
            "restore.path-relative",
            format!("\u{201c}{}\u{201d} is not an absolute path", order.path),
        )
        .hint("name the file from the root on, as its host sees it"));
    }
    let hosts = vec![order.host];
    let name = point.draft.machine.name;
    start(
        site,
        who,
        name,
        SessionKind::RestoreDisk(order.clone()),
        order.repository,
        hosts,
    )
}

fn check_point(site: &Site, key: &str, repository: RepositoryId) -> Result<Point> {
    let point = site.database.transaction(|t| db::point::find(t, key))?;
    if point.repository == repository {
        Ok(point)
    } else {
        Err(Error::invalid(
            "point.other-repository",
            "the point is in another repository",
        )
        .hint("\u{201c}backstay point show\u{201d} says where it is"))
    }
}

fn start(
    site: &Arc<Site>,
    who: &str,
    name: String,
    kind: SessionKind,
    repository: RepositoryId,
    hosts: Vec<HostId>,
) -> Result<A> {
    let request = Request {
        kind,
        name,
        initiator: who.to_owned(),
        job: None,
        repository: Some(repository),
        hosts,
    };
    Ok(A::Session(Box::new(sessions::start(site, request)?)))
}
