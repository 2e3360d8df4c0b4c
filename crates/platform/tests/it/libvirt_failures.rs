//! What goes wrong on a real libvirt and a real QEMU, and what comes of it.

use crate::conformance::LibvirtSubject;
use crate::lab::{Lab, LabMachine, token};
use base::size::{ByteRange, MIB};
use platform::conformance::Subject;
use platform::contract::{
    Backup, BackupRequest, Backups, Control, DiskRequest, FullCause, Guests, Hygiene, Inventory,
    Keep, Platform, Power, Provisioning, ResourceKind, Token, Trackable, Tracking,
};
use std::time::{Duration, Instant};

fn begin(
    libvirt: &dyn Platform,
    machine: &LabMachine,
    token: &Token,
    disks: &[&str],
    base: Option<&Backup>,
) -> base::Result<Backup> {
    let disk = |target: &&str| DiskRequest {
        target: (*target).to_owned(),
        base: base.and_then(|backup| {
            backup
                .disks
                .iter()
                .find(|disk| disk.target == *target)?
                .tracker
                .clone()
        }),
    };
    libvirt.begin_backup(&BackupRequest {
        machine: machine.key.clone(),
        token: token.clone(),
        track: true,
        disks: disks.iter().map(disk).collect(),
    })
}

/// A good full backup whose tracker stays.
fn full(libvirt: &dyn Platform, machine: &LabMachine, disks: &[&str]) -> (Token, Backup) {
    let token = token();
    let backup = begin(libvirt, machine, &token, disks, None).unwrap();
    libvirt
        .end_backup(&machine.key, &token, Keep::Tracker)
        .unwrap();
    (token, backup)
}

fn cause(backup: &Backup, disk: usize) -> FullCause {
    match &backup.disks[disk].tracking {
        Tracking::Full { cause, reason } if !reason.is_empty() => *cause,
        tracking => panic!("not full with a reason: {tracking:?}"),
    }
}

fn wait_until_off(libvirt: &dyn Platform, machine: &LabMachine) {
    let begun = Instant::now();
    while libvirt.power(&machine.key).unwrap() != Power::Off {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The bitmaps in a disk that is not in use, as QEMU's tool lists them.
fn bitmaps(machine: &LabMachine) -> String {
    let info = machine.lab.run(
        "qemu-img",
        &["info", "-U", "--output=json", &machine.disk_path("vda")],
    );
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    info["format-specific"]["data"]["bitmaps"].to_string()
}

#[test]
fn a_tracker_that_somebody_deleted_gives_a_full_backup() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let (first, base) = full(&libvirt, &machine, &["vda"]);
    lab.virsh(&["checkpoint-delete", &machine.name, first.as_str()]);
    let second = token();
    let backup = begin(&libvirt, &machine, &second, &["vda"], Some(&base)).unwrap();
    assert_eq!(cause(&backup, 0), FullCause::TrackerMissing);
    libvirt
        .end_backup(&machine.key, &second, Keep::Nothing)
        .unwrap();
}

#[test]
fn a_record_that_libvirt_lost_is_made_again_from_the_saved_document() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let (first, _) = full(&libvirt, &machine, &["vda"]);
    let (second, base) = full(&libvirt, &machine, &["vda"]);
    machine.write(0, 0x77, 2048);
    for name in [&first, &second] {
        lab.virsh(&[
            "checkpoint-delete",
            &machine.name,
            name.as_str(),
            "--metadata",
        ]);
    }
    assert!(libvirt.trackers(&machine.key).unwrap().is_empty());
    let third = token();
    let backup = begin(&libvirt, &machine, &third, &["vda"], Some(&base)).unwrap();
    assert_eq!(
        backup.disks[0].tracking,
        Tracking::Changed {
            since: second.clone()
        }
    );
    let changed = LibvirtSubject(&machine).changed(&backup.disks[0]).unwrap();
    assert_eq!(changed, [ByteRange::new(2 * MIB, 65_536)]);
    libvirt
        .end_backup(&machine.key, &third, Keep::Nothing)
        .unwrap();
    libvirt.clean_up(&second, Keep::Nothing).unwrap();
    assert!(libvirt.trackers(&machine.key).unwrap().is_empty());
}

#[test]
fn a_killed_qemu_breaks_its_trackers_and_the_next_backup_is_full_and_leaves_none_of_them() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let (first, base) = full(&libvirt, &machine, &["vda"]);
    // A bitmap gets into the image when the machine stops: a crash after that leaves it marked in use.
    libvirt.destroy(&machine.key).unwrap();
    machine.start();
    let process = rustix::process::Pid::from_raw(machine.process()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    wait_until_off(&libvirt, &machine);
    assert!(
        bitmaps(&machine).contains("in-use"),
        "{}",
        bitmaps(&machine)
    );
    machine.start();
    let second = token();
    let backup = begin(&libvirt, &machine, &second, &["vda"], Some(&base)).unwrap();
    assert_eq!(cause(&backup, 0), FullCause::TrackerInconsistent);
    assert!(backup.notes.is_empty(), "{:?}", backup.notes);
    libvirt
        .end_backup(&machine.key, &second, Keep::Tracker)
        .unwrap();
    let names: Vec<_> = libvirt
        .trackers(&machine.key)
        .unwrap()
        .into_iter()
        .map(|found| found.name)
        .collect();
    assert_eq!(names, [second.as_str()]);

    // The next one works by changes again, and the broken bitmap is out of the image.
    machine.write(0, 0x12, 0);
    let third = token();
    let backup_three = begin(&libvirt, &machine, &third, &["vda"], Some(&backup)).unwrap();
    assert_eq!(
        backup_three.disks[0].tracking,
        Tracking::Changed {
            since: second.clone()
        }
    );
    libvirt
        .end_backup(&machine.key, &third, Keep::Nothing)
        .unwrap();
    libvirt.destroy(&machine.key).unwrap();
    assert!(bitmaps(&machine).contains(second.as_str()));
    assert!(!bitmaps(&machine).contains(first.as_str()));
}

#[test]
fn trackers_that_never_reached_their_images_are_forgotten_on_every_disk() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8), ("vdb", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let (_, base) = full(&libvirt, &machine, &["vda", "vdb"]);
    let process = rustix::process::Pid::from_raw(machine.process()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    wait_until_off(&libvirt, &machine);
    // One disk gets a bitmap of that name all the same, as a copy of an older image would have.
    let name = base.token.as_str();
    lab.run(
        "qemu-img",
        &["bitmap", "--add", &machine.disk_path("vda"), name],
    );
    machine.start();
    let second = token();
    let backup = begin(&libvirt, &machine, &second, &["vda", "vdb"], Some(&base)).unwrap();
    assert_eq!(cause(&backup, 1), FullCause::TrackerInconsistent);
    assert_eq!(cause(&backup, 0), FullCause::TrackerInconsistent);
    assert!(backup.notes.is_empty(), "{:?}", backup.notes);
    libvirt
        .end_backup(&machine.key, &second, Keep::Nothing)
        .unwrap();
    assert!(libvirt.trackers(&machine.key).unwrap().is_empty());
    libvirt.destroy(&machine.key).unwrap();
    assert_eq!(bitmaps(&machine), "null");
}

#[test]
fn a_machine_killed_in_the_middle_of_its_backup_leaves_nothing_after_the_clean_up() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let token = token();
    begin(&libvirt, &machine, &token, &["vda"], None).unwrap();
    let process = rustix::process::Pid::from_raw(machine.process()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    wait_until_off(&libvirt, &machine);
    libvirt.clean_up(&token, Keep::Nothing).unwrap();
    assert_eq!(libvirt.resources_of(&token).unwrap(), []);
    assert!(libvirt.clean_up(&token, Keep::Nothing).unwrap().is_empty());
    assert_eq!(libvirt.power(&machine.key).unwrap(), Power::Off);
    assert_eq!(bitmaps(&machine), "null");
    assert!(!lab.path("scratch").join(token.as_str()).exists());
}

#[test]
fn a_resized_disk_is_read_whole_and_a_raw_one_always() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8), ("vdb", "raw", 4)]);
    let libvirt = lab.connect();
    machine.start();
    let found = libvirt.machine(&machine.key).unwrap();
    assert_eq!(found.disk("vda").unwrap().trackable, Trackable::Yes);
    assert!(matches!(
        found.disk("vdb").unwrap().trackable,
        Trackable::No { .. }
    ));
    let (_, base) = full(&libvirt, &machine, &["vda", "vdb"]);
    assert_eq!(cause(&base, 1), FullCause::NotTrackable);
    assert!(base.disks[1].tracker.is_none());
    machine.write(1, 0x66, 64);
    lab.virsh(&["blockresize", &machine.name, "vda", "12M"]);
    let second = token();
    let backup = begin(&libvirt, &machine, &second, &["vda", "vdb"], Some(&base)).unwrap();
    assert_eq!(cause(&backup, 0), FullCause::Resized);
    assert_eq!(backup.disks[0].capacity.0, 12 * MIB);
    let raw = LibvirtSubject(&machine)
        .read(&backup.disks[1], ByteRange::new(0, 4 * MIB))
        .unwrap();
    assert!(raw[65_536..131_072].iter().all(|byte| *byte == 0x66));
    libvirt
        .end_backup(&machine.key, &second, Keep::Nothing)
        .unwrap();
    // A machine that has nothing to track at all.
    let third = token();
    let only_raw = begin(&libvirt, &machine, &third, &["vdb"], None).unwrap();
    assert_eq!(cause(&only_raw, 0), FullCause::NotTrackable);
    libvirt
        .end_backup(&machine.key, &third, Keep::Tracker)
        .unwrap();
    assert_eq!(libvirt.resources_of(&third).unwrap(), []);
}

#[test]
fn a_machine_made_anew_with_the_same_uuid_has_no_believable_tracker() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let (first, base) = full(&libvirt, &machine, &["vda"]);
    let xml = lab.virsh(&["dumpxml", &machine.name, "--inactive"]);
    let disk = machine.disk_path("vda");
    libvirt.destroy(&machine.key).unwrap();
    // libvirt's own tool refuses to forget a machine with checkpoints; the contract does it.
    assert!(lab.try_virsh(&["undefine", &machine.name]).is_err());
    libvirt.undefine(&machine.key).unwrap();
    lab.run("qemu-img", &["create", "-q", "-f", "qcow2", &disk, "8M"]);
    let file = lab.path("anew.xml");
    std::fs::write(&file, xml).unwrap();
    lab.virsh(&["define", file.to_str().unwrap()]);
    machine.start();
    let second = token();
    let backup = begin(&libvirt, &machine, &second, &["vda"], Some(&base)).unwrap();
    assert_eq!(cause(&backup, 0), FullCause::TrackerMissing);
    libvirt
        .end_backup(&machine.key, &second, Keep::Nothing)
        .unwrap();
    assert_eq!(libvirt.resources_of(&first).unwrap(), []);
}

#[test]
fn another_programs_backup_is_told_at_once_and_left_alone() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let socket = lab.path("foreign.sock");
    let file = lab.path("foreign.xml");
    let xml = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{}'/></domainbackup>",
        socket.display()
    );
    std::fs::write(&file, xml).unwrap();
    lab.virsh(&["backup-begin", &machine.name, file.to_str().unwrap()]);
    let token = token();
    let begun = Instant::now();
    let error = begin(&libvirt, &machine, &token, &["vda"], None).unwrap_err();
    assert_eq!(error.code(), "platform.backup.busy");
    assert!(begun.elapsed() < Duration::from_secs(10));
    libvirt
        .end_backup(&machine.key, &token, Keep::Nothing)
        .unwrap();
    let running = libvirt.running_backup(&machine.key).unwrap().unwrap();
    assert_eq!(running.token, None);
    assert_eq!(libvirt.resources_of(&token).unwrap(), []);
    lab.virsh(&["domjobabort", &machine.name]);
}

#[test]
fn a_machine_without_agent_is_said_to_have_none() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    let second = Duration::from_secs(1);
    let error = libvirt.freeze(&machine.key, second).unwrap_err();
    assert_eq!(error.code(), "platform.machine.inactive", "{error:?}");
    machine.start();
    lab.virsh(&["resume", &machine.name]);
    let error = libvirt.freeze(&machine.key, second).unwrap_err();
    assert_eq!(error.code(), "platform.agent.absent", "{error:?}");
    let never = base::cancel::Cancel::new();
    let error = libvirt
        .wait_for_agent(&machine.key, second, &never)
        .unwrap_err();
    assert_eq!(error.code(), "platform.agent.timeout");
    never.cancel();
    let error = libvirt
        .wait_for_agent(&machine.key, 60 * second, &never)
        .unwrap_err();
    assert_eq!(error.kind(), base::Kind::Cancelled);
}

#[test]
fn a_machine_with_saved_memory_is_not_started_for_a_backup() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    lab.virsh(&["managedsave", &machine.name]);
    let token = token();
    let error = begin(&libvirt, &machine, &token, &["vda"], None).unwrap_err();
    assert_eq!(error.code(), "platform.machine.saved", "{error:?}");
    assert_eq!(libvirt.resources_of(&token).unwrap(), []);
    assert!(
        lab.virsh(&["dominfo", &machine.name])
            .contains("Managed save:   yes")
    );
    lab.virsh(&["managedsave-remove", &machine.name]);
}

#[test]
fn a_held_machine_is_found_by_its_mark_after_a_crash() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let token = token();
    {
        let libvirt = lab.connect();
        let backup = begin(&libvirt, &machine, &token, &["vda"], None).unwrap();
        assert_eq!(backup.notes.len(), 1);
        let definition = libvirt.definition(&machine.key).unwrap();
        let definition = String::from_utf8_lossy(definition.bytes_of("domain.xml").unwrap());
        assert!(!definition.contains("backstay"), "{definition}");
        let strain = libvirt.strain(&machine.key, &token).unwrap();
        assert!(!strain.stalled && strain.free.unwrap().0 > 0 && strain.used.unwrap().0 > 0);
    }
    // Another process, which knows only the token.
    let libvirt = lab.connect();
    assert_eq!(libvirt.power(&machine.key).unwrap(), Power::Paused);
    let kinds: Vec<_> = libvirt
        .resources_of(&token)
        .unwrap()
        .into_iter()
        .map(|resource| resource.kind)
        .collect();
    for kind in [
        ResourceKind::Backup,
        ResourceKind::HeldMachine,
        ResourceKind::Scratch,
        ResourceKind::Tracker,
    ] {
        assert!(kinds.contains(&kind), "{kind:?} is not in {kinds:?}");
    }
    libvirt.clean_up(&token, Keep::Nothing).unwrap();
    assert_eq!(libvirt.resources_of(&token).unwrap(), []);
    assert_eq!(libvirt.power(&machine.key).unwrap(), Power::Off);
    assert!(!lab.virsh(&["dumpxml", &machine.name]).contains("backstay"));
}

#[test]
fn a_daemon_that_is_killed_and_started_again_is_met_where_it_was() {
    // One of its own: other tests must not lose theirs.
    let lab = std::sync::Arc::new(Lab::start());
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    let libvirt = lab.connect();
    machine.start();
    let token = token();
    begin(&libvirt, &machine, &token, &["vda"], None).unwrap();
    lab.restart_libvirtd();
    let running = libvirt.running_backup(&machine.key).unwrap().unwrap();
    assert_eq!(running.token.as_ref(), Some(&token));
    libvirt
        .end_backup(&machine.key, &token, Keep::Nothing)
        .unwrap();
    assert_eq!(libvirt.resources().unwrap(), []);
}

#[test]
fn a_scratch_folder_that_cannot_be_made_is_told_and_leaves_nothing() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 8)]);
    machine.start();
    std::fs::write(lab.path("a-file"), "").unwrap();
    let mut options = lab.options();
    options.scratch = lab.path("a-file/scratch");
    let libvirt = platform::libvirt::Libvirt::connect(options.clone()).unwrap();
    let error = begin(&libvirt, &machine, &token(), &["vda"], None).unwrap_err();
    assert!(error.hint_text().is_some(), "{error:?}");
    options.scratch = lab.path("x").join("y".repeat(60));
    let libvirt = platform::libvirt::Libvirt::connect(options).unwrap();
    let error = begin(&libvirt, &machine, &token(), &["vda"], None).unwrap_err();
    assert_eq!(error.code(), "platform.libvirt.scratch-too-long");
    assert!(lab.connect().trackers(&machine.key).unwrap().is_empty());
}
