//! Our server against the clients of libnbd and QEMU.

use crate::peers::{disk_bytes, folder, run, run_failing};
use base::block::{BlockRead, BlockWrite, Extent};
use base::memory::MemoryDisk;
use base::size::{ByteCount, ByteOffset, ByteRange, KIB, MIB};
use mount::nbd::{Export, ExportTable, Listen, NbdServer, RunningServer, StatusRun, StatusSource};
use std::path::Path;
use std::sync::Arc;

fn serve(
    folder: &Path,
    exports: &[(&str, Export)],
) -> (RunningServer, impl Fn(&str) -> String + use<>) {
    let table = ExportTable::new();
    exports
        .iter()
        .for_each(|(name, export)| table.add(name, export.clone()).unwrap());
    let socket = folder.join("ours.sock");
    let server = NbdServer::new(table)
        .start(&Listen::Unix(socket.clone()))
        .unwrap();
    (server, move |name| {
        format!("nbd+unix:///{name}?socket={}", socket.display())
    })
}

fn disk(seed: u64, length: u64) -> (Vec<u8>, Arc<MemoryDisk>) {
    let bytes = disk_bytes(seed, length as usize);
    (bytes.clone(), Arc::new(MemoryDisk::from(bytes)))
}

#[test]
fn nbdinfo_sees_what_we_serve() {
    let folder = folder();
    let (_, memory) = disk(1, MIB);
    let export = Export::read_only(memory)
        .description("a small disk")
        .preferred_block(65_536);
    let other = Export::writable(Arc::new(MemoryDisk::new(ByteCount(512)).unwrap()));
    let (_server, uri) = serve(folder.path(), &[("vda", export), ("vdb", other)]);
    let text = run("nbdinfo", &[uri("vda")]);
    for expected in [
        "newstyle-fixed without TLS, using structured packets",
        "export-size: 1048576 (1M)",
        "description: a small disk",
        "is_read_only: true",
        "can_df: true",
        "can_multi_conn: true",
        "block_size_minimum: 1",
        "block_size_preferred: 65536",
        "block_size_maximum: 33554432",
        "base:allocation",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let list = run("nbdinfo", &["--list".to_owned(), uri("")]);
    assert!(
        list.contains("export=\"vda\"") && list.contains("export=\"vdb\""),
        "{list}"
    );
    let list = run(
        "qemu-nbd",
        &[
            "--list",
            "-k",
            &folder.path().join("ours.sock").to_string_lossy(),
        ],
    );
    assert!(
        list.contains("exports available: 2") && list.contains("base:allocation"),
        "{list}"
    );
    let refused = run_failing("nbdinfo", &[uri("vdz")]);
    assert!(
        refused.contains("there is no such export") || refused.contains("vdz"),
        "{refused}"
    );
}

#[test]
fn nbdinfo_maps_our_extents_and_bitmaps() {
    struct Dirty;
    impl StatusSource for Dirty {
        fn status(&self, range: ByteRange) -> base::Result<Vec<StatusRun>> {
            // Short answers: one page at a time, every third one dirty.
            let page = range.offset.0 / (64 * KIB);
            let end = ((page + 1) * 64 * KIB).min(range.end().0);
            let range = ByteRange::new(range.offset.0, end - range.offset.0);
            Ok(vec![StatusRun {
                range,
                flags: u64::from(page.is_multiple_of(3)),
            }])
        }
    }
    let folder = folder();
    let memory = MemoryDisk::new(ByteCount(MIB)).unwrap();
    memory
        .write_at(ByteOffset(256 * KIB), &vec![1; 128 * KIB as usize])
        .unwrap();
    let export =
        Export::read_only(Arc::new(memory)).context("qemu:dirty-bitmap:b0", Arc::new(Dirty));
    let (_server, uri) = serve(folder.path(), &[("vda", export)]);
    let map = run("nbdinfo", &["--map".to_owned(), uri("vda")]);
    let columns: Vec<Vec<&str>> = map
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        columns,
        [
            vec!["0", "262144", "3", "hole,zero"],
            vec!["262144", "131072", "0", "data"],
            vec!["393216", "655360", "3", "hole,zero"]
        ]
    );
    let map = run(
        "nbdinfo",
        &["--map=qemu:dirty-bitmap:b0".to_owned(), uri("vda")],
    );
    assert_eq!(
        map.lines().filter(|line| line.contains("dirty")).count(),
        6,
        "{map}"
    );
    let first: Vec<&str> = map.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["0", "65536", "1", "dirty"]);
}

#[test]
fn nbdcopy_and_qemu_img_get_every_byte() {
    let folder = folder();
    let (bytes, memory) = disk(2, 20 * MIB + 512);
    let (server, uri) = serve(folder.path(), &[("vda", Export::read_only(memory))]);
    let copy = folder.path().join("copy.raw");
    run("nbdcopy", &[uri("vda"), copy.display().to_string()]);
    assert!(std::fs::read(&copy).unwrap() == bytes);
    let raw = copy.to_str().unwrap();
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", raw, &uri("vda")],
    );
    let qcow2 = folder.path().join("copy.qcow2");
    let qcow2 = qcow2.to_str().unwrap();
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", &uri("vda"), qcow2],
    );
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "qcow2", raw, qcow2],
    );
    let map = run(
        "qemu-img",
        &["map", "--output=json", "-f", "raw", &uri("vda")],
    );
    assert!(
        map.contains("\"zero\": true") && map.contains("\"data\": true"),
        "{map}"
    );
    let complaint = run_failing("qemu-io", &["-f", "raw", "-c", "write 0 4k", &uri("vda")]);
    assert!(complaint.contains("Permission denied"), "{complaint}");
    server.stop(std::time::Duration::from_secs(5));
}

#[test]
fn qemu_and_libnbd_write_through_us() {
    let folder = folder();
    let target = Arc::new(MemoryDisk::new(ByteCount(8 * MIB)).unwrap());
    let export = Export::writable(Arc::clone(&target) as Arc<dyn BlockWrite>);
    let (_server, uri) = serve(folder.path(), &[("vda", export)]);
    let source = folder.path().join("source.raw");
    let bytes = disk_bytes(3, 8 * MIB as usize);
    std::fs::write(&source, &bytes).unwrap();
    let raw = source.to_str().unwrap();
    run(
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", raw, &uri("vda")],
    );
    assert!(target.to_vec() == bytes);
    target.write_zeroes(ByteRange::new(0, 8 * MIB)).unwrap();
    run("nbdcopy", &["--flush", raw, &uri("vda")]);
    assert!(target.to_vec() == bytes);
    let script = [
        "write -P 170 1000 3000",
        "write -z 4096 8192",
        "write -f -P 85 1M 4k",
        "discard 2M 1M",
        "read -P 170 1000 3000",
        "read -P 0 4096 8192",
        "read -P 85 1M 4k",
        "flush",
    ];
    let mut arguments = vec!["-f", "raw"];
    script
        .iter()
        .for_each(|line| arguments.extend(["-c", line]));
    let uri = uri("vda");
    arguments.push(&uri);
    let said = run("qemu-io", &arguments);
    assert!(!said.contains("failed"), "{said}");
    let mut expected = bytes;
    expected[1000..4000].fill(170);
    expected[4096..12_288].fill(0);
    expected[MIB as usize..MIB as usize + 4096].fill(85);
    expected[2 * MIB as usize..3 * MIB as usize].fill(0);
    assert!(target.to_vec() == expected);
    let extents = target.extents(ByteRange::new(2 * MIB, MIB)).unwrap();
    assert_eq!(extents, vec![Extent::zero(2 * MIB, MIB)]);
}

#[test]
fn qemu_reads_us_over_tcp() {
    let folder = folder();
    let (bytes, memory) = disk(5, 4 * MIB);
    let table = ExportTable::new();
    table.add("", Export::read_only(memory)).unwrap();
    let any = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let server = NbdServer::new(table).start(&any).unwrap();
    let uri = format!("nbd://{}/", server.tcp_address().unwrap());
    let copy = folder.path().join("copy.raw");
    run("nbdcopy", &[uri.as_str(), copy.to_str().unwrap()]);
    assert!(std::fs::read(&copy).unwrap() == bytes);
    run(
        "qemu-img",
        &[
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            copy.to_str().unwrap(),
            &uri,
        ],
    );
}
