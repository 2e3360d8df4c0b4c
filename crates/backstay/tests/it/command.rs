//! Runs a program to its end, with a deadline.
//!
//! Knows: exit codes, what was written, and that a program which hangs is ended and fails the test.
//! Refuses to know: what the program is for.

use serde_json::Value;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any command of these tests may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What a program left behind.
#[derive(Debug)]
pub struct Ended {
    /// What was run, for messages.
    pub line: String,
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Asserts the exit code; what was written to standard output.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON: {error}\n{self}"))
    }

    /// Standard output as JSON values, one a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("no JSON: {error}: {line}\n{self}"))
        };
        self.out.lines().map(parse).collect()
    }

    /// The error that a command with `--json` wrote: the last line of standard error.
    #[track_caller]
    pub fn json_error(&self) -> Value {
        let last = self.err.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("no JSON error: {error}\n{self}"));
        value["error"].clone()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            line,
            code,
            out,
            err,
        } = self;
        write!(
            f,
            "{line}\n  ended with {code:?}\n  out: {out}\n  err: {err}"
        )
    }
}

/// Runs a command to its end. Its output goes to files in `scratch`, so that no full pipe can stop
/// it.
#[track_caller]
pub fn run(command: &mut Command, scratch: &Path) -> Ended {
    let line = format!("{command:?}");
    let [out, err] = ["out", "err"].map(|end| {
        let file = tempfile::Builder::new().prefix(end).tempfile_in(scratch);
        file.unwrap().into_temp_path()
    });
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap_or_else(|error| panic!("{line}: {error}: is it installed?"));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            let err = std::fs::read_to_string(&err).unwrap_or_default();
            panic!("{line} did not end within {PATIENCE:?}: {err}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let ended = Ended {
        line,
        code: status.code(),
        out: text(&out),
        err: text(&err),
    };
    assert!(!ended.err.contains("panicked at"), "{ended}");
    assert!(!status.core_dumped(), "{ended}");
    ended
}

/// Waits until something is so. `what` says it in the message of a failure.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut so: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(state) = so() {
        assert!(
            begun.elapsed() < within,
            "{what}: not within {within:?}: {state}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
