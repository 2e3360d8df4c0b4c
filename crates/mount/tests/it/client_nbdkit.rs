//! Our client against nbdkit, which can be made to behave in many ways.

use crate::peers::{Server, folder};
use base::Kind;
use base::block::{BlockRead, BlockWrite, all_extents};
use base::size::{ByteOffset, ByteRange, GIB, MIB};
use mount::nbd::{ConnectOptions, NbdAddress, NbdClient};
use std::time::{Duration, Instant};

fn connect(server: &Server, options: ConnectOptions) -> base::Result<NbdClient> {
    NbdClient::connect(&NbdAddress::unix(&server.socket, ""), options)
}

fn open(server: &Server) -> NbdClient {
    connect(server, ConnectOptions::default()).unwrap()
}

#[test]
fn writes_and_reads_a_disk_in_memory() {
    let folder = folder();
    let server = Server::nbdkit(folder.path(), &["memory", "3G"]);
    let disk = open(&server);
    assert!(
        !disk.has_extended_headers(),
        "nbdkit 1.32 has none: the fall-back is tried"
    );
    disk.write_at(ByteOffset(2 * GIB + 5), b"backstay").unwrap();
    let mut back = [0; 10];
    disk.read_at(ByteOffset(2 * GIB + 4), &mut back).unwrap();
    assert_eq!(&back, b"\0backstay\0");
    disk.write_zeroes(ByteRange::new(0, 3 * GIB)).unwrap();
    disk.flush().unwrap();
    let extents = all_extents(&disk, ByteRange::new(0, 3 * GIB)).unwrap();
    assert_eq!(extents.len(), 1, "{extents:?}");
}

#[test]
fn sparse_random_disks_agree_with_their_map() {
    let folder = folder();
    let server = Server::nbdkit(
        folder.path(),
        &[
            "sparse-random",
            "64M",
            "seed=5",
            "percent=40",
            "runlength=131072",
        ],
    );
    let disk = open(&server);
    let extents = all_extents(&disk, ByteRange::new(0, 64 * MIB)).unwrap();
    assert!(extents.len() > 2);
    let mut zeros = 0;
    for extent in extents {
        let mut bytes = vec![1; extent.range.length.0 as usize];
        disk.read_at(extent.range.offset, &mut bytes).unwrap();
        if extent.kind == base::block::ExtentKind::Zero {
            assert!(base::block::is_zero(&bytes));
            zeros += bytes.len();
        }
    }
    assert!(zeros > 0);
}

#[test]
fn errors_of_the_storage_reach_the_caller_and_the_connection_lives() {
    let folder = folder();
    let flag = folder.path().join("fail");
    let file = format!("error-pread-file={}", flag.display());
    let server = Server::nbdkit(
        folder.path(),
        &[
            "--filter=error",
            "memory",
            "1M",
            "error-pread=ENOSPC",
            "error-pread-rate=1",
            &file,
        ],
    );
    let disk = open(&server);
    let mut buffer = [0; 512];
    disk.read_at(ByteOffset(0), &mut buffer).unwrap();
    std::fs::write(&flag, "").unwrap();
    let error = disk.read_at(ByteOffset(0), &mut buffer).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Full, "mount.nbd.refused-enospc")
    );
    std::fs::remove_file(&flag).unwrap();
    disk.read_at(ByteOffset(0), &mut buffer).unwrap();
}

#[test]
fn simple_replies_are_enough() {
    let folder = folder();
    let server = Server::nbdkit(folder.path(), &["--no-sr", "pattern", "2M"]);
    let disk = open(&server);
    assert_eq!(disk.contexts().count(), 0);
    let mut bytes = vec![0; 2 * MIB as usize];
    disk.read_at(ByteOffset(0), &mut bytes).unwrap();
    for (i, word) in bytes.chunks_exact(8).enumerate() {
        assert_eq!(word, (i as u64 * 8).to_be_bytes());
    }
}

#[test]
fn large_blocks_are_kept() {
    let folder = folder();
    let server = Server::nbdkit(
        folder.path(),
        &[
            "--filter=blocksize-policy",
            "memory",
            "1M",
            "blocksize-minimum=4096",
            "blocksize-preferred=64K",
            "blocksize-maximum=128K",
            "blocksize-error-policy=error",
        ],
    );
    let disk = open(&server);
    let sizes = disk.block_sizes();
    assert_eq!(
        (sizes.minimum, sizes.preferred, sizes.maximum),
        (4096, 65536, 131_072)
    );
    let mut expected = vec![0; MIB as usize];
    for (offset, length) in [(0, 1), (4095, 2), (5000, 100), (8192, 4096), (1, 700_000)] {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8 + 1).collect();
        disk.write_at(ByteOffset(offset as u64), &bytes).unwrap();
        expected[offset..offset + length].copy_from_slice(&bytes);
    }
    disk.write_zeroes(ByteRange::new(100, 300_000)).unwrap();
    expected[100..300_100].fill(0);
    disk.trim(ByteRange::new(1, 5)).unwrap();
    let mut back = vec![0; MIB as usize];
    disk.read_at(ByteOffset(0), &mut back).unwrap();
    assert!(back == expected);
    let mut part = [0; 3];
    disk.read_at(ByteOffset(4095), &mut part).unwrap();
    assert_eq!(part, expected[4095..4098]);
    assert!(disk.start_read(ByteOffset(1), vec![0; 4096]).is_err());
}

#[test]
fn a_server_that_stalls_runs_into_the_timeout() {
    let folder = folder();
    let server = Server::nbdkit(
        folder.path(),
        &["--filter=delay", "memory", "1M", "delay-read=60"],
    );
    let options = ConnectOptions {
        stall_timeout: Duration::from_millis(300),
        ..ConnectOptions::default()
    };
    let disk = connect(&server, options).unwrap();
    let start = Instant::now();
    let error = disk.read_at(ByteOffset(0), &mut [0; 512]).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(disk.check().unwrap_err().kind(), Kind::Timeout);
}
