//! Our client against QEMU's server.

use crate::peers::{Server, disk_bytes, folder, run};
use base::Kind;
use base::block::{BlockRead, BlockWrite, Extent, ExtentKind, all_extents};
use base::random::SeededRandom;
use base::size::{ByteOffset, ByteRange, KIB, MIB};
use mount::nbd::{ConnectOptions, NbdAddress, NbdClient, list_exports};
use std::sync::Arc;

fn open(server: &Server, options: ConnectOptions) -> NbdClient {
    NbdClient::connect(&NbdAddress::unix(&server.socket, "vda"), options).unwrap()
}

fn both_headers() -> [ConnectOptions; 2] {
    let narrow = ConnectOptions {
        extended_headers: false,
        ..ConnectOptions::default()
    };
    [ConnectOptions::default(), narrow]
}

#[test]
fn reads_every_byte_of_a_raw_image() {
    let folder = folder();
    let image = folder.path().join("disk.raw");
    let bytes = disk_bytes(1, 9 * MIB as usize + 4096);
    std::fs::write(&image, &bytes).unwrap();
    let server = Server::qemu_nbd(folder.path(), &image, &["-f", "raw", "-r"]);
    for options in both_headers() {
        let wide = options.extended_headers;
        let disk = open(&server, options);
        assert_eq!(
            disk.has_extended_headers(),
            wide,
            "QEMU 8.2 and later offer 64-bit headers"
        );
        assert!(disk.is_read_only());
        assert!(disk.can_multi_conn());
        assert_eq!(disk.size().0, bytes.len() as u64);
        assert_eq!(disk.block_sizes().maximum, 32 << 20);
        let mut whole = vec![1; bytes.len()];
        disk.read_at(ByteOffset(0), &mut whole).unwrap();
        assert!(whole == bytes);
        let random = SeededRandom::new(7);
        for _ in 0..100 {
            let offset = random.below(bytes.len() as u64);
            let length = random.below((bytes.len() as u64 - offset).min(3 * MIB)) as usize;
            let mut part = vec![1; length];
            disk.read_at(ByteOffset(offset), &mut part).unwrap();
            assert!(part == bytes[offset as usize..offset as usize + length]);
        }
        let past = disk
            .read_at(ByteOffset(bytes.len() as u64 - 1), &mut [0; 2])
            .unwrap_err();
        assert_eq!(past.kind(), Kind::Invalid);
        let refused = disk.write_at(ByteOffset(0), &[1]).unwrap_err();
        assert_eq!(refused.kind(), Kind::Denied);
    }
}

#[test]
fn many_threads_share_one_connection() {
    let folder = folder();
    let image = folder.path().join("disk.raw");
    let bytes = Arc::new(disk_bytes(2, 4 * MIB as usize));
    std::fs::write(&image, &*bytes).unwrap();
    let server = Server::qemu_nbd(folder.path(), &image, &["-f", "raw", "-r"]);
    let disk = Arc::new(open(&server, ConnectOptions::default()));
    let threads: Vec<_> = (0..8)
        .map(|seed| {
            let (disk, bytes) = (Arc::clone(&disk), Arc::clone(&bytes));
            std::thread::spawn(move || {
                let random = SeededRandom::new(seed);
                for _ in 0..50 {
                    let offset = random.below(4 * MIB - 70_000) as usize;
                    let length = 1 + random.below(70_000) as usize;
                    let mut part = vec![0; length];
                    disk.read_at(ByteOffset(offset as u64), &mut part).unwrap();
                    assert!(part == bytes[offset..offset + length]);
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn reads_ahead_and_gives_the_buffers_back() {
    let folder = folder();
    let image = folder.path().join("disk.raw");
    let bytes = disk_bytes(3, 4 * MIB as usize);
    std::fs::write(&image, &bytes).unwrap();
    let server = Server::qemu_nbd(folder.path(), &image, &["-f", "raw", "-r"]);
    let disk = open(&server, ConnectOptions::default());
    // Three times as many as may be on the wire: starting must not wait for waiting.
    let step = bytes.len() / 192;
    let reads: Vec<_> = (0..192)
        .map(|i| {
            disk.start_read(ByteOffset((i * step) as u64), vec![0; step])
                .unwrap()
        })
        .collect();
    for (i, read) in reads.into_iter().enumerate().rev() {
        assert!(read.wait().unwrap() == bytes[i * step..(i + 1) * step]);
    }
}

#[test]
fn a_dirty_bitmap_tells_what_changed_and_what_of_it_is_zero() {
    let folder = folder();
    let image = folder.path().join("disk.qcow2");
    let path = image.to_str().unwrap();
    run("qemu-img", &["create", "-q", "-f", "qcow2", path, "20G"]);
    run(
        "qemu-io",
        &[
            "-f",
            "qcow2",
            "-c",
            "write -P 1 0 1M",
            "-c",
            "write -P 2 8G 1M",
            path,
        ],
    );
    run("qemu-img", &["bitmap", "--add", path, "b0"]);
    let script = [
        "write -P 3 64k 64k",
        "write -z 8G 128k",
        "write -P 4 19G 64k",
        "flush",
    ];
    let mut arguments = vec!["-f", "qcow2"];
    script
        .iter()
        .for_each(|line| arguments.extend(["-c", line]));
    arguments.push(path);
    run("qemu-io", &arguments);
    let server = Server::qemu_nbd(
        folder.path(),
        &image,
        &["-f", "qcow2", "-r", "-A", "-B", "b0"],
    );
    for options in both_headers() {
        let wide = options.extended_headers;
        let disk = open(
            &server,
            options.bitmap("b0").context("qemu:allocation-depth"),
        );
        let all = ByteRange::new(0, disk.size().0);
        let changed: Vec<Extent> = disk
            .changed_extents("b0", all)
            .map(Result::unwrap)
            .collect();
        let gib = 1 << 30;
        assert_eq!(
            changed,
            vec![
                Extent::data(64 * KIB, 64 * KIB),
                Extent::zero(8 * gib, 128 * KIB),
                Extent::data(19 * gib, 64 * KIB)
            ]
        );
        assert_eq!(
            all_extents(&disk, all).unwrap(),
            vec![
                Extent::data(0, MIB),
                Extent::zero(MIB, 8 * gib - MIB),
                Extent::zero(8 * gib, 128 * KIB),
                Extent::data(8 * gib + 128 * KIB, MIB - 128 * KIB),
                Extent::zero(8 * gib + MIB, 11 * gib - MIB),
                Extent::data(19 * gib, 64 * KIB),
                Extent::zero(19 * gib + 64 * KIB, gib - 64 * KIB),
            ]
            .into_iter()
            .fold(Vec::new(), |mut list, extent| {
                base::block::push_extent(&mut list, extent);
                list
            })
        );
        let depth = disk.block_status("qemu:allocation-depth", all).unwrap();
        assert_eq!(
            (depth[0].range, depth[0].flags),
            (ByteRange::new(0, MIB), 1)
        );
        assert_eq!(depth[1].flags, 0);
        let names: Vec<&str> = disk.contexts().collect();
        assert_eq!(names.len(), 3, "{names:?} {wide}");
    }
}

#[test]
fn a_bitmap_that_is_not_there_is_an_error_at_once() {
    let folder = folder();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, [1; 4096]).unwrap();
    let server = Server::qemu_nbd(folder.path(), &image, &["-f", "raw", "-r"]);
    let address = NbdAddress::unix(&server.socket, "vda");
    let error = NbdClient::connect(&address, ConnectOptions::default().bitmap("lost")).err();
    let error = error.unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::NotFound, "mount.nbd.context-missing")
    );
    let disk = NbdClient::connect(&address, ConnectOptions::default()).unwrap();
    let mut changed = disk.changed_extents("lost", ByteRange::new(0, 4096));
    assert_eq!(changed.next().unwrap().unwrap_err().kind(), Kind::NotFound);
    assert!(changed.next().is_none());
}

#[test]
fn a_wrong_export_and_a_wrong_socket_are_told_apart() {
    let folder = folder();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, [1; 4096]).unwrap();
    let server = Server::qemu_nbd(folder.path(), &image, &["-f", "raw", "-D", "a disk"]);
    let options = ConnectOptions::default();
    let list = list_exports(&NbdAddress::unix(&server.socket, ""), &options).unwrap();
    assert_eq!(
        (list[0].name.as_str(), list[0].description.as_str()),
        ("vda", "a disk")
    );
    let wrong = NbdAddress::unix(&server.socket, "vdz");
    let error = NbdClient::connect(&wrong, options.clone()).err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::NotFound, "mount.nbd.export-unknown")
    );
    let nobody = NbdAddress::unix(folder.path().join("nobody"), "vda");
    let error = NbdClient::connect(&nobody, options.clone()).err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Unreachable, "mount.nbd.unreachable")
    );
    let secure = NbdAddress::unix(&server.socket, "vda").with_tls();
    let error = NbdClient::connect(&secure, options).err().unwrap();
    assert_eq!(error.code(), "mount.nbd.tls-unconfigured");
}

#[test]
fn what_we_write_is_in_the_image() {
    let folder = folder();
    let image = folder.path().join("disk.qcow2");
    let path = image.to_str().unwrap();
    run("qemu-img", &["create", "-q", "-f", "qcow2", path, "8M"]);
    let server = Server::qemu_nbd(folder.path(), &image, &["-f", "qcow2", "--discard=unmap"]);
    let mut bytes = disk_bytes(4, 8 * MIB as usize);
    for options in both_headers() {
        let disk = open(&server, options);
        disk.write_at(ByteOffset(0), &bytes).unwrap();
        disk.write_zeroes(ByteRange::new(5 * MIB + 3, MIB)).unwrap();
        bytes[5 * MIB as usize + 3..6 * MIB as usize + 3].fill(0);
        disk.write_at(ByteOffset(12345), b"backstay").unwrap();
        bytes[12345..12353].copy_from_slice(b"backstay");
        disk.trim(ByteRange::new(7 * MIB, MIB)).unwrap();
        disk.flush().unwrap();
        let extents = all_extents(&disk, ByteRange::new(7 * MIB, MIB)).unwrap();
        assert_eq!(extents, vec![Extent::zero(7 * MIB, MIB)]);
        bytes[7 * MIB as usize..].fill(0);
        let mut back = vec![0; bytes.len()];
        disk.read_at(ByteOffset(0), &mut back).unwrap();
        assert!(back == bytes);
    }
    drop(server);
    let raw = folder.path().join("disk.raw");
    run(
        "qemu-img",
        &["convert", "-O", "raw", path, raw.to_str().unwrap()],
    );
    assert!(std::fs::read(&raw).unwrap() == bytes);
}

#[test]
fn a_server_that_dies_gives_an_error_to_all_who_wait() {
    let folder = folder();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![1; 8 * MIB as usize]).unwrap();
    let mut server = Server::qemu_nbd(folder.path(), &image, &["-f", "raw"]);
    let disk = Arc::new(open(&server, ConnectOptions::default()));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || {
                let mut buffer = vec![0; MIB as usize];
                loop {
                    if let Err(error) = disk.read_at(ByteOffset(0), &mut buffer) {
                        return error;
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(100));
    server.kill();
    for thread in threads {
        let error = thread.join().unwrap();
        assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    }
    assert_eq!(disk.check().unwrap_err().kind(), Kind::Unreachable);
    assert_eq!(
        disk.extents(ByteRange::new(0, 1)).unwrap_err().kind(),
        Kind::Unreachable
    );
}

#[test]
fn without_contexts_everything_is_data() {
    let folder = folder();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![0; MIB as usize]).unwrap();
    let server = Server::qemu_nbd(folder.path(), &image, &["-f", "raw"]);
    let options = ConnectOptions {
        wanted_contexts: Vec::new(),
        ..ConnectOptions::default()
    };
    let disk = open(&server, options);
    let extents = disk.extents(ByteRange::new(0, MIB)).unwrap();
    assert_eq!(extents.len(), 1);
    assert_eq!(extents[0].kind, ExtentKind::Data);
}
