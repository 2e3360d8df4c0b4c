//! The `backstay` program as a person uses it: by its command line.
//!
//! Knows: the words of the command line that the demonstration types, and where the figures stand
//! in its JSON.
//! Refuses to know: anything of Backstay's inside. The demonstration links none of it.

use crate::command::{Run, stop};
use crate::lab::make_folder;
use crate::marked::Mark;
use crate::step::detail;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use serde_json::Value;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

const READY_DEADLINE: Duration = Duration::from_secs(60);
const CALL_DEADLINE: Duration = Duration::from_secs(120);
const RUN_DEADLINE: Duration = Duration::from_secs(3_600);

/// Exit code of a session that ended with something a person should know.
const WARNINGS: i32 = 11;

/// A running `backstay up` with an empty state of its own; stopped when dropped, with all that it
/// started.
pub struct Site {
    program: PathBuf,
    state: PathBuf,
    server: Child,
    mark: Mark,
}

/// The figures of one run.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    /// How the session ended: `success`, `warning`, …
    pub state: String,
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes that the change tracker marked.
    pub changed: u64,
    /// Bytes handed to the target.
    pub transferred: u64,
    /// Bytes that were new to the repository, as stored.
    pub stored: u64,
    /// How long it took.
    pub time: Duration,
}

/// A restore point.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its id.
    pub id: String,
    /// Its first disk's name in the machine.
    pub disk: String,
}

impl Site {
    /// Starts `backstay up`, marked, and waits until it says that it is ready.
    pub fn up(program: &Path, state: &Path, mark: Mark, cancel: &Cancel) -> Result<Self> {
        make_folder(state)?;
        let log = state.join("up.log");
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| Error::io(format!("making {}", path.display()), error))
        };
        let mut run = mark
            .on(Run::new(program).args(["up", "--state"]))
            .arg(state.join("site"))
            .args([
                "--listen",
                &free_address()?,
                "--mover-listen",
                &free_address()?,
            ]);
        run.command().stdout(open(&log)?).stderr(open(&log)?);
        let server = run.start()?;
        let mut site = Self {
            program: program.to_owned(),
            state: state.to_owned(),
            server,
            mark,
        };
        site.wait_until_ready(&log, cancel)?;
        Ok(site)
    }

    fn wait_until_ready(&mut self, log: &Path, cancel: &Cancel) -> Result<()> {
        let started = Instant::now();
        loop {
            cancel.check()?;
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if said.lines().any(|line| line.contains("ready")) {
                return Ok(());
            }
            let ended = matches!(self.server.try_wait(), Ok(Some(_)) | Err(_));
            if ended || started.elapsed() > READY_DEADLINE {
                let why = if ended {
                    "ended at once"
                } else {
                    "does not become ready"
                };
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
                return Err(Error::new(
                    Kind::Unreachable,
                    "xtask.demo.up",
                    format!("`backstay up` {why}: {last}"),
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The program file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What all its processes carry.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// What a person types to talk to this site.
    pub fn prompt(&self) -> String {
        format!(
            "{} --site {}",
            self.program.display(),
            self.state.join("site").display()
        )
    }

    /// What a person types to open a repository's folder without any server.
    pub fn client_prompt(&self, repository: &Path) -> String {
        format!(
            "{} client --password-file {} {}",
            self.program.display(),
            self.state.join("password").display(),
            repository.display()
        )
    }

    fn run(&self, words: &[&str]) -> Run {
        Run::new(&self.program)
            .arg("--site")
            .arg(self.state.join("site"))
            .args(words)
    }

    /// Runs a command that watches a session to its end, and shows what it prints.
    fn watch(&self, run: Run, cancel: &Cancel) -> Result<Duration> {
        let started = Instant::now();
        let status = run
            .deadline(RUN_DEADLINE)
            .lines(cancel, |line| detail(line))?;
        if status.success() || status.code() == Some(WARNINGS) {
            return Ok(started.elapsed());
        }
        Err(Error::new(
            Kind::Io,
            "xtask.demo.session",
            format!("the session did not end well ({status}); what it said stands above"),
        ))
    }

    fn call(&self, words: &[&str], cancel: &Cancel) -> Result<String> {
        Ok(self
            .run(words)
            .deadline(CALL_DEADLINE)
            .capture(cancel)?
            .text())
    }

    fn json(&self, words: &[&str], cancel: &Cancel) -> Result<Value> {
        let mut words = words.to_vec();
        words.push("--json");
        let text = self.call(&words, cancel)?;
        serde_json::from_str(&text).map_err(|error| {
            let command = words.join(" ");
            Error::corrupt(
                "xtask.demo.words",
                format!("`backstay {command}` printed no JSON"),
            )
            .caused_by(error)
        })
    }

    /// Makes an encrypted repository in a folder, and waits until it is there.
    pub fn create_repository(&self, name: &str, folder: &Path, cancel: &Cancel) -> Result<()> {
        let password = self.state.join("password");
        std::fs::write(&password, "a demonstration is no secret\n")
            .map_err(|error| Error::io("writing the password file", error))?;
        let [folder, password] = [folder, &password].map(|p| p.to_string_lossy().into_owned());
        let words = [
            "repository",
            "create",
            name,
            "--path",
            &folder,
            "--password-file",
            &password,
        ];
        self.watch(self.run(&words), cancel).map(drop)
    }

    /// Makes a job for one machine of the system's hypervisor.
    pub fn create_machine_job(
        &self,
        name: &str,
        machine: &str,
        repository: &str,
        cancel: &Cancel,
    ) -> Result<()> {
        let words = [
            "job",
            "create",
            name,
            "--machine",
            machine,
            "--repository",
            repository,
        ];
        self.call(&words, cancel).map(drop)
    }

    /// Makes a job for one disk image; its machine has the job's name.
    pub fn create_image_job(
        &self,
        name: &str,
        image: &Path,
        repository: &str,
        cancel: &Cancel,
    ) -> Result<()> {
        let image = format!("{name}={}", image.display());
        let words = [
            "job",
            "create",
            name,
            "--image",
            &image,
            "--repository",
            repository,
        ];
        self.call(&words, cancel).map(drop)
    }

    /// Runs a job to its end, shown live, and hands back its figures.
    pub fn run_job(&self, name: &str, cancel: &Cancel) -> Result<Figures> {
        let time = self.watch(self.run(&["job", "run", name, "--follow"]), cancel)?;
        let sessions = self.json(&["session", "list", "--job", name, "--limit", "1"], cancel)?;
        figures(&sessions[0], time)
    }

    /// The points of a machine, oldest first.
    pub fn points(&self, machine: &str, cancel: &Cancel) -> Result<Vec<Point>> {
        let list = self.json(&["point", "list", "--machine", machine], cancel)?;
        let mut points = list
            .as_array()
            .into_iter()
            .flatten()
            .map(point)
            .collect::<Result<Vec<_>>>()?;
        points.reverse();
        Ok(points)
    }

    /// Restores a point as a new machine, its disks in `folder`.
    pub fn restore_machine(
        &self,
        point: &Point,
        name: &str,
        folder: &Path,
        cancel: &Cancel,
    ) -> Result<Duration> {
        let words = ["restore", "machine", &point.id, "--name", name, "--folder"];
        self.watch(self.run(&words).arg(folder), cancel)
    }

    /// Restores the first disk of a point into a raw file.
    pub fn restore_disk(&self, point: &Point, file: &Path, cancel: &Cancel) -> Result<Duration> {
        let words = [
            "restore",
            "disk",
            &point.id,
            &point.disk,
            "--format",
            "raw",
            "--to",
        ];
        self.watch(self.run(&words).arg(file), cancel)
    }

    /// Reads and checks every stored byte of a repository.
    pub fn verify(&self, repository: &str, cancel: &Cancel) -> Result<()> {
        self.watch(self.run(&["verify", repository, "--read-data"]), cancel)
            .map(drop)
    }

    /// Takes the first disk of a point out of a repository's folder, without any server or state.
    pub fn extract(
        &self,
        repository: &Path,
        point: &Point,
        file: &Path,
        cancel: &Cancel,
    ) -> Result<()> {
        let disk = format!("{}/disks/{}.raw", point.id, point.disk);
        let run = Run::new(&self.program)
            .args(["client", "--site", "/nonexistent", "--password-file"])
            .arg(self.state.join("password"))
            .arg(repository)
            .args(["extract", &disk, "-o"])
            .arg(file);
        self.watch(run, cancel).map(drop)
    }

    /// Leaves it running.
    pub fn stay_up(self) {
        // The child is not waited for; it lives on when this program ends.
        let _ = std::mem::ManuallyDrop::new(self);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        stop(&mut self.server, true);
        // Managers and agents outlive their server by design.
        self.mark.end();
    }
}

/// An address of this machine that nobody listens on now.
fn free_address() -> Result<String> {
    let failed = |error| Error::io("looking for a free port", error);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.to_string())
}

fn figures(session: &Value, time: Duration) -> Result<Figures> {
    let counters = &session["counters"];
    let number = |name: &str| {
        counters[name].as_u64().ok_or_else(|| {
            Error::corrupt(
                "xtask.demo.words",
                format!("a session has no counter \u{201c}{name}\u{201d}"),
            )
        })
    };
    let state = session["state"].as_str().unwrap_or("unknown").to_owned();
    if state != "success" && state != "warning" {
        return Err(Error::new(
            Kind::Bug,
            "xtask.demo.session",
            format!("the run ended with \u{201c}{state}\u{201d}"),
        ));
    }
    Ok(Figures {
        state,
        read: number("read")?,
        changed: number("changed")?,
        transferred: number("transferred")?,
        stored: number("stored")?,
        time,
    })
}

fn point(value: &Value) -> Result<Point> {
    let malformed = || Error::corrupt("xtask.demo.words", "a point has no id or no disk");
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(malformed);
    Ok(Point {
        id: text(&value["id"])?,
        disk: text(&value["disks"][0]["name"])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_read_and_a_failed_run_is_an_error() {
        let counters = json!({ "read": 1, "changed": 2, "transferred": 3, "stored": 4 });
        let good = figures(
            &json!({ "state": "warning", "counters": counters }),
            Duration::ZERO,
        );
        assert_eq!(good.unwrap().stored, 4);
        let bad = figures(
            &json!({ "state": "failed", "counters": counters }),
            Duration::ZERO,
        );
        assert_eq!(bad.err().unwrap().code(), "xtask.demo.session");
        let none = figures(
            &json!({ "state": "success", "counters": {} }),
            Duration::ZERO,
        );
        assert_eq!(none.err().unwrap().code(), "xtask.demo.words");
    }
}
