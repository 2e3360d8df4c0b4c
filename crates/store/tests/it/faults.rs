//! A disk that is full, or fails, at every single write in turn: no false success, nothing lost.

use crate::support::*;
use base::files::*;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::*;

/// Files that fail one write, or every write from one on.
struct Failing {
    files: Arc<dyn Files>,
    /// Writes until the first failure; below 0: failing.
    left: Arc<AtomicI64>,
    /// Whether only one write fails.
    once: bool,
    kind: Kind,
}

impl Failing {
    fn write(&self) -> Result<()> {
        fail(&self.left, self.once, self.kind)
    }
}

fn fail(left: &AtomicI64, once: bool, kind: Kind) -> Result<()> {
    let now = left.fetch_sub(1, Ordering::SeqCst);
    if now == 0 || (now < 0 && !once) {
        Err(Error::new(kind, "test.fault", "the disk does not want to"))
    } else {
        Ok(())
    }
}

struct FailingWrite(Box<dyn FileWrite>, Arc<AtomicI64>, bool, Kind);

impl FileWrite for FailingWrite {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        fail(&self.1, self.2, self.3)?;
        self.0.append(bytes)
    }
    fn sync(&mut self) -> Result<()> {
        fail(&self.1, self.2, self.3)?;
        self.0.sync()
    }
}

impl Files for Failing {
    fn create(&self, path: &Path) -> Result<Box<dyn FileWrite>> {
        self.write()?;
        let file = self.files.create(path)?;
        Ok(Box::new(FailingWrite(
            file,
            Arc::clone(&self.left),
            self.once,
            self.kind,
        )))
    }
    fn open(&self, path: &Path) -> Result<Arc<dyn FileRead>> {
        self.files.open(path)
    }
    fn publish(&self, from: &Path, to: &Path) -> Result<()> {
        self.write()?;
        self.files.publish(from, to)
    }
    fn replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.write()?;
        self.files.replace(from, to)
    }
    fn rename_folder(&self, from: &Path, to: &Path) -> Result<()> {
        self.write()?;
        self.files.rename_folder(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.files.remove(path)
    }
    fn make_folder(&self, path: &Path) -> Result<()> {
        self.write()?;
        self.files.make_folder(path)
    }
    fn remove_folder(&self, path: &Path) -> Result<()> {
        self.files.remove_folder(path)
    }
    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        self.files.list(folder)
    }
    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.write()?;
        self.files.sync_folder(folder)
    }
    fn space(&self) -> Result<Space> {
        Ok(Space {
            total: ByteCount(1 << 30),
            free: ByteCount(1 << 29),
        })
    }
    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn FileLock>>> {
        self.files.try_lock(path)
    }
}

/// Fails the deed at each of its writes in turn; after each failure `check` looks at what is left.
fn at_every_write(
    deed: &dyn Fn(&Repository) -> Result<()>,
    check: &dyn Fn(&Repository, bool),
    prepare: &dyn Fn(&Repository),
) {
    for kind in [Kind::Full, Kind::Io] {
        for once in [true, false] {
            for number in 0.. {
                let place = place();
                let repository = create(&place);
                prepare(&repository);
                drop(repository);
                let left = Arc::new(AtomicI64::new(i64::MAX));
                let files: Arc<dyn Files> = Arc::new(Failing {
                    files: Arc::clone(&place.files),
                    left: Arc::clone(&left),
                    once,
                    kind,
                });
                let failing = Repository::open(files, environment(3), None).unwrap();
                left.store(number, Ordering::SeqCst);
                let done = deed(&failing);
                let met = left.load(Ordering::SeqCst) < 0;
                if let Err(error) = &done {
                    assert!(met && error.code() != "base.bug", "{error:?}");
                }
                drop(failing);
                let again = Repository::open(Arc::clone(&place.files), environment(4), None);
                check(&again.unwrap(), done.is_ok());
                if !met {
                    break;
                }
                assert!(number < 500, "there is no end to it");
            }
        }
    }
}

fn assert_clean(repository: &Repository) {
    let options = VerifyOptions {
        read_data: true,
        ..VerifyOptions::default()
    };
    let report = repository.verify(&options, &|_| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

#[test]
fn a_backup_that_meets_a_fault_is_whole_or_not_there() {
    let (old, new) = (sample(1, 150_000), sample(2, 180_000));
    at_every_write(
        &|repository| backup(repository, "new", &new).map(|_| ()),
        &|repository, acknowledged| {
            let points = repository.points().unwrap();
            assert!(points.damaged.is_empty());
            let names: Vec<&str> = points.points.iter().map(|p| &*p.machine.name).collect();
            assert!(names.contains(&"old"));
            assert!(names.contains(&"new") || !acknowledged, "a false success");
            for point in &points.points {
                let expected = if point.machine.name == "old" {
                    &old
                } else {
                    &new
                };
                assert_eq!(read_disk(repository, point).unwrap(), *expected);
            }
            // The next backup must not build on what the failed one left.
            let next = backup(repository, "next", &new).unwrap();
            repository
                .collect(&CollectOptions::default(), &|_| {})
                .unwrap();
            assert_eq!(read_disk(repository, &next).unwrap(), new);
            assert_clean(repository);
        },
        &|repository| {
            backup(repository, "old", &old).unwrap();
        },
    );
}

/// Collects. Another test of this program may start a process in this very moment, and until that
/// one has become its program it holds every lock of ours: then the lock is free a little later.
fn collect(repository: &Repository) {
    let begun = std::time::Instant::now();
    loop {
        match repository.collect(&CollectOptions::default(), &|_| {}) {
            Err(error) if error.code() == "store.collect.busy" => {
                assert!(begun.elapsed().as_secs() < 10, "{error}");
                std::thread::yield_now();
            }
            done => {
                done.unwrap();
                return;
            }
        }
    }
}

#[test]
fn a_collection_that_meets_a_fault_loses_nothing_and_goes_on_later() {
    let (gone, kept) = (noise(1, 200_000), sample(2, 180_000));
    at_every_write(
        &|repository| {
            let list = repository.points()?;
            if let Some(point) = list
                .points
                .iter()
                .find(|point| point.machine.name == "gone")
            {
                repository.delete_point(point.id)?;
            }
            let options = CollectOptions {
                rewrite_below_percent: 99,
                ..Default::default()
            };
            repository.collect(&options, &|_| {}).map(|_| ())
        },
        &|repository, _| {
            let points = repository.points().unwrap();
            for point in &points.points {
                let expected = if point.machine.name == "gone" {
                    &gone
                } else {
                    &kept
                };
                assert_eq!(read_disk(repository, point).unwrap(), *expected);
                if point.machine.name == "gone" {
                    repository.delete_point(point.id).unwrap();
                }
            }
            collect(repository);
            collect(repository);
            assert_clean(repository);
            assert!(repository.info().unwrap().packs.0 < 200_000);
        },
        &|repository| {
            backup(repository, "gone", &gone).unwrap();
            backup(repository, "kept", &kept).unwrap();
        },
    );
}
