//! The contract's suite on every platform.

use crate::lab::{Lab, LabMachine};
use base::block::BlockRead;
use base::size::{ByteCount, ByteOffset, ByteRange, MIB};
use base::{Error, Kind, Result};
use platform::conformance::{Abilities, Subject, run};
use platform::contract::{Access, BackupDisk, MachineKey, NbdAddress};
use platform::image::{ImageMachine, Images};
use platform::simulated::Simulated;
use std::path::PathBuf;

fn not_here(what: &str) -> Error {
    Error::new(
        Kind::Bug,
        "test.subject",
        format!("{what} is not asked of this subject"),
    )
}

struct SimulatedSubject<'a>(&'a Simulated, MachineKey);

impl Subject for SimulatedSubject<'_> {
    fn machine(&self) -> MachineKey {
        self.1.clone()
    }
    fn target(&self) -> String {
        "vda".to_owned()
    }
    fn abilities(&self) -> Abilities {
        Abilities {
            snapshots: true,
            tracking: true,
            power: true,
            agent: true,
        }
    }
    fn write(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        self.0.write(&self.1, "vda", offset, bytes)
    }
    fn read(&self, disk: &BackupDisk, range: ByteRange) -> Result<Vec<u8>> {
        let Access::Memory(memory) = &disk.access else {
            return Err(not_here("NBD"));
        };
        let mut bytes = vec![0; range.length.as_usize()?];
        memory.disk.read_at(range.offset, &mut bytes)?;
        Ok(bytes)
    }
    fn changed(&self, disk: &BackupDisk) -> Result<Vec<ByteRange>> {
        let Access::Memory(memory) = &disk.access else {
            return Err(not_here("NBD"));
        };
        memory
            .changed
            .clone()
            .ok_or_else(|| not_here("changes of a full backup"))
    }
    fn place(&self, name: &str) -> Result<String> {
        Ok(format!("/simulated/{name}"))
    }
}

#[test]
fn the_simulated_hypervisor_keeps_the_contract() {
    let world = Simulated::new(1);
    let key = world.add_machine("m", &[("vda", ByteCount(8 * MIB)), ("vdb", ByteCount(MIB))]);
    let made = run(&world, &SimulatedSubject(&world, key)).unwrap();
    assert_eq!(made.len(), 14, "{made:?}");
    assert!(world.leaks().is_empty());
}

struct ImageSubject {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Subject for ImageSubject {
    fn machine(&self) -> MachineKey {
        MachineKey(self.path.to_str().unwrap().to_owned())
    }
    fn target(&self) -> String {
        "disk0".to_owned()
    }
    fn abilities(&self) -> Abilities {
        Abilities {
            snapshots: false,
            tracking: false,
            power: false,
            agent: false,
        }
    }
    fn write(&self, _: ByteOffset, _: &[u8]) -> Result<()> {
        Err(not_here("writing"))
    }
    fn read(&self, _: &BackupDisk, _: ByteRange) -> Result<Vec<u8>> {
        Err(not_here("reading"))
    }
    fn changed(&self, _: &BackupDisk) -> Result<Vec<ByteRange>> {
        Err(not_here("changes"))
    }
    fn place(&self, name: &str) -> Result<String> {
        Ok(self.folder.path().join(name).to_str().unwrap().to_owned())
    }
}

#[test]
fn images_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(4 * MIB)
        .unwrap();
    let images = Images::new(vec![ImageMachine::of_file(&path).unwrap()]).unwrap();
    let made = run(&images, &ImageSubject { folder, path }).unwrap();
    assert_eq!(made.len(), 7, "{made:?}");
}

pub struct LibvirtSubject<'a>(pub &'a LabMachine);

impl LibvirtSubject<'_> {
    fn uri(disk: &BackupDisk) -> (String, Option<String>) {
        match &disk.access {
            Access::Nbd {
                address: NbdAddress::Unix { path },
                export,
                dirty_context,
            } => (
                format!("nbd+unix:///{export}?socket={path}"),
                dirty_context.clone(),
            ),
            other => panic!("not NBD over a Unix socket: {other:?}"),
        }
    }
}

impl Subject for LibvirtSubject<'_> {
    fn machine(&self) -> MachineKey {
        self.0.key.clone()
    }
    fn target(&self) -> String {
        "vda".to_owned()
    }
    fn abilities(&self) -> Abilities {
        Abilities {
            snapshots: true,
            tracking: true,
            power: true,
            agent: false,
        }
    }
    fn write(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        assert_eq!(bytes.len(), 65_536);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        self.0.write(0, bytes[0], offset.0 / 1024);
        Ok(())
    }
    fn read(&self, disk: &BackupDisk, range: ByteRange) -> Result<Vec<u8>> {
        let copy = self.0.lab.path(&format!("{}-read.raw", self.0.name));
        self.0
            .lab
            .run("nbdcopy", &[&Self::uri(disk).0, copy.to_str().unwrap()]);
        let bytes = std::fs::read(&copy).unwrap();
        std::fs::remove_file(&copy).unwrap();
        Ok(bytes[range.offset.0 as usize..][..range.length.0 as usize].to_vec())
    }
    fn changed(&self, disk: &BackupDisk) -> Result<Vec<ByteRange>> {
        let (uri, context) = Self::uri(disk);
        let context = context.expect("an incremental backup has a dirty context");
        let map = self
            .0
            .lab
            .run("nbdinfo", &[&format!("--map={context}"), &uri]);
        let lines = map
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(lines
            .filter(|words| words[2] == "1")
            .map(|words| ByteRange::new(words[0].parse().unwrap(), words[1].parse().unwrap()))
            .collect())
    }
    fn place(&self, name: &str) -> Result<String> {
        let path = self.0.lab.path(&format!("disks/{name}"));
        let path = path.to_str().unwrap();
        self.0
            .lab
            .run("qemu-img", &["create", "-q", "-f", "raw", path, "8M"]);
        Ok(path.to_owned())
    }
}

#[test]
fn libvirt_keeps_the_contract() {
    let lab = std::sync::Arc::new(Lab::start());
    let machine = lab.machine(&[("vda", "qcow2", 8), ("vdb", "raw", 1)]);
    machine.start();
    let made = run(&lab.connect(), &LibvirtSubject(&machine)).unwrap();
    assert_eq!(made.len(), 14, "{made:?}");
}
