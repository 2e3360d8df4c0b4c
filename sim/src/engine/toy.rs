//! A toy store, to prove the simulator.
//!
//! Knows: pages as files named by their digest, points as lists of digests, publishing by rename.
//! It is right about crashes; about collecting beside a backup it is right or naive, as asked.
//! Refuses to know: compression, keys, indexes, repair: all that makes the real store worth having.

use super::{Engine, Listed, Listing, Process};
use base::files::{FileLock, FileWrite, Files, Path, read_all};
use base::random::Random;
use base::{Error, Kind, Result};
use std::collections::BTreeSet;

const PAGE: usize = 4096;

/// How the toy collects beside backups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToyCollect {
    /// One lock for backups, deletes and collects: right, and slow.
    Locked,
    /// Lists points, then removes what none of them uses: loses what a backup published meanwhile.
    Naive,
}

/// When the toy syncs its chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToySync {
    /// Before a chunk gets its final name: right.
    BeforeName,
    /// All at the end, before the point is written. Every point is right; but a crash before that
    /// leaves torn chunks under final names, and the next backup trusts them.
    BeforePoint,
}

/// A toy store.
#[derive(Clone, Copy, Debug)]
pub struct Toy {
    /// How it collects.
    pub collect: ToyCollect,
    /// When it syncs.
    pub sync: ToySync,
}

impl Toy {
    /// A toy that is right.
    pub const fn right() -> Self {
        Self {
            collect: ToyCollect::Locked,
            sync: ToySync::BeforeName,
        }
    }

    fn lock(self, process: &Process) -> Result<Option<Box<dyn FileLock>>> {
        if self.collect == ToyCollect::Naive {
            return Ok(None);
        }
        let held = process.files.try_lock(&Path::new("lock")?)?;
        if held.is_none() {
            return Err(Error::new(
                Kind::Conflict,
                "sim.toy.busy",
                "another process is at work",
            ));
        }
        Ok(held)
    }
}

/// Writes under a name nobody else has, syncs if asked, then publishes.
fn store(
    process: &Process,
    kind: &str,
    to: &Path,
    bytes: &[u8],
    sync: ToySync,
) -> Result<Box<dyn FileWrite>> {
    let mut number = [0; 8];
    process.random.fill(&mut number);
    let from = Path::new(format!("tmp/{kind}-{:016x}", u64::from_le_bytes(number)))?;
    let mut file = process.files.create(&from)?;
    file.append(bytes)?;
    if sync == ToySync::BeforeName {
        file.sync()?;
    }
    match process.files.publish(&from, to) {
        Err(error) if error.kind() == Kind::Exists => process.files.remove(&from)?,
        other => other?,
    }
    Ok(file)
}

fn chunks_of(process: &Process, label: &str) -> Result<Vec<String>> {
    let record = read_all(
        &process.files,
        &Path::new(format!("points/{label}"))?,
        1 << 20,
    )?;
    let text = String::from_utf8(record)
        .map_err(|_| Error::corrupt("sim.toy.record", "a record is not text"))?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.pop().as_deref() != Some("end") {
        return Err(Error::corrupt("sim.toy.record", "a record has no end"));
    }
    Ok(lines)
}

impl Engine for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn refuses_when_busy(&self) -> bool {
        self.collect == ToyCollect::Locked
    }

    fn create(&self, process: &Process) -> Result<()> {
        for folder in ["tmp", "chunks", "points"] {
            process.files.make_folder(&Path::new(folder)?)?;
        }
        process.files.sync_folder(&Path::root())
    }

    fn backup(&self, process: &Process, label: &str, disk: &[u8]) -> Result<()> {
        let _lock = self.lock(process)?;
        let chunks = Path::new("chunks")?;
        let mut have: BTreeSet<String> = process
            .files
            .list(&chunks)?
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        let mut record = String::new();
        let mut written = Vec::new();
        for page in disk.chunks(PAGE) {
            let name = blake3::hash(page).to_hex().to_string();
            if have.insert(name.clone()) {
                let to = chunks.join(&name)?;
                written.push(store(process, "chunk", &to, page, self.sync)?);
            }
            record.push_str(&name);
            record.push('\n');
        }
        if self.sync == ToySync::BeforePoint {
            written.iter_mut().try_for_each(|file| file.sync())?;
        }
        process.files.sync_folder(&chunks)?;
        record.push_str("end\n");
        let points = Path::new("points")?;
        let to = points.join(label)?;
        store(
            process,
            "point",
            &to,
            record.as_bytes(),
            ToySync::BeforeName,
        )?;
        process.files.sync_folder(&points)
    }

    fn list(&self, process: &Process) -> Result<Listing> {
        let entries = process.files.list(&Path::new("points")?)?;
        let points = entries
            .into_iter()
            .map(|entry| Listed {
                label: entry.name.clone(),
                id: entry.name,
            })
            .collect();
        Ok(Listing {
            points,
            damaged: Vec::new(),
        })
    }

    fn restore(&self, process: &Process, id: &str) -> Result<Vec<u8>> {
        let mut disk = Vec::new();
        for name in chunks_of(process, id)? {
            let page = read_all(
                &process.files,
                &Path::new(format!("chunks/{name}"))?,
                1 << 20,
            )?;
            if blake3::hash(&page).to_hex().as_str() != name {
                return Err(Error::corrupt(
                    "sim.toy.chunk",
                    "a chunk is not what its name says",
                ));
            }
            disk.extend_from_slice(&page);
        }
        Ok(disk)
    }

    fn delete(&self, process: &Process, id: &str) -> Result<()> {
        let _lock = self.lock(process)?;
        let points = Path::new("points")?;
        process.files.remove(&points.join(id)?)?;
        process.files.sync_folder(&points)
    }

    fn collect(&self, process: &Process) -> Result<()> {
        let _lock = self.lock(process)?;
        let mut used = BTreeSet::new();
        for point in self.list(process)?.points {
            match chunks_of(process, &point.id) {
                Ok(chunks) => used.extend(chunks),
                // Deleted since it was listed.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let chunks = Path::new("chunks")?;
        for entry in process.files.list(&chunks)? {
            if !used.contains(&entry.name) {
                process.files.remove(&chunks.join(&entry.name)?)?;
            }
        }
        process.files.sync_folder(&chunks)
    }

    fn verify(&self, process: &Process) -> Result<Vec<String>> {
        let points = self.list(process)?.points;
        Ok(points
            .into_iter()
            .filter_map(|point| self.restore(process, &point.id).err())
            .map(|error| error.to_string())
            .collect())
    }
}
