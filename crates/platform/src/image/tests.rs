//! Images that change, are missing, or are no images.

use super::*;
use crate::contract::{BackupRequest, Backups, DiskRequest, Inventory, Keep};
use base::id::{JobId, PointId};

fn begin(images: &Images, key: &MachineKey) -> (Token, Result<crate::contract::Backup>) {
    let token = Token::new(&JobId::new(1, [1; 10]), &PointId::new(2, [2; 10]));
    let disks = vec![DiskRequest {
        target: "disk0".to_owned(),
        base: None,
    }];
    let request = BackupRequest {
        machine: key.clone(),
        token: token.clone(),
        track: true,
        disks,
    };
    (token, images.begin_backup(&request))
}

#[test]
fn an_image_written_to_while_it_is_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.raw");
    std::fs::write(&path, [1; 4096]).unwrap();
    let machine = ImageMachine::of_file(&path).unwrap();
    let key = machine.key();
    let images = Images::new(vec![machine]).unwrap();

    let (token, backup) = begin(&images, &key);
    assert_eq!(backup.unwrap().disks[0].capacity, ByteCount(4096));
    images.end_backup(&key, &token, Keep::Tracker).unwrap();

    let (token, backup) = begin(&images, &key);
    backup.unwrap();
    std::fs::write(&path, [2; 4097]).unwrap();
    let error = images.end_backup(&key, &token, Keep::Tracker).unwrap_err();
    assert_eq!(error.code(), "platform.image.changed-meanwhile");
    images.end_backup(&key, &token, Keep::Tracker).unwrap();
}

#[test]
fn what_is_missing_or_no_disk_is_listed_but_not_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    let missing = ImageMachine::of_file(&folder.path().join("none.qcow2")).unwrap();
    let a_folder = ImageMachine::of_file(folder.path()).unwrap();
    let keys = [missing.key(), a_folder.key()];
    let images = Images::new(vec![missing, a_folder]).unwrap();
    assert_eq!(images.machines().unwrap().len(), 2);
    assert_eq!(
        begin(&images, &keys[0]).1.unwrap_err().code(),
        "base.io.not-found"
    );
    assert_eq!(
        begin(&images, &keys[1]).1.unwrap_err().code(),
        "platform.image.not-a-disk"
    );
}

#[test]
fn malformed_machines_are_refused() {
    assert!(ImageMachine::of_file(Path::new("relative.raw")).is_err());
    let disk = |target: &str, path: &str| ImageDisk {
        target: target.into(),
        path: path.into(),
    };
    for disks in [
        vec![],
        vec![disk("a", "b")],
        vec![disk("a", "/x"), disk("a", "/y")],
    ] {
        assert!(
            Images::new(vec![ImageMachine {
                name: "m".into(),
                disks
            }])
            .is_err()
        );
    }
}
