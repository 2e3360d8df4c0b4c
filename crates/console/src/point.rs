//! `backstay point ...`
//!
//! Knows: what people say of restore points. Refuses to know: what is in them.

use crate::follow::Wait;
use crate::server::{Server, unexpected};
use crate::show::{self, Table};
use base::Result;
use base::size::ByteCount;
use clap::Subcommand;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A};
use protocol::words::point::{Consistency, Point, PointKind};

/// What to do with restore points.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show restore points, newest first
    List {
        /// Of this machine only
        #[arg(long)]
        machine: Option<String>,
        /// In this repository only
        #[arg(long)]
        repository: Option<String>,
    },
    /// Show one restore point with its disks and files
    Show {
        /// Id, or its last digits
        point: String,
    },
    /// Delete restore points
    Delete {
        /// Ids, or their last digits
        #[arg(required = true)]
        points: Vec<String>,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
}

/// Does it.
pub fn run(server: &Server, verb: &Verb) -> Result<u8> {
    match verb {
        Verb::List {
            machine,
            repository,
        } => {
            let points = all(server, machine.as_ref(), repository.as_ref())?;
            list(server, &points).map(|()| 0)
        }
        Verb::Show { point } => show_one(server, &find(server, point)?).map(|()| 0),
        Verb::Delete { points, wait } => {
            match server.ask(&Q::PointDelete {
                keys: points.clone(),
            })? {
                A::Session(session) => wait.show(server, &session),
                other => Err(unexpected(&other)),
            }
        }
    }
}

/// The point with this id or these last digits.
pub fn find(server: &Server, key: &str) -> Result<Point> {
    match server.ask(&Q::PointShow {
        key: key.to_owned(),
    })? {
        A::Point(point) => Ok(*point),
        other => Err(unexpected(&other)),
    }
}

/// All points, newest first, in as many questions as that takes.
fn all(
    server: &Server,
    machine: Option<&String>,
    repository: Option<&String>,
) -> Result<Vec<Point>> {
    let mut all: Vec<Point> = Vec::new();
    loop {
        let request = Q::PointList {
            machine: machine.cloned(),
            repository: repository.cloned(),
            after: all.last().map(|point| (point.created, point.id)),
        };
        let (points, more) = match server.ask(&request)? {
            A::Points { points, more } => (points, more),
            other => return Err(unexpected(&other)),
        };
        let none = points.is_empty();
        all.extend(points);
        if !more || none {
            return Ok(all);
        }
    }
}

fn kind(point: &Point) -> &'static str {
    match point.kind {
        PointKind::Full => "full",
        PointKind::Incremental => "incremental",
    }
}

fn list(server: &Server, points: &[Point]) -> Result<()> {
    if server.json() {
        return show::json(&points);
    }
    let mut table = Table::new(&[
        "POINT", "MACHINE", "CREATED", "KIND", "SIZE", "READ", "STORED", "JOB",
    ]);
    for point in points {
        let size: ByteCount = point.disks.iter().map(|disk| disk.size).sum();
        table.row(vec![
            point.id.short(),
            point.draft.machine.name.clone(),
            show::time(point.created),
            kind(point).to_owned(),
            size.to_string(),
            point.counters.read.to_string(),
            point.counters.stored.to_string(),
            point
                .draft
                .job
                .as_ref()
                .map_or("-", |(_, name)| name)
                .to_owned(),
        ]);
    }
    table.print("no restore points")
}

fn show_one(server: &Server, point: &Point) -> Result<()> {
    if server.json() {
        return show::json(point);
    }
    let consistency = match point.draft.consistency {
        Consistency::Crash => "as after a power cut",
        Consistency::FileSystem => "file systems frozen",
        Consistency::PoweredOff => "machine was off",
    };
    show::line(&format!("point       {}", point.id))?;
    show::line(&format!(
        "machine     {}",
        show::clean(&point.draft.machine.name)
    ))?;
    show::line(&format!("created     {}", show::time(point.created)))?;
    show::line(&format!("kind        {} (restores by itself)", kind(point)))?;
    show::line(&format!("consistency {consistency}"))?;
    show::line(&format!("counters    {}", show::counters(&point.counters)))?;
    let mut table = Table::new(&["DISK OR FILE", "SIZE", "DIGEST"]);
    for disk in &point.disks {
        table.row(vec![
            disk.name.clone(),
            disk.size.to_string(),
            disk.root.to_string(),
        ]);
    }
    for file in &point.files {
        table.row(vec![
            file.path.clone(),
            file.size.to_string(),
            file.root.to_string(),
        ]);
    }
    table.print("nothing in it")
}
