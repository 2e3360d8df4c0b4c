//! Running other programs.
//!
//! Knows: how to start one, wait for it with a deadline, stop it and everything it started when
//! somebody asks to stop, and what to say when it fails.
//! Refuses to know: what any program is for.
//!
//! Every program runs in its own process group. A Ctrl-C in the terminal therefore reaches this
//! program alone, which then stops its children in the right order instead of all dying at once.

use base::cancel::Cancel;
use base::{Error, Kind, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(15);
/// What a program gets between the polite signal and the last one.
const GRACE: Duration = Duration::from_secs(5);
/// Most bytes kept of one output stream; what comes after is read and dropped.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Most bytes of an error stream that are repeated in a message.
const SHOWN_BYTES_MAX: usize = 2_000;

/// A program about to be run.
pub struct Run {
    command: Command,
    name: String,
    deadline: Option<Duration>,
    hint: Option<String>,
    own_group: bool,
}

/// What a program said.
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub output: Vec<u8>,
    /// What it wrote to standard error.
    pub errors: Vec<u8>,
}

impl Said {
    /// Standard output as text, without the space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).trim().to_owned()
    }

    /// Standard error as text, its end only if it is long.
    pub fn complaint(&self) -> String {
        let from = self.errors.len().saturating_sub(SHOWN_BYTES_MAX);
        String::from_utf8_lossy(&self.errors[from..])
            .trim()
            .to_owned()
    }
}

impl Run {
    /// The program `name`, found by `PATH`.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(name.as_ref());
        command.stdin(Stdio::null());
        Self {
            command,
            name: name.as_ref().to_string_lossy().into_owned(),
            deadline: None,
            hint: None,
            own_group: true,
        }
    }

    /// The cargo that runs this program, in the root of the workspace.
    pub fn cargo() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut run = Self::new(cargo).within(crate::workspace::root());
        "cargo".clone_into(&mut run.name);
        run
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The folder to run in.
    #[must_use]
    pub fn within(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// The longest it may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// What a person can do when it fails.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Stays in the terminal's foreground group and may read from it (a password prompt).
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.own_group = false;
        self.command.stdin(Stdio::inherit());
        self
    }

    /// Runs it with its output going where ours goes. An exit code other than 0 is an error.
    pub fn show(mut self, cancel: &Cancel) -> Result<()> {
        let mut child = self.spawn()?;
        let status = self.wait(&mut child, cancel)?;
        self.judge(status, "")
    }

    /// Runs it and keeps what it says. An exit code other than 0 is an error.
    pub fn capture(self, cancel: &Cancel) -> Result<Said> {
        let (run, said) = self.collect(cancel)?;
        run.judge(said.status, &said.complaint())?;
        Ok(said)
    }

    /// Runs it and keeps what it says, whatever the exit code.
    pub fn try_capture(self, cancel: &Cancel) -> Result<Said> {
        self.collect(cancel).map(|(_, said)| said)
    }

    /// Runs it and hands each line of its standard output to `each` as it comes; its standard
    /// error goes where ours goes. The exit status is handed back, not judged.
    pub fn lines(mut self, cancel: &Cancel, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
        use std::io::BufRead;
        self.command.stdout(Stdio::piped());
        let mut child = self.spawn()?;
        let stdout = child.stdout.take();
        let (send, receive) = std::sync::mpsc::sync_channel::<String>(1_024);
        let reader = std::thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            let mut stdout = std::io::BufReader::new(stdout);
            let mut line = Vec::new();
            while matches!(stdout.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned();
                if send.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let started = Instant::now();
        loop {
            match receive.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => each(&line),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.may_go_on(started, cancel) {
                        stop(&mut child, self.own_group);
                        drop(receive);
                        let _ = reader.join();
                        return Err(error);
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        let _ = reader.join();
        self.wait(&mut child, cancel)
    }

    /// Starts it and leaves it running; whoever asked must wait for it.
    pub fn start(mut self) -> Result<Child> {
        self.spawn()
    }

    /// The command itself, for redirecting its streams.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    fn spawn(&mut self) -> Result<Child> {
        if self.own_group {
            self.command.process_group(0);
        }
        self.command.spawn().map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let error = Error::io(format!("starting {}", self.name), error);
            if missing {
                error.hint(format!("install the package that brings `{}`", self.name))
            } else {
                error
            }
        })
    }

    fn collect(mut self, cancel: &Cancel) -> Result<(Self, Said)> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn()?;
        let output = drain(child.stdout.take());
        let errors = drain(child.stderr.take());
        let status = self.wait(&mut child, cancel);
        let output = output.join().unwrap_or_default();
        let errors = errors.join().unwrap_or_default();
        Ok((
            self,
            Said {
                status: status?,
                output,
                errors,
            },
        ))
    }

    fn wait(&self, child: &mut Child, cancel: &Cancel) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            let ended = child.try_wait();
            match ended.map_err(|e| Error::io(format!("waiting for {}", self.name), e))? {
                Some(status) => return Ok(status),
                None => std::thread::sleep(POLL),
            }
            if let Err(error) = self.may_go_on(started, cancel) {
                stop(child, self.own_group);
                return Err(error);
            }
        }
    }

    fn may_go_on(&self, started: Instant, cancel: &Cancel) -> Result<()> {
        cancel.check()?;
        match self.deadline {
            Some(deadline) if started.elapsed() > deadline => Err(Error::new(
                Kind::Timeout,
                "xtask.command.timeout",
                format!("{} did not end within {} s", self.name, deadline.as_secs()),
            )),
            _ => Ok(()),
        }
    }

    fn judge(&self, status: ExitStatus, complaint: &str) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let arguments: Vec<_> = self
            .command
            .get_args()
            .take(4)
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let mut text = format!("`{} {}` failed ({status})", self.name, arguments.join(" "));
        if !complaint.is_empty() {
            text = format!("{text}: {complaint}");
        }
        let error = Error::new(Kind::Io, "xtask.command.failed", text);
        Err(match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        })
    }
}

/// Asks a program to end, and everything in its group; after a while makes it end.
pub fn stop(child: &mut Child, group: bool) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    send(pid, group, Signal::TERM);
    let asked = Instant::now();
    while asked.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(POLL);
    }
    // Also when the program itself has ended: what it started may not have listened.
    send(pid, group, Signal::KILL);
    let _ = child.wait();
}

fn send(pid: Option<Pid>, group: bool, signal: Signal) {
    // The program may be gone already; then there is nothing to signal.
    let _ = match pid {
        Some(pid) if group => kill_process_group(pid, signal),
        Some(pid) => rustix::process::kill_process(pid, signal),
        None => Ok(()),
    };
}

fn drain(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let Some(mut stream) = stream else {
            return kept;
        };
        let mut piece = vec![0; 64 << 10];
        while let Ok(n) = stream.read(&mut piece) {
            if n == 0 {
                break;
            }
            let room = KEPT_BYTES_MAX.saturating_sub(kept.len()).min(n);
            kept.extend_from_slice(&piece[..room]);
        }
        kept
    })
}

/// Whether a program of this name can be found by `PATH` or in the folders of the administrator.
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrator = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(administrator)
        .any(|folder| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_repeats_what_the_program_said() {
        let error = Run::new("sh")
            .args(["-c", "echo no such tape >&2; exit 3"])
            .capture(&Cancel::new())
            .err()
            .unwrap();
        assert_eq!(error.code(), "xtask.command.failed");
        assert!(error.message().contains("no such tape"), "{error}");
    }

    #[test]
    fn a_deadline_stops_the_program_and_what_it_started() {
        let started = Instant::now();
        let error = Run::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .deadline(Duration::from_millis(200))
            .capture(&Cancel::new())
            .err()
            .unwrap();
        assert_eq!(error.kind(), Kind::Timeout);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_request_to_stop_is_honoured() {
        let cancel = Cancel::new();
        cancel.cancel();
        let error = Run::new("sleep").arg("60").show(&cancel).err().unwrap();
        assert_eq!(error.kind(), Kind::Cancelled);
    }

    #[test]
    fn lines_come_in_order() {
        let mut lines = Vec::new();
        let status = Run::new("sh")
            .args(["-c", "echo one; echo two; exit 4"])
            .lines(&Cancel::new(), |line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(status.code(), Some(4));
    }
}
