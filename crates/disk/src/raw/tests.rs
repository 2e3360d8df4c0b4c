use super::*;
use base::Kind;
use base::block::{BlockRead, BlockWrite, Extent, all_extents};
use base::size::{ByteCount, ByteOffset, ByteRange, KIB, MIB};

#[test]
fn a_new_image_is_sparse_and_reads_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let disk = create(&path, ByteCount(64 * MIB)).unwrap();
    disk.write_at(ByteOffset(MIB), &[7; 65536]).unwrap();
    disk.write_at(ByteOffset(8 * MIB), &[8; 65536]).unwrap();
    disk.write_zeroes(ByteRange::new(8 * MIB, 64 * KIB))
        .unwrap();
    disk.flush().unwrap();
    assert!(disk.allocated().unwrap() < ByteCount(MIB));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let disk = open(&path).unwrap();
    assert_eq!(disk.size(), ByteCount(64 * MIB));
    assert_eq!(
        all_extents(&disk, ByteRange::new(0, 64 * MIB)).unwrap(),
        vec![
            Extent::zero(0, MIB),
            Extent::data(MIB, 64 * KIB),
            Extent::zero(MIB + 64 * KIB, 63 * MIB - 64 * KIB)
        ]
    );
    let mut buffer = [1; 4];
    disk.read_at(ByteOffset(MIB + 65534), &mut buffer).unwrap();
    assert_eq!(buffer, [7, 7, 0, 0]);
}

#[test]
fn what_reaches_past_the_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = create(&folder.path().join("disk.raw"), ByteCount(MIB)).unwrap();
    let error = disk.write_at(ByteOffset(MIB - 1), &[1, 2]).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(disk.read_at(ByteOffset(u64::MAX), &mut [0]).is_err());
    assert!(disk.write_zeroes(ByteRange::new(1, MIB)).is_err());
    assert_eq!(disk.size(), ByteCount(MIB));
}

#[test]
fn unaligned_zeroing_leaves_the_neighbours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let disk = create(&folder.path().join("disk.raw"), ByteCount(MIB)).unwrap();
    disk.write_at(ByteOffset(0), &[9; 20_000]).unwrap();
    disk.write_zeroes(ByteRange::new(5, 12_345)).unwrap();
    let mut buffer = vec![1; 20_000];
    disk.read_at(ByteOffset(0), &mut buffer).unwrap();
    assert_eq!(&buffer[..5], &[9; 5]);
    assert!(base::block::is_zero(&buffer[5..12_350]));
    assert_eq!(&buffer[12_350..], &[9; 7_650]);
}

#[test]
fn only_files_and_devices_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        open(folder.path()).unwrap_err().code(),
        "disk.file.not-a-file"
    );
    let path = folder.path().join("disk.raw");
    create(&path, ByteCount(MIB)).unwrap();
    assert_eq!(
        create(&path, ByteCount(MIB)).unwrap_err().kind(),
        Kind::Exists
    );
    assert_eq!(
        open_device(&path, Access::Write).unwrap_err().code(),
        "disk.raw.not-a-device"
    );
    assert_eq!(
        open(&folder.path().join("none")).unwrap_err().kind(),
        Kind::NotFound
    );
    // A pipe must not make us wait for a writer.
    let pipe = folder.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(open(&pipe).unwrap_err().code(), "disk.file.not-a-file");
}
