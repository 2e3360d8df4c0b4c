//! Doing the prompt's commands.
//!
//! Knows: which words of the data plane each command becomes. Refuses to know: how those are done.

use super::command::{Command, Line};
use super::place::{self, Entry};
use super::{password, show};
use crate::executor::Executor;
use base::id::PointId;
use base::size::{ByteCount, ByteRange, MIB};
use base::{Error, Kind, Result};
use protocol::paging;
use protocol::words::agent::{
    AgentRequest as Q, AgentResponse as A, ImageTarget, TaskEnd, TaskNumber, TaskReport,
};
use protocol::words::point::Point;
use protocol::words::repository::{RepositoryAccess, RepositoryLocation};
use std::fmt::Debug;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// How long one look at a task waits.
const LOOK_MILLIS: u32 = 500;

/// Whether the prompt goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It does.
    Go,
    /// It does not.
    Quit,
}

/// A person's client.
pub struct Client {
    executor: Executor,
    json: bool,
    password_file: Option<PathBuf>,
}

impl Client {
    /// Nothing open yet.
    pub fn new(json: bool, password_file: Option<PathBuf>) -> Self {
        Self {
            executor: Executor::of_this_machine(),
            json,
            password_file,
        }
    }

    /// Does a line of the prompt. Its options hold for this line only.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(&mut self, line: Line) -> Result<Next> {
        let Some(command) = line.command else {
            return Ok(Next::Go);
        };
        let usual = (self.json, self.password_file.clone());
        self.json |= line.json;
        if line.password_file.is_some() {
            self.password_file = line.password_file;
        }
        let done = self.command(command);
        (self.json, self.password_file) = usual;
        done
    }

    fn command(&mut self, command: Command) -> Result<Next> {
        match command {
            Command::Open { repository } => self.open(&repository)?,
            Command::Points => self.points()?,
            Command::Ls { long, point } => self.list(long, point.as_deref())?,
            Command::Stat { point } => self.stat(point.as_deref())?,
            Command::Cat {
                file,
                offset,
                length,
            } => {
                self.cat(&file, offset, length.unwrap_or(u64::MAX))?;
            }
            Command::Map { file } => self.map(&file)?,
            Command::Diff { point, other, disk } => self.diff(&point, &other, disk.as_deref())?,
            Command::Extract {
                file,
                all,
                output,
                format,
                overwrite,
            } => {
                let how = How { format, overwrite };
                if all {
                    self.extract_all(&file, &output, &how)?;
                } else {
                    let points = self.all_points()?;
                    let (point, listed) = place::file(&points, &file)?;
                    self.extract(point, &listed.entry, &output, &how)?;
                }
            }
            Command::Verify { point, read_data } => self.verify(point.as_deref(), read_data)?,
            Command::Quit => return Ok(Next::Quit),
        }
        Ok(Next::Go)
    }

    /// Opens a repository, asking for its password where it has one and none was given.
    ///
    /// # Errors
    /// Those of opening.
    pub fn open(&mut self, folder: &Path) -> Result<()> {
        let path = text_of(folder)?;
        let given = password::given(self.password_file.as_deref())?;
        let asked = given.is_none();
        let access = |password| RepositoryAccess {
            location: RepositoryLocation::Folder { path: path.clone() },
            password,
        };
        let opened = match self.ask(Q::OpenRepository {
            access: access(given),
        }) {
            Err(error) if asked && error.kind() == Kind::Denied => {
                let typed = password::ask(&format!("password of {path}"))?;
                self.ask(Q::OpenRepository {
                    access: access(Some(typed)),
                })
            }
            other => other,
        };
        match opened? {
            A::Repository(summary) if self.json => show::json(&summary),
            A::Repository(summary) => {
                eprint!("{}", show::summary(&summary));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: Q) -> Result<A> {
        self.executor.execute(request)
    }

    fn all_points(&self) -> Result<Vec<Point>> {
        paging::points(|request| self.ask(request.clone()))
    }

    fn points(&self) -> Result<()> {
        let points = self.all_points()?;
        if self.json {
            return show::json(&points);
        }
        points
            .iter()
            .try_for_each(|point| show::text(&show::point_line(point)))
    }

    fn list(&self, long: bool, wanted: Option<&str>) -> Result<()> {
        let points = self.all_points()?;
        let points: Vec<&Point> = match wanted {
            Some(text) => vec![place::point(&points, text)?],
            None => points.iter().collect(),
        };
        for point in points {
            if !self.json && wanted.is_none() {
                show::text(&format!("{}:", show::point_line(point)))?;
            }
            for file in place::files(point) {
                if self.json {
                    show::json(&serde_json::json!({
                        "point": point.id,
                        "machine_id": point.draft.machine.id,
                        "machine": point.draft.machine.name,
                        "path": file.path,
                        "size": file.size,
                    }))?;
                } else {
                    show::text(&show::file_line(point, &file, long))?;
                }
            }
        }
        Ok(())
    }

    fn stat(&self, wanted: Option<&str>) -> Result<()> {
        let points = self.all_points()?;
        match wanted {
            Some(text) => {
                let point = place::point(&points, text)?;
                if self.json {
                    show::json(point)
                } else {
                    show::text(&show::point(point))
                }
            }
            None => {
                let machines: std::collections::BTreeSet<_> =
                    points.iter().map(|point| point.draft.machine.id).collect();
                let size: ByteCount = points
                    .iter()
                    .flat_map(|point| &point.disks)
                    .map(|disk| disk.size)
                    .sum();
                if self.json {
                    return show::json(&serde_json::json!({
                        "points": points.len(), "machines": machines.len(), "disk_bytes": size,
                    }));
                }
                show::text(&format!(
                    "{} points of {} machines, {size} of disks",
                    points.len(),
                    machines.len()
                ))
            }
        }
    }

    fn cat(&self, file: &str, offset: u64, length: u64) -> Result<()> {
        let points = self.all_points()?;
        let (point, listed) = place::file(&points, file)?;
        let Entry::Disk(disk) = listed.entry else {
            let bytes = self.small_file(point, &listed.entry)?;
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let rest = &bytes[start..];
            let length = usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            return show::bytes(&rest[..length]);
        };
        let end = offset.saturating_add(length).min(disk.size.0);
        let mut at = offset;
        while at < end {
            let range = ByteRange::new(at, MIB.min(end - at));
            match self.ask(Q::ReadDisk {
                point: point.id,
                disk: disk.name.clone(),
                range,
            })? {
                A::Bytes(bytes) => show::bytes(&bytes)?,
                other => return Err(unexpected(&other)),
            }
            at = range.end().0;
        }
        Ok(())
    }

    /// The bytes of a file that is no disk.
    fn small_file(&self, point: &Point, entry: &Entry<'_>) -> Result<Vec<u8>> {
        match entry {
            Entry::Description => Ok(show::description(point).into_bytes()),
            Entry::Descriptor(disk) => Ok(show::descriptor(disk).into_bytes()),
            Entry::File(path) => {
                paging::read_file(|request| self.ask(request.clone()), point.id, path)
            }
            Entry::Disk(disk) => Err(Error::invalid(
                "mover.client.is-disk",
                format!("\u{201c}{}\u{201d} is a disk", disk.name),
            )),
        }
    }

    fn map(&self, file: &str) -> Result<()> {
        let points = self.all_points()?;
        let (point, listed) = place::file(&points, file)?;
        let Entry::Disk(disk) = listed.entry else {
            return Err(Error::invalid(
                "mover.client.not-a-disk",
                format!("\u{201c}{file}\u{201d} is not a disk"),
            )
            .hint("disks are called POINT/disks/NAME.raw"));
        };
        let (point, disk) = (point.id, disk.name.clone());
        self.ranges(None, |from| Q::MapDisk {
            point,
            disk: disk.clone(),
            from,
        })
    }

    fn diff(&self, one: &str, other: &str, only: Option<&str>) -> Result<()> {
        let points = self.all_points()?;
        let (one, other) = (place::point(&points, one)?, place::point(&points, other)?);
        let both = one
            .disks
            .iter()
            .filter(|disk| other.disk(&disk.name).is_some());
        let names: Vec<&str> = both
            .map(|disk| disk.name.as_str())
            .filter(|name| only.is_none_or(|only| only == *name))
            .collect();
        if names.is_empty() {
            return Err(Error::new(
                Kind::NotFound,
                "mover.client.no-common-disk",
                "the two points have no such disk in common",
            ));
        }
        let (one, other): (PointId, PointId) = (one.id, other.id);
        for name in names {
            if !self.json {
                show::text(&format!("disks/{name}.raw:"))?;
            }
            self.ranges(Some(name), |from| Q::DiffDisk {
                point: one,
                other,
                disk: name.to_owned(),
                from,
            })?;
        }
        Ok(())
    }

    /// Shows ranges, asking on until all came.
    fn ranges(&self, disk: Option<&str>, request: impl Fn(ByteCount) -> Q) -> Result<()> {
        let mut from = Some(ByteCount::ZERO);
        while let Some(at) = from {
            let A::Ranges(ranges, next) = self.ask(request(at))? else {
                return Err(Error::new(
                    Kind::Bug,
                    "mover.client.answer",
                    "an answer does not fit",
                ));
            };
            for range in &ranges {
                if self.json {
                    show::json(&serde_json::json!({
                        "disk": disk, "offset": range.offset, "length": range.length,
                    }))?;
                } else {
                    show::text(&show::range_line(range))?;
                }
            }
            from = next;
        }
        Ok(())
    }

    fn extract_all(&self, name: &str, folder: &Path, how: &How) -> Result<()> {
        let points = self.all_points()?;
        let point = place::point(&points, name)?;
        for file in place::files(point) {
            let path = match (&file.entry, how.format.as_str()) {
                (Entry::Disk(disk), format) => format!("disks/{}.{format}", disk.name),
                _ => file.path.clone(),
            };
            let output = folder.join(place::safe(&path)?);
            if let Some(parent) = output.parent() {
                std::fs::create_dir_all(parent)
                    .map_err(|error| Error::io(format!("making {}", parent.display()), error))?;
            }
            self.extract(point, &file.entry, &output, how)?;
        }
        Ok(())
    }

    fn extract(&self, point: &Point, entry: &Entry<'_>, to: &Path, how: &How) -> Result<()> {
        let path = text_of(to)?;
        match entry {
            Entry::Disk(disk) => {
                let target = ImageTarget {
                    path: path.clone(),
                    format: how.format.clone(),
                    overwrite: how.overwrite,
                };
                let request = Q::RestoreDisk {
                    point: point.id,
                    disk: disk.name.clone(),
                    target,
                };
                let report = self.follow(request)?;
                let Some(TaskEnd::Restored { root }) = report.end else {
                    return Err(unexpected(&report));
                };
                let read = report.counters.read;
                self.extracted(&path, disk.size, Some((root.to_string(), read)))
            }
            small => {
                let bytes = self.small_file(point, small)?;
                if how.overwrite {
                    self.ask(Q::RemoveHostFiles {
                        paths: vec![path.clone()],
                    })?;
                }
                paging::write_host_file(|request| self.ask(request.clone()), &path, &bytes)?;
                self.extracted(&path, ByteCount(bytes.len() as u64), None)
            }
        }
    }

    fn extracted(
        &self,
        path: &str,
        size: ByteCount,
        disk: Option<(String, ByteCount)>,
    ) -> Result<()> {
        if self.json {
            let (root, read) = disk.unzip();
            return show::json(&serde_json::json!({
                "path": path, "size": size, "root": root, "read": read,
            }));
        }
        match disk {
            Some((root, read)) => {
                show::text(&format!("{path}  {size}, {read} of data, root {root}"))
            }
            None => show::text(&format!("{path}  {size}")),
        }
    }

    fn verify(&self, wanted: Option<&str>, read_data: bool) -> Result<()> {
        let points = self.all_points()?;
        let point = wanted.map(|text| place::point(&points, text)).transpose()?;
        let report = self.follow(Q::Verify {
            point: point.map(|point| point.id),
            read_data,
        })?;
        let Some(TaskEnd::Verified {
            whole,
            blocks,
            damages,
        }) = report.end
        else {
            return Err(unexpected(&report));
        };
        if self.json {
            show::json(&serde_json::json!({
                "whole": whole, "blocks": blocks, "damages": damages,
                "read": report.counters.read,
            }))?;
        } else {
            for damage in &damages {
                show::text(&show::damage_line(damage))?;
            }
            show::text(&format!(
                "{} points whole, {blocks} blocks checked",
                whole.len()
            ))?;
        }
        if damages.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(
            "mover.client.damage",
            format!(
                "{} things in the repository are not as they were written",
                damages.len()
            ),
        )
        .hint("restore what is whole; keep the disk as it is and make a copy before any repair"))
    }

    /// Starts a task and waits for its end, showing how far it is to a person who watches.
    fn follow(&self, request: Q) -> Result<TaskReport> {
        let number: TaskNumber = match self.ask(request)? {
            A::Started(number) => number,
            other => return Err(unexpected(&other)),
        };
        let watched = std::io::stderr().is_terminal() && !self.json;
        loop {
            let look = Q::Progress {
                task: number,
                wait_millis: LOOK_MILLIS,
            };
            let A::Task(report) = self.ask(look)? else {
                return Err(Error::new(
                    Kind::Bug,
                    "mover.client.answer",
                    "an answer does not fit",
                ));
            };
            if watched {
                let counters = &report.counters;
                eprint!("\r{} of {} ", counters.done, counters.processed);
                drop(std::io::stderr().flush());
            }
            match report.end {
                None => {}
                Some(TaskEnd::Failed {
                    kind,
                    code,
                    message,
                    hint,
                }) => {
                    let error = Error::new(kind, code, message);
                    return Err(match hint {
                        Some(hint) => error.hint(hint),
                        None => error,
                    });
                }
                Some(_) => {
                    if watched {
                        eprint!("\r\u{1b}[K");
                    }
                    return Ok(*report);
                }
            }
        }
    }
}

/// How to extract.
struct How {
    format: String,
    overwrite: bool,
}

/// An absolute path as text.
fn text_of(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::io(format!("resolving {}", path.display()), error))?;
    absolute.into_os_string().into_string().map_err(|path| {
        Error::invalid(
            "mover.client.path",
            format!("{} is not valid UTF-8", Path::new(&path).display()),
        )
    })
}

fn unexpected(answer: &impl Debug) -> Error {
    let shown: String = format!("{answer:?}").chars().take(200).collect();
    Error::new(
        Kind::Bug,
        "mover.client.answer",
        format!("an answer does not fit: {shown}"),
    )
}
