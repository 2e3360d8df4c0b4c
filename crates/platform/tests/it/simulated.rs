//! The simulated hypervisor's faults, and what the contract makes of them.

use crate::lab::token;
use base::block::BlockRead;
use base::size::{ByteCount, ByteOffset, MIB};
use platform::contract::{
    Access, AgentPresence, Backup, BackupDisk, BackupRequest, Backups, Consistency, Control,
    DiskRequest, FullCause, Hygiene, Keep, MachineKey, MemoryAccess, Power, Token, Tracking,
    begin_quiesced,
};
use platform::simulated::{CLUSTER, Mischief, Simulated};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

fn world() -> (Simulated, MachineKey) {
    let world = Simulated::new(3);
    let key = world.add_machine(
        "m",
        &[("vda", ByteCount(16 * MIB)), ("vdb", ByteCount(MIB))],
    );
    world.work(&key, 100).unwrap();
    (world, key)
}

fn request(key: &MachineKey, token: &Token, base: Option<&Backup>) -> BackupRequest {
    let base = |target: &str| {
        base?
            .disks
            .iter()
            .find(|disk| disk.target == target)?
            .tracker
            .clone()
    };
    let disk = |target: &str| DiskRequest {
        target: target.to_owned(),
        base: base(target),
    };
    BackupRequest {
        machine: key.clone(),
        token: token.clone(),
        track: true,
        disks: vec![disk("vda"), disk("vdb")],
    }
}

fn memory(disk: &BackupDisk) -> &MemoryAccess {
    match &disk.access {
        Access::Memory(memory) => memory,
        other => panic!("{other:?}"),
    }
}

fn bytes(disk: &dyn BlockRead) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().0 as usize];
    disk.read_at(ByteOffset(0), &mut bytes).unwrap();
    bytes
}

#[test]
fn changes_applied_to_the_full_backup_give_the_disk() {
    let (world, key) = world();
    let mut tokens = vec![token()];
    let mut last = world
        .begin_backup(&request(&key, &tokens[0], None))
        .unwrap();
    let mut copy = bytes(&memory(&last.disks[0]).disk);
    world.end_backup(&key, &tokens[0], Keep::Tracker).unwrap();
    for _ in 0..20 {
        world.work(&key, 5).unwrap();
        tokens.push(token());
        let backup = world
            .begin_backup(&request(&key, tokens.last().unwrap(), Some(&last)))
            .unwrap();
        world.work(&key, 5).unwrap();
        let memory = memory(&backup.disks[0]);
        let mut marked = 0;
        for range in memory.changed.as_ref().unwrap() {
            let place = range.offset.0 as usize..range.end().0 as usize;
            memory.disk.read_at(range.offset, &mut copy[place]).unwrap();
            marked += range.length.0;
        }
        assert!(marked < 16 * MIB);
        assert!(copy == bytes(&memory.disk));
        world
            .end_backup(
                &key,
                backup.token.as_str().parse().as_ref().unwrap(),
                Keep::Tracker,
            )
            .unwrap();
        last = backup;
    }
    assert_eq!(world.tracker_tokens(), tokens);
    assert!(world.leaks().is_empty());
}

#[test]
fn a_lying_tracker_hides_changes() {
    let (world, key) = world();
    let first = token();
    let base = world.begin_backup(&request(&key, &first, None)).unwrap();
    world.end_backup(&key, &first, Keep::Tracker).unwrap();
    world.set_mischief(Mischief {
        hide_one_in: 4,
        ..Mischief::default()
    });
    for cluster in 0..200 {
        world
            .write(&key, "vda", ByteOffset(cluster * CLUSTER), &[9])
            .unwrap();
    }
    let second = token();
    let backup = world
        .begin_backup(&request(&key, &second, Some(&base)))
        .unwrap();
    let changed = memory(&backup.disks[0]).changed.clone().unwrap();
    let told: u64 = changed.iter().map(|range| range.length.0 / CLUSTER).sum();
    assert!((100..190).contains(&told), "{told}");
}

#[test]
fn each_fault_has_its_reason() {
    let (world, key) = world();
    let first = token();
    let base = world.begin_backup(&request(&key, &first, None)).unwrap();
    world.end_backup(&key, &first, Keep::Tracker).unwrap();
    let cause = |key: &MachineKey| {
        let token = token();
        let backup = world
            .begin_backup(&request(key, &token, Some(&base)))
            .unwrap();
        world.end_backup(key, &token, Keep::Nothing).unwrap();
        match &backup.disks[0].tracking {
            Tracking::Full { cause, .. } => Some(*cause),
            Tracking::Changed { .. } => None,
        }
    };
    assert_eq!(cause(&key), None);
    world.resize(&key, "vda", ByteCount(20 * MIB)).unwrap();
    assert_eq!(cause(&key), Some(FullCause::Resized));
    world.resize(&key, "vda", ByteCount(16 * MIB)).unwrap();
    world.kill(&key).unwrap();
    assert_eq!(cause(&key), Some(FullCause::TrackerInconsistent));
    world.lose_tracker(&key, first.as_str()).unwrap();
    assert_eq!(cause(&key), Some(FullCause::TrackerMissing));
    world.make_untrackable(&key, "vda").unwrap();
    assert_eq!(cause(&key), Some(FullCause::NotTrackable));
    let anew = world.recreate(&key).unwrap();
    assert!(world.begin_backup(&request(&key, &token(), None)).is_err());
    world.vanish(&anew);
    assert_eq!(
        world
            .begin_backup(&request(&anew, &token(), None))
            .unwrap_err()
            .code(),
        "platform.machine.unknown"
    );
}

/// The connection is lost before, or the answer after, each step of a run; then another process that
/// knows only the token cleans up.
#[test]
fn whatever_step_a_run_is_cut_at_nothing_is_left_after_the_clean_up() {
    for off in [false, true] {
        for answer_only in [false, true] {
            let mut step = 0;
            loop {
                let (world, key) = world();
                if off {
                    world.destroy(&key).unwrap();
                }
                let at = Some(world.steps() + step);
                world.set_mischief(if answer_only {
                    Mischief {
                        lose_answer_at: at,
                        ..Mischief::default()
                    }
                } else {
                    Mischief {
                        lose_connection_at: at,
                        ..Mischief::default()
                    }
                });
                let token = token();
                let run = begin_quiesced(&world, &request(&key, &token, None), LIMIT)
                    .and_then(|_| world.end_backup(&key, &token, Keep::Tracker));
                world.reconnect();
                if run.is_ok() {
                    assert!(world.leaks().is_empty(), "{:?}", world.leaks());
                    break;
                }
                // The journal's undos: thaw, then clean up by name.
                platform::contract::Guests::thaw(&world, &key).unwrap();
                world.clean_up(&token, Keep::Nothing).unwrap();
                assert!(world.leaks().is_empty(), "step {step}: {:?}", world.leaks());
                assert!(world.tracker_tokens().is_empty(), "step {step}");
                assert_eq!(world.power(&key).unwrap() == Power::Off, off, "step {step}");
                step += 1;
            }
            assert!(step >= 8, "a run has only {step} steps");
        }
    }
}

#[test]
fn a_guest_is_thawed_whatever_happens() {
    let (world, key) = world();
    // A backup that is refused after the freeze.
    let mut wrong = request(&key, &token(), None);
    wrong.disks[0].target = "nosuch".to_owned();
    assert!(begin_quiesced(&world, &wrong, LIMIT).is_err());
    assert!(!world.is_frozen(&key));
    // A machine that is busy is not frozen at all.
    world.foreign_backup(&key, true).unwrap();
    let error = begin_quiesced(&world, &request(&key, &token(), None), LIMIT).unwrap_err();
    assert_eq!(error.code(), "platform.backup.busy");
    world.foreign_backup(&key, false).unwrap();
    // A thaw that fails twice succeeds the third time; one that fails on ends the backup and says so.
    world.set_mischief(Mischief {
        fail_thaws: 2,
        ..Mischief::default()
    });
    let first = token();
    let (_, consistency) = begin_quiesced(&world, &request(&key, &first, None), LIMIT).unwrap();
    assert_eq!(consistency, Consistency::FileSystems { frozen: 1 });
    assert!(!world.is_frozen(&key));
    world.end_backup(&key, &first, Keep::Nothing).unwrap();
    world.set_mischief(Mischief {
        fail_thaws: 3,
        ..Mischief::default()
    });
    let error = begin_quiesced(&world, &request(&key, &token(), None), LIMIT).unwrap_err();
    assert_eq!(error.code(), "platform.agent.thaw-failed");
    assert_eq!(world.leaks(), ["m frozen"]);
    assert_eq!(world.resources().unwrap(), []);
    platform::contract::Guests::thaw(&world, &key).unwrap();
    // Without an agent the backup is made, and says what it is.
    world.set_agent(&key, AgentPresence::Silent).unwrap();
    let last = token();
    let (_, consistency) = begin_quiesced(&world, &request(&key, &last, None), LIMIT).unwrap();
    assert!(matches!(consistency, Consistency::Crash { .. }));
    world.end_backup(&key, &last, Keep::Nothing).unwrap();
}

#[test]
fn one_seed_gives_one_world() {
    let history = || {
        let (world, key) = world();
        world.work(&key, 50).unwrap();
        (key.clone(), bytes(&world.disk_now(&key, "vda").unwrap()))
    };
    assert!(history() == history());
}

#[test]
fn what_travels_to_agents_survives_the_journey() {
    use platform::contract::NbdAddress;
    for access in [
        Access::Nbd {
            address: NbdAddress::Unix { path: "/a".into() },
            export: "vda".into(),
            dirty_context: Some("qemu:dirty-bitmap:x".into()),
        },
        Access::Image {
            path: "/b".into(),
            format: None,
        },
    ] {
        let text = serde_json::to_string(&access).unwrap();
        assert_eq!(serde_json::from_str::<Access>(&text).unwrap(), access);
    }
    let (world, key) = world();
    let backup = world.begin_backup(&request(&key, &token(), None)).unwrap();
    assert!(serde_json::to_string(&backup.disks[0].access).is_err());
    let tracker = backup.disks[0].tracker.clone().unwrap();
    let text = serde_json::to_string(&tracker).unwrap();
    assert_eq!(
        serde_json::from_str::<platform::contract::DiskTracker>(&text).unwrap(),
        tracker
    );
}
