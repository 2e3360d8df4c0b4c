//! Points as the repository keeps them and as processes speak of them.
//!
//! Knows: both shapes. Refuses to know: anything else.

use base::digest::Digest;
use base::size::{ByteCount, ByteRange};
use protocol::words::agent::Damage;
use protocol::words::counters::Counters;
use protocol::words::point::{
    Consistency, Point, PointDisk, PointDraft, PointFile, PointKind, PointMachine,
};
use std::collections::BTreeMap;

/// Names of fields that the repository keeps for us beside its own.
const PLATFORM_ID: &str = "platform_id";
const HOST: &str = "host";

/// A point as processes speak of it.
pub fn point(stored: &store::Point) -> Point {
    let disks: Vec<PointDisk> = stored.disks.iter().map(disk).collect();
    let changed = disks.iter().any(|disk| disk.kind == PointKind::Incremental);
    Point {
        id: stored.id,
        repository: stored.repository,
        created: stored.time,
        draft: PointDraft {
            machine: machine(&stored.machine),
            job: stored.job.as_ref().map(|job| (job.id, job.name.clone())),
            session: stored
                .session
                .unwrap_or(base::id::SessionId::from_bytes([0; 16])),
            consistency: consistency(stored.consistency),
            parent: stored.parent,
        },
        kind: if changed {
            PointKind::Incremental
        } else {
            PointKind::Full
        },
        disks,
        files: stored.files.iter().map(file).collect(),
        counters: counters(&stored.counters),
    }
}

fn machine(stored: &store::PointMachine) -> PointMachine {
    let field = |name: &str| {
        let value = stored.more.get(name).and_then(serde_json::Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    PointMachine {
        id: stored.id,
        name: stored.name.clone(),
        platform: stored.platform.clone(),
        platform_id: field(PLATFORM_ID),
        host: field(HOST),
    }
}

/// A machine as the repository keeps it.
pub fn stored_machine(machine: PointMachine) -> store::PointMachine {
    let more = [(PLATFORM_ID, machine.platform_id), (HOST, machine.host)];
    store::PointMachine {
        id: machine.id,
        name: machine.name,
        platform: machine.platform,
        more: more
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
    }
}

/// A disk as processes speak of it.
pub fn disk(stored: &store::PointDisk) -> PointDisk {
    PointDisk {
        name: stored.name.clone(),
        size: stored.size,
        root: stored.root.0,
        kind: if stored.changed_blocks {
            PointKind::Incremental
        } else {
            PointKind::Full
        },
        attributes: stored.attributes.clone(),
        tracker: stored.tracker.clone(),
    }
}

/// A disk as the repository keeps it.
pub fn stored_disk(disk: &PointDisk) -> store::PointDisk {
    store::PointDisk {
        name: disk.name.clone(),
        size: disk.size,
        root: root(disk.root),
        changed_blocks: disk.kind == PointKind::Incremental,
        attributes: disk.attributes.clone(),
        tracker: disk.tracker.clone(),
        more: BTreeMap::new(),
    }
}

/// A root of a tree from the digest that processes speak of.
pub const fn root(digest: Digest) -> store::Root {
    store::Root(digest)
}

/// A file as processes speak of it.
pub fn file(stored: &store::PointFile) -> PointFile {
    PointFile {
        path: stored.path.clone(),
        size: stored.size,
        root: stored.root.0,
    }
}

fn consistency(stored: store::Consistency) -> Consistency {
    match stored {
        store::Consistency::Crash => Consistency::Crash,
        // Frozen applications imply frozen file systems; no finer word exists yet.
        store::Consistency::FileSystem | store::Consistency::Application => Consistency::FileSystem,
        store::Consistency::Off => Consistency::PoweredOff,
    }
}

/// A consistency as the repository keeps it.
pub fn stored_consistency(consistency: Consistency) -> store::Consistency {
    match consistency {
        Consistency::Crash => store::Consistency::Crash,
        Consistency::FileSystem => store::Consistency::FileSystem,
        Consistency::PoweredOff => store::Consistency::Off,
    }
}

fn counters(stored: &store::PointCounters) -> Counters {
    Counters {
        processed: stored.processed,
        done: stored.processed,
        read: stored.read,
        transferred: stored.transferred,
        stored: stored.stored,
        ..Counters::default()
    }
}

/// Counters as the repository keeps them.
pub fn stored_counters(counters: &Counters) -> store::PointCounters {
    store::PointCounters {
        processed: counters.processed,
        read: counters.read,
        transferred: counters.transferred,
        new: ByteCount::ZERO,
        stored: ByteCount::ZERO,
    }
}

/// A damage as processes speak of it.
pub fn damage(found: &store::Damage) -> Damage {
    let of_object = |what: String| Damage {
        point: None,
        file: String::new(),
        range: ByteRange::default(),
        what,
    };
    match found {
        store::Damage::Range {
            point,
            name,
            range,
            reason,
        } => Damage {
            point: Some(*point),
            file: name.clone(),
            range: *range,
            what: reason.clone(),
        },
        store::Damage::Point { name, reason } => Damage {
            point: name.parse().ok(),
            ..of_object(format!("point {name}: {reason}"))
        },
        store::Damage::Pack { pack, reason } => of_object(format!("pack {pack}: {reason}")),
        store::Damage::Segment { segment, reason } => {
            of_object(format!("index segment {segment}: {reason}"))
        }
        store::Damage::Object { path, reason } => of_object(format!("{path}: {reason}")),
        other => of_object(format!("{other:?}")),
    }
}
