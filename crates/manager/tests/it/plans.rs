//! Plans as tables: pure functions.

use crate::scene::{JOB, machine_id};
use base::clock::Timestamp;
use base::digest::Digest;
use base::id::{HostId, JobId, PointId, RepositoryId, SessionId};
use base::size::ByteCount;
use manager::job::backup::{plan, select};
use manager::job::restore_machine::plan as restore;
use platform::contract::{
    AgentPresence, DiskTracker, Machine, MachineDisk, MachineKey, Power, Token, Trackable,
};
use protocol::words::job::{PlatformAddress, Selection};
use protocol::words::point::{Point, PointDisk, PointDraft, PointFile, PointKind, PointMachine};
use protocol::words::session::{RestoreMachine, RestoreTarget};
use std::collections::BTreeMap;

fn machine(name: &str) -> Machine {
    Machine {
        key: MachineKey(format!("key-{name}")),
        name: name.into(),
        power: Power::Running,
        agent: AgentPresence::Connected,
        disks: vec![MachineDisk {
            target: "vda".into(),
            source: "/images/a.qcow2".into(),
            path: Some("/images/a.qcow2".into()),
            format: Some("qcow2".into()),
            capacity: ByteCount(100),
            allocated: None,
            trackable: Trackable::Yes,
        }],
    }
}

fn tracker(point: PointId) -> DiskTracker {
    DiskTracker {
        machine: machine("web1").key,
        name: Token::new(&JOB, &point),
        target: "vda".into(),
        source: "/images/a.qcow2".into(),
        capacity: ByteCount(100),
        document: String::new(),
    }
}

fn point(number: u8, job: JobId, tracked: bool) -> Point {
    let id = PointId::new(u64::from(number), [number; 10]);
    let kept = if tracked {
        plan::write_tracker(&tracker(id))
    } else {
        BTreeMap::new()
    };
    Point {
        id,
        repository: RepositoryId::new(1, [1; 10]),
        created: Timestamp(i64::from(number)),
        draft: PointDraft {
            machine: PointMachine {
                id: machine_id(&machine("web1").key),
                name: "web1".into(),
                platform: "libvirt".into(),
                platform_id: "key-web1".into(),
                host: "kvm".into(),
            },
            job: Some((job, "nightly".into())),
            session: SessionId::new(1, [1; 10]),
            consistency: Default::default(),
            parent: None,
        },
        kind: PointKind::Full,
        disks: vec![PointDisk {
            name: "vda".into(),
            size: ByteCount(100),
            root: Digest([1; 32]),
            kind: PointKind::Full,
            attributes: BTreeMap::from([
                ("path".into(), "/images/a.qcow2".into()),
                ("format".into(), "qcow2".into()),
            ]),
            tracker: kept,
        }],
        files: Vec::new(),
        counters: Default::default(),
    }
}

#[test]
fn a_disk_builds_on_the_newest_point_of_the_same_job_that_kept_a_tracker() {
    let other = JobId::new(77, [7; 10]);
    let known = [
        point(2, JOB, true),
        point(1, JOB, true),
        point(3, JOB, false),
        point(4, other, true),
    ];
    let machine = machine("web1");
    let plan = |read_all| {
        let id = machine_id(&machine.key);
        plan::plan(&machine, id, JOB, &known, read_all).remove(0)
    };
    assert_eq!(plan(false).base, Some(known[0].id));
    assert_eq!(plan(false).request.base, Some(tracker(known[0].id)));
    assert_eq!((plan(true).base, plan(true).request.base), (None, None));
}

#[test]
fn selections_are_resolved_against_what_is_there_now() {
    let machines = [machine("a"), machine("b")];
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let chosen = select::select(
        &Selection::Machines(names(&["b", "gone", "key-a"])),
        &machines,
    );
    assert_eq!(chosen.machines.len(), 2);
    assert_eq!(chosen.missing, ["gone"]);
    let rest = select::select(&Selection::AllExcept(names(&["a"])), &machines);
    assert_eq!(rest.machines, machines[1..]);
}

#[test]
fn restored_disks_get_names_that_lead_nowhere_else() {
    let order = |target| RestoreMachine {
        repository: RepositoryId::new(1, [1; 10]),
        point: PointId::new(1, [1; 10]),
        host: HostId::new(1, [1; 10]),
        platform: PlatformAddress::Libvirt {
            uri: "qemu:///system".into(),
        },
        target,
        folder: Some("/restore/".into()),
        start: false,
        reason: String::new(),
    };
    let new = |name: &str| {
        order(RestoreTarget::New {
            name: name.into(),
            keep_mac: false,
        })
    };
    let mut point = point(1, JOB, true);
    let plan = restore::plan(&point, &new("../../etc/x")).unwrap();
    assert_eq!(plan.disks[0].target.path, "/restore/_.._.._etc_x-vda.qcow2");
    assert!(!plan.disks[0].target.overwrite);
    let back = restore::plan(&point, &order(RestoreTarget::Original)).unwrap();
    assert_eq!(back.disks[0].target.path, "/images/a.qcow2");
    assert!(back.disks[0].target.overwrite);
    point.files.push(PointFile {
        path: restore::NVRAM.into(),
        size: ByteCount(1),
        root: Digest([1; 32]),
    });
    let plan = restore::plan(&point, &new("y")).unwrap();
    assert_eq!(plan.nvram.as_deref(), Some("/restore/y-nvram.fd"));
    point.disks[0]
        .attributes
        .insert("path".into(), "rbd:pool/x".into());
    let error = restore::plan(&point, &order(RestoreTarget::Original)).unwrap_err();
    assert_eq!(error.code(), "restore.place-unknown");
}
