use super::descriptor::{Descriptor, ExtentLine, ExtentStorage};
use super::header::SparseHeader;
use crate::{FileHandle, LoneOpener, MemoryOpener, OpenOptions};
use base::Kind;
use base::block::BlockRead;
use base::memory::MemoryDisk;
use base::size::{ByteOffset, MIB};
use std::sync::Arc;

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=0a1b2c3d\nparentCID=ffffffff\n\
    createType=\"twoGbMaxExtentFlat\"\n\n# Extent description\n\
    RW 2048 FLAT \"my disk-f001.vmdk\" 0\nRW 10 ZERO\nRDONLY 5 SPARSE \"b.vmdk\"\n\
    \n# The Disk Data Base\nddb.adapterType = \"ide\"\n";

#[test]
fn a_descriptor_is_read_line_by_line() {
    let descriptor = Descriptor::parse(DESCRIPTOR.as_bytes()).unwrap();
    assert_eq!(descriptor.create_type, "twoGbMaxExtentFlat");
    assert_eq!(
        (descriptor.content_id, descriptor.parent_name),
        (0x0a1b_2c3d, None)
    );
    let line = |sectors, storage, file: &str| ExtentLine {
        sectors,
        storage,
        file: file.into(),
    };
    assert_eq!(
        descriptor.extents,
        vec![
            line(
                2048,
                ExtentStorage::Flat { first_sector: 0 },
                "my disk-f001.vmdk"
            ),
            line(10, ExtentStorage::Zero, ""),
            line(5, ExtentStorage::Sparse, "b.vmdk"),
        ]
    );
}

#[test]
fn descriptors_we_cannot_serve_are_refused() {
    let code = |text: &str| {
        Descriptor::parse(text.as_bytes())
            .unwrap_err()
            .code()
            .to_owned()
    };
    assert_eq!(code("RW x FLAT \"a\""), "disk.vmdk.extent-line");
    assert_eq!(
        code("RW 99999999999999999 FLAT \"a\""),
        "disk.vmdk.extent-line"
    );
    assert_eq!(code("RW 5 FLAT a"), "disk.vmdk.extent-line");
    assert_eq!(
        code("RW 5 SESPARSE \"a\""),
        "disk.vmdk.sesparse-unsupported"
    );
    assert_eq!(code("RW 5 VMFSRDM \"a\""), "disk.vmdk.rdm-unsupported");
    assert_eq!(
        code("NOACCESS 5 FLAT \"a\""),
        "disk.vmdk.no-access-unsupported"
    );
    assert_eq!(code("CID=xyz"), "disk.vmdk.content-id");
    assert_eq!(code("parentCID=00000001"), "disk.vmdk.parent-name");
    assert_eq!(
        code(&"RW 1 ZERO\n".repeat(2000)),
        "disk.vmdk.too-many-extents"
    );
}

#[test]
fn extents_lie_side_by_side_and_stay_in_their_folder() {
    let open = |text: &str| {
        let flat: Vec<u8> = (0..MIB).map(|n| (n / 512) as u8).collect();
        let flat: Arc<dyn BlockRead> = Arc::new(MemoryDisk::from(flat));
        let opener = MemoryOpener::default().with("/vm/flat.vmdk", flat);
        let bytes = Arc::new(MemoryDisk::from(text.as_bytes().to_vec()));
        crate::open_file(
            FileHandle::from_bytes("/vm/d.vmdk", bytes),
            &opener,
            OpenOptions::default(),
        )
    };
    let head = "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\n";
    let disk = open(&format!(
        "{head}RW 3 FLAT \"flat.vmdk\" 7\nRW 2 ZERO\nRW 1 FLAT \"flat.vmdk\" 2047\n"
    ))
    .unwrap();
    let mut bytes = vec![9; 6 * 512];
    disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[511]).collect();
    assert_eq!(sectors, [7, 8, 9, 0, 0, 255]);
    let code = |line: &str| {
        open(&format!("{head}{line}\n"))
            .unwrap_err()
            .code()
            .to_owned()
    };
    assert_eq!(
        code("RW 2 FLAT \"flat.vmdk\" 2047"),
        "disk.vmdk.extent-short"
    );
    assert_eq!(
        code("RW 2 FLAT \"flat.vmdk\" 99999999999999999999"),
        "disk.vmdk.extent-line"
    );
    assert_eq!(
        code("RW 2 FLAT \"flat.vmdk\" 9999999999999999999"),
        "disk.vmdk.extent-short"
    );
    assert_eq!(code("RW 2 FLAT \"other.vmdk\""), "disk.opener.not-found");
    assert_eq!(code("version=1"), "disk.vmdk.no-extents");
}

/// A minimal sparse extent of 4 MiB in grains of 64 KiB: header, directory, one table.
pub(super) fn sparse(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; 64 * 512];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"KDMV");
    put(4, &1_u32.to_le_bytes());
    put(8, &3_u32.to_le_bytes());
    put(12, &8192_u64.to_le_bytes());
    put(20, &128_u64.to_le_bytes());
    put(44, &512_u32.to_le_bytes());
    put(56, &2_u64.to_le_bytes());
    put(73, b"\n \r\n");
    put(1024, &4_u32.to_le_bytes());
    change(&mut bytes);
    bytes
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let code = |at: usize, value: &[u8]| {
        let bytes = sparse(|bytes| bytes[at..at + value.len()].copy_from_slice(value));
        SparseHeader::read(&MemoryDisk::from(bytes))
            .unwrap_err()
            .code()
            .to_owned()
    };
    assert_eq!(code(0, b"XXXX"), "disk.vmdk.magic");
    assert_eq!(
        code(4, &9_u32.to_le_bytes()),
        "disk.vmdk.version-unsupported"
    );
    assert_eq!(code(12, &u64::MAX.to_le_bytes()), "disk.size.too-large");
    assert_eq!(
        code(12, &(1_u64 << 47).to_le_bytes()),
        "disk.vmdk.directory-too-large"
    );
    assert_eq!(code(12, &(1_u64 << 32).to_le_bytes()), "disk.vmdk.outside");
    assert_eq!(code(20, &0_u64.to_le_bytes()), "disk.vmdk.grain-size");
    assert_eq!(code(20, &3_u64.to_le_bytes()), "disk.vmdk.grain-size");
    assert_eq!(
        code(20, &(1_u64 << 63).to_le_bytes()),
        "disk.vmdk.grain-size"
    );
    assert_eq!(code(44, &0_u32.to_le_bytes()), "disk.vmdk.table-size");
    assert_eq!(code(44, &u32::MAX.to_le_bytes()), "disk.vmdk.table-size");
    assert_eq!(code(56, &(u64::MAX - 1).to_le_bytes()), "disk.vmdk.outside");
    assert_eq!(code(73, b"\r\n\n\n"), "disk.vmdk.newlines");
    // A footer that refers to the footer.
    assert_eq!(code(56, &u64::MAX.to_le_bytes()), "disk.vmdk.magic");
}

#[test]
fn tables_and_grains_outside_the_file_are_errors() {
    let open = |bytes: Vec<u8>| {
        let file = FileHandle::from_bytes("/vm/d.vmdk", Arc::new(MemoryDisk::from(bytes)));
        crate::open_file(file, &LoneOpener, OpenOptions::default()).unwrap()
    };
    let mut buffer = vec![1; 512];
    let disk = open(sparse(|_| {}));
    disk.read_at(ByteOffset::ZERO, &mut buffer).unwrap();
    assert_eq!(buffer, [0; 512]);
    let disk = open(sparse(|bytes| bytes[1024..1028].fill(0xff)));
    let error = disk.read_at(ByteOffset::ZERO, &mut buffer).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Corrupt, "disk.vmdk.table-outside")
    );
    let disk = open(sparse(|bytes| bytes[2048..2052].fill(0xff)));
    let error = disk.read_at(ByteOffset::ZERO, &mut buffer).unwrap_err();
    assert_eq!(error.code(), "disk.vmdk.data-outside");
    // A cut file is data that cannot be read, never zeros.
    let extent = disk.extents(base::size::ByteRange::new(0, 512)).unwrap()[0];
    assert_eq!(extent.kind, base::block::ExtentKind::Data);
}
