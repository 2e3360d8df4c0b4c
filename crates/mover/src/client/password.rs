//! Asking a person for a password.
//!
//! Knows: the environment, a file, and the terminal with its echo switched off. Refuses to know:
//! what the password opens.

use base::{Error, Kind, Result};
use protocol::words::secret::Secret;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

/// The variable that may hold it.
const VARIABLE: &str = "BACKSTAY_PASSWORD";
/// The longest password, in bytes.
const LENGTH_MAX: u64 = 4096;

/// The password that was given without asking: by file, else by the environment.
///
/// # Errors
/// Of the file.
pub fn given(file: Option<&Path>) -> Result<Option<Secret>> {
    match file {
        Some(path) => {
            let failed = |error| Error::io(format!("reading {}", path.display()), error);
            let file = File::open(path).map_err(failed)?;
            first_line(file).map(Some).map_err(failed)
        }
        None => Ok(std::env::var(VARIABLE).ok().map(Secret::new)),
    }
}

/// Asks at the terminal. What is typed is not shown.
///
/// # Errors
/// `Denied` (`mover.client.no-terminal`) where there is no terminal to ask at.
pub fn ask(question: &str) -> Result<Secret> {
    let failed = |error: std::io::Error| {
        Error::new(
            Kind::Denied,
            "mover.client.no-terminal",
            "the repository needs a password and there is no terminal to ask for it at",
        )
        .hint(format!("use --password-file, or set {VARIABLE}"))
        .caused_by(error)
    };
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(failed)?;
    write!(terminal, "{question}: ").map_err(failed)?;
    let silence = Silence::new(&terminal).map_err(|error| failed(error.into()))?;
    let typed = terminal.try_clone().and_then(first_line);
    drop(silence);
    drop(writeln!(terminal));
    typed.map_err(failed)
}

fn first_line(source: impl Read) -> std::io::Result<Secret> {
    let mut line = String::new();
    BufReader::new(source.take(LENGTH_MAX)).read_line(&mut line)?;
    while line.ends_with(['\n', '\r']) {
        line.pop();
    }
    Ok(Secret::new(line))
}

/// The terminal shows nothing that is typed until this is dropped.
struct Silence<'a> {
    terminal: &'a File,
    before: rustix::termios::Termios,
}

impl<'a> Silence<'a> {
    fn new(terminal: &'a File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // Nothing can be done where the terminal is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
