//! A site of its own for a test: `backstay up` in a fresh folder, and the command line beside it.
//!
//! Knows: how it is started, asked, killed and ended, and that nothing of it may outlive the test.
//! Refuses to know: what is backed up.

use crate::command::{self, Ended, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_backstay");
/// How long what a crash left may stay.
pub const SETTLED: Duration = Duration::from_secs(60);

/// A running site.
pub struct Site {
    /// Everything of the test lies in here.
    folder: tempfile::TempDir,
    server: u16,
    mover: u16,
    agents: (u16, u16),
    up: Option<Child>,
    /// The file that `up` is started from.
    pub program: PathBuf,
}

/// A process of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// `server`, `mover`, `manager`, `agent` or `up`.
    pub role: String,
    /// Its command line.
    pub line: Vec<String>,
}

impl Site {
    /// Starts a site.
    pub fn up() -> Self {
        let mut site = Self::not_up();
        site.start();
        site
    }

    /// A folder and ports for a site that does not run yet.
    pub fn not_up() -> Self {
        static AGENTS: AtomicU16 = AtomicU16::new(0);
        let folder = tempfile::Builder::new()
            .prefix("backstay-it-")
            .tempdir()
            .unwrap();
        let (server, mover) = free_ports();
        let from = 12_000 + AGENTS.fetch_add(1, Ordering::Relaxed) % 100 * 100;
        Self {
            folder,
            server,
            mover,
            agents: (from, from + 99),
            up: None,
            program: PROGRAM.into(),
        }
    }

    /// Starts it (again) and waits until it says that it is ready.
    pub fn start(&mut self) {
        assert!(self.up.is_none());
        let said = self.path("up.out");
        let mut command = Command::new(&self.program);
        command.arg("up").arg("--state").arg(self.state());
        command.args(["--listen", &self.server_address()]);
        command.args(["--mover-listen", &format!("127.0.0.1:{}", self.mover)]);
        command.args([
            "--agent-ports",
            &format!("{}-{}", self.agents.0, self.agents.1),
        ]);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("up.err"))
            .unwrap();
        let child = clean(&mut command)
            .stdin(Stdio::null())
            .stdout(File::create(&said).unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.up = Some(child);
        wait_until("backstay up is ready", Duration::from_secs(60), || {
            let text = std::fs::read_to_string(&said).unwrap();
            if text.starts_with("ready: ") {
                return Ok(());
            }
            let ended = self.up.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "up ended: {ended:?}: {}", self.log());
            Err(text)
        });
    }

    /// Ends it as Ctrl-C or an init system does, and sees to it that nothing stays.
    pub fn end(&mut self) {
        let mut up = self.up.take().unwrap();
        kill(up.id(), Signal::TERM);
        wait_until("backstay up ends", Duration::from_secs(30), || {
            up.try_wait()
                .unwrap()
                .map(|_| ())
                .ok_or_else(|| "it runs".to_owned())
        });
        let status = up.wait().unwrap();
        assert!(status.success(), "up ended with {status}: {}", self.log());
        wait_until("all processes are gone", Duration::from_secs(40), || {
            let left = self.processes();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
    }

    /// Kills the supervisor itself.
    pub fn kill_up(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Where the server listens.
    pub fn server_address(&self) -> String {
        format!("127.0.0.1:{}", self.server)
    }

    /// What the roles wrote on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("up.err")).unwrap_or_default()
    }

    /// What they wrote after so many bytes.
    pub fn log_from(&self, offset: u64) -> String {
        let mut file = File::open(self.path("up.err")).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A command of the site, not started yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        clean(&mut command)
            .args(words)
            .arg("--site")
            .arg(self.state());
        command
    }

    /// Runs a command.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Ended {
        command::run(&mut self.command(words), self.folder.path())
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> Ended {
        let ended = self.run(words);
        assert_eq!(ended.code, Some(0), "{ended}\n{}", self.log());
        ended
    }

    /// Runs a command with `--json` that must succeed; its answer.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        self.ok(&[words, &["--json"]].concat()).json()
    }

    /// Runs `backstay client` on a repository, without the site.
    #[track_caller]
    pub fn client(&self, repository: &Path, password: Option<&Path>, words: &[&str]) -> Ended {
        let mut command = Command::new(PROGRAM);
        clean(&mut command).arg("client");
        if let Some(password) = password {
            command.arg("--password-file").arg(password);
        }
        command.arg(repository).args(words);
        command::run(&mut command, self.folder.path())
    }

    /// Makes a repository without encryption; its folder.
    pub fn repository(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        let path = folder.to_str().unwrap();
        self.ok(&[
            "repository",
            "create",
            name,
            "--path",
            path,
            "--no-encryption",
        ]);
        folder
    }

    /// A password file.
    pub fn password(&self, name: &str, password: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, format!("{password}\n")).unwrap();
        path
    }

    /// Makes a job for one machine of these images.
    pub fn job(&self, name: &str, repository: &str, machine: &str, images: &[&Path]) {
        let files: Vec<&str> = images.iter().map(|path| path.to_str().unwrap()).collect();
        let image = format!("{machine}={}", files.join(","));
        self.ok(&[
            "job",
            "create",
            name,
            "--repository",
            repository,
            "--image",
            &image,
        ]);
    }

    /// Runs a job to its successful end; the session.
    #[track_caller]
    pub fn back_up(&self, job: &str) -> Value {
        let ended = self.ok(&["job", "run", job, "--follow", "--json"]);
        let last = ended.json_lines().pop().expect("a session");
        assert_eq!(last["session"]["state"], "success", "{ended}");
        last["session"].clone()
    }

    /// Ids of the points, newest first.
    #[track_caller]
    pub fn points(&self) -> Vec<String> {
        let points = self.json(&["point", "list"]);
        let id = |point: &Value| point["id"].as_str().unwrap().to_owned();
        points.as_array().unwrap().iter().map(id).collect()
    }

    /// Restores a disk to a fresh file.
    #[track_caller]
    pub fn restore(&self, point: &str, disk: &str, to: &str, format: &str) -> PathBuf {
        let path = self.path(to);
        let text = path.to_str().unwrap();
        self.ok(&[
            "restore", "disk", point, disk, "--to", text, "--format", format,
        ]);
        path
    }

    /// The living processes of this site's roles.
    pub fn processes(&self) -> Vec<Process> {
        let mut found = Vec::new();
        for (pid, line) in self.command_lines() {
            let roles = ["up", "server", "mover", "manager", "agent"];
            let role = line
                .iter()
                .skip(1)
                .find(|word| roles.contains(&word.as_str()))
                .cloned();
            if let Some(role) = role {
                found.push(Process { pid, role, line });
            }
        }
        found
    }

    /// All that is this site's, by command lines: each names the state folder.
    fn command_lines(&self) -> Vec<(u32, Vec<String>)> {
        let state = self.state().to_str().unwrap().to_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // Gone in the meantime, or a zombie: an empty command line.
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let line: Vec<String> = line.split(|byte| *byte == 0).map(word).collect();
            let is_backstay = line
                .first()
                .is_some_and(|program| program.ends_with("backstay"));
            if is_backstay && line.iter().any(|word| word.starts_with(&state)) {
                found.push((pid, line));
            }
        }
        found
    }

    /// The living processes of a role.
    pub fn of_role(&self, role: &str) -> Vec<u32> {
        let of_role = |process: &Process| (process.role == role).then_some(process.pid);
        self.processes().iter().filter_map(of_role).collect()
    }

    /// The agent that writes the point of a machine.
    pub fn writer_of(&self, machine: &str) -> Option<u32> {
        let purpose = format!("--purpose={machine}");
        let found = self
            .processes()
            .into_iter()
            .find(|process| process.line.contains(&purpose));
        found.map(|process| process.pid)
    }

    /// How many commands follow a session.
    pub fn watchers(&self, session: &str) -> usize {
        let commands = self.command_lines();
        let follows = |(_, line): &&(u32, Vec<String>)| {
            line.iter().any(|word| word == "follow") && line.iter().any(|word| word == session)
        };
        commands.iter().filter(follows).count()
    }

    /// Waits until no session is at work and no manager and no agent lives.
    #[track_caller]
    pub fn settle(&self) {
        wait_until("nothing is left of a crash", SETTLED, || {
            let listed = self.run(&["session", "list", "--limit", "5", "--json"]);
            if listed.code != Some(0) {
                return Err(listed.to_string());
            }
            for session in listed.json().as_array().unwrap() {
                if !is_final(&session["state"]) {
                    return Err(session.to_string());
                }
            }
            let busy: Vec<Process> = self
                .processes()
                .into_iter()
                .filter(|process| process.role == "manager" || process.role == "agent")
                .collect();
            if busy.is_empty() {
                Ok(())
            } else {
                Err(format!("{busy:?}"))
            }
        });
    }
}

impl Drop for Site {
    /// What a failed test leaves is killed, by number, and only what is of this very site.
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
        for process in self.processes() {
            kill(process.pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("--- what the roles said\n{}", self.log());
        }
    }
}

/// Whether a session in this state has ended.
pub fn is_final(state: &Value) -> bool {
    ["success", "warning", "failed", "stopped"]
        .iter()
        .any(|name| state == name)
}

/// Sends a signal to a process of ours; nothing happens where it is gone.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The variables of whoever runs the tests are none of theirs.
fn clean(command: &mut Command) -> &mut Command {
    for variable in [
        "BACKSTAY_STATE",
        "BACKSTAY_SERVER",
        "BACKSTAY_PASSWORD",
        "BACKSTAY_LOG",
    ] {
        command.env_remove(variable);
    }
    command
}

/// Two ports that were free a moment ago, below those that outgoing links take.
fn free_ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 8000).unwrap();
    let mut free = (0..9000).filter_map(|_| {
        let port = 23_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 9000;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    });
    (
        free.next().expect("a free port"),
        free.next().expect("another free port"),
    )
}
