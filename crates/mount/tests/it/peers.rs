//! Other people's NBD programs, started for one test each.

use base::random::{Random, SeededRandom};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder for one test, gone with it.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("mount-nbd-")
        .tempdir()
        .unwrap()
}

/// Runs a program to its end and returns what it printed; panics where it fails.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let output = command(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| missing(program, &error));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} failed: {text}{errors}");
    text
}

/// Runs a program that must fail and returns what it complained of.
pub fn run_failing<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let output = command(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| missing(program, &error));
    assert!(!output.status.success(), "{program} should have failed");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn missing(program: &str, error: &std::io::Error) -> ! {
    let package = match program {
        "qemu-nbd" | "qemu-img" | "qemu-io" => "qemu-utils",
        "nbdinfo" | "nbdcopy" => "libnbd-bin",
        other => other,
    };
    panic!("{program} cannot be run ({error}): install the Debian package {package}");
}

/// A server in a process of its own, ended with the test.
pub struct Server {
    child: Child,
    pub socket: PathBuf,
}

impl Server {
    fn start(program: &str, socket: PathBuf, arguments: &[&OsStr]) -> Self {
        let child = command(program).args(arguments).spawn();
        let child = child.unwrap_or_else(|error| missing(program, &error));
        let mut server = Self { child, socket };
        let patience = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(&server.socket).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{program} ended at once: {ended:?}");
            assert!(Instant::now() < patience, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// `qemu-nbd` that exports `image` as `vda`.
    pub fn qemu_nbd(folder: &Path, image: &Path, options: &[&str]) -> Self {
        let socket = folder.join("qemu.sock");
        let mut arguments: Vec<&OsStr> = ["-t", "-e", "8", "-x", "vda", "-k"]
            .iter()
            .map(OsStr::new)
            .collect();
        arguments.push(socket.as_os_str());
        arguments.extend(options.iter().map(OsStr::new));
        arguments.push(image.as_os_str());
        Self::start("qemu-nbd", socket.clone(), &arguments)
    }

    /// `nbdkit` with one plugin and its parameters.
    pub fn nbdkit(folder: &Path, options: &[&str]) -> Self {
        let socket = folder.join("nbdkit.sock");
        let mut arguments: Vec<&OsStr> = ["-f", "-U"].iter().map(OsStr::new).collect();
        arguments.push(socket.as_os_str());
        arguments.extend(options.iter().map(OsStr::new));
        Self::start("nbdkit", socket.clone(), &arguments)
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that look like a disk: runs of random bytes and runs of zeros, from a seed.
pub fn disk_bytes(seed: u64, length: usize) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    let mut bytes = vec![0; length];
    for run in bytes.chunks_mut(64 * 1024) {
        if !random.one_in(3) {
            random.fill(run);
        }
    }
    bytes
}
