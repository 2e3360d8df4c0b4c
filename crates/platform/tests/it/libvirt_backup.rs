//! Backups on a real libvirt and a real QEMU, checked with tools that are not ours.

use crate::lab::{Lab, LabMachine, token};
use base::size::{ByteCount, MIB};
use platform::contract::{
    Access, Backup, BackupRequest, Backups, DiskRequest, FullCause, Hygiene, Keep, NbdAddress,
    Token, Tracking,
};

fn request(
    machine: &LabMachine,
    token: &Token,
    disks: &[&str],
    base: Option<&Backup>,
) -> BackupRequest {
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
    BackupRequest {
        machine: machine.key.clone(),
        token: token.clone(),
        track: true,
        disks: disks.iter().map(disk).collect(),
    }
}

/// The URI of an export and its dirty context.
fn uri(backup: &Backup, target: &str) -> (String, Option<String>) {
    let disk = backup
        .disks
        .iter()
        .find(|disk| disk.target == target)
        .unwrap();
    let Access::Nbd {
        address: NbdAddress::Unix { path },
        export,
        dirty_context,
    } = &disk.access
    else {
        panic!("not NBD: {:?}", disk.access)
    };
    (
        format!("nbd+unix:///{export}?socket={path}"),
        dirty_context.clone(),
    )
}

#[test]
fn a_full_and_an_incremental_backup_show_the_disk_and_its_changes() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 16)]);
    let libvirt = lab.connect();
    machine.start();
    machine.write(0, 0x11, 1024);

    let first = token();
    let full = libvirt
        .begin_backup(&request(&machine, &first, &["vda"], None))
        .unwrap();
    assert!(matches!(
        &full.disks[0].tracking,
        Tracking::Full {
            cause: FullCause::NoBase,
            ..
        }
    ));
    assert_eq!(full.disks[0].capacity, ByteCount(16 * MIB));
    let copy = lab.path(&format!("{}-full.raw", machine.name));
    lab.run("nbdcopy", &[&uri(&full, "vda").0, copy.to_str().unwrap()]);
    let mut expected = vec![0; 16 * MIB as usize];
    expected[1024 * 1024..][..65536].fill(0x11);
    assert!(std::fs::read(&copy).unwrap() == expected);
    libvirt
        .end_backup(&machine.key, &first, Keep::Tracker)
        .unwrap();
    assert!(libvirt.running_backup(&machine.key).unwrap().is_none());

    machine.write(0, 0x22, 4096);
    let second = token();
    let incremental = libvirt
        .begin_backup(&request(&machine, &second, &["vda"], Some(&full)))
        .unwrap();
    assert_eq!(
        incremental.disks[0].tracking,
        Tracking::Changed {
            since: first.clone()
        }
    );
    let (address, dirty) = uri(&incremental, "vda");
    let map = lab.run("nbdinfo", &[&format!("--map={}", dirty.unwrap()), &address]);
    let changed: Vec<Vec<&str>> = map
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|words: &Vec<&str>| words.contains(&"dirty"))
        .collect();
    assert_eq!(changed.len(), 1, "{map}");
    assert_eq!(
        (changed[0][0], changed[0][1]),
        ("4194304", "65536"),
        "{map}"
    );
    libvirt
        .end_backup(&machine.key, &second, Keep::Nothing)
        .unwrap();

    let left = libvirt.resources_of(&second).unwrap();
    assert!(left.is_empty(), "{left:?}");
    libvirt.clean_up(&first, Keep::Nothing).unwrap();
    assert!(libvirt.resources_of(&first).unwrap().is_empty());
}
