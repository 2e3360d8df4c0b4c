//! Backstay's part of a round.
//!
//! Knows: how the operations are asked for by the command line, and which processes count.
//! Refuses to know: the other tools.

use super::images::Images;
use super::measure::{Cost, room, times};
use crate::command::Run;
use crate::demo::program::Site;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const REPOSITORY: &str = "bench";
const MACHINE: &str = "machine";
const OTHER: &str = "other";

/// A site with an empty encrypted repository and a job for each machine.
pub struct Bench<'a> {
    site: &'a Site,
    images: &'a Images,
    repository: PathBuf,
    disk: PathBuf,
}

impl<'a> Bench<'a> {
    /// Sets it up.
    pub fn new(
        site: &'a Site,
        scratch: &Path,
        images: &'a Images,
        cancel: &Cancel,
    ) -> Result<Self> {
        let repository = scratch.join(REPOSITORY);
        let disk = scratch.join("disk.raw");
        site.create_repository(REPOSITORY, &repository, cancel)?;
        place(&images.first, &disk)?;
        site.create_image_job(MACHINE, &disk, REPOSITORY, cancel)?;
        site.create_image_job(OTHER, &images.other, REPOSITORY, cancel)?;
        Ok(Self {
            site,
            images,
            repository,
            disk,
        })
    }

    /// The first backup.
    pub fn full(&mut self, cancel: &Cancel) -> Result<Cost> {
        self.back_up(MACHINE, cancel)
    }

    /// The second backup of the changed disk; all of it is read.
    pub fn re_read(&mut self, cancel: &Cancel) -> Result<Cost> {
        place(&self.images.second, &self.disk)?;
        self.back_up(MACHINE, cancel)
    }

    /// The first backup of another machine.
    pub fn other(&mut self, cancel: &Cancel) -> Result<Cost> {
        self.back_up(OTHER, cancel)
    }

    /// The newest point of the first machine into a raw file.
    pub fn restore(&self, to: &Path, cancel: &Cancel) -> Result<Cost> {
        let point = self.site.points(MACHINE, cancel)?.pop().ok_or_else(|| {
            Error::new(Kind::Bug, "xtask.bench.point", "the machine has no point")
        })?;
        self.measured(|| self.site.restore_disk(&point, to, cancel).map(drop))
    }

    fn back_up(&self, job: &str, cancel: &Cancel) -> Result<Cost> {
        let before = room(&self.repository)?;
        let mut cost = self.measured(|| self.site.run_job(job, cancel).map(drop))?;
        cost.stored = Some(room(&self.repository)?.saturating_sub(before));
        Ok(cost)
    }

    /// The cost of what the site's processes do meanwhile: those that stay, and those that end and
    /// are waited for by those that stay.
    fn measured(&self, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let before = self.processor_time()?;
        let started = Instant::now();
        work()?;
        let wall = started.elapsed();
        let cpu = self.processor_time()?.saturating_sub(before);
        Ok(Cost {
            wall,
            cpu,
            stored: None,
        })
    }

    fn processor_time(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for pid in self.site.mark().processes()? {
            let number = pid.as_raw_nonzero();
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            let (own, children) = times(&stat);
            sum += own + children;
        }
        Ok(sum)
    }
}

/// Puts a copy of an image at the path of the disk.
fn place(image: &Path, disk: &Path) -> Result<()> {
    Run::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([image, disk])
        .capture(&Cancel::new())
        .map(drop)
}
