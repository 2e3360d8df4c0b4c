//! Starts the manager of a session as a process of its own, and tells whether it lives.
//!
//! Knows: processes of this host. Refuses to know: what a manager does.
//!
//! A manager is not a child in spirit: it outlives a server that is restarted and comes back to it.
//! So it gets a process group of its own and is recognised again by its process id *and* its
//! command line, since ids are used again.

use base::id::SessionId;
use base::{Error, Result};
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// This very program, also after an upgrade has put another file in its place: all processes of a
/// site have one version until it is started again.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// What lists of processes show instead.
pub const PROGRAM_NAME: &str = "backstay";

/// How managers are started.
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// The state folder of the site.
    pub state: PathBuf,
    /// `address:port` of the server.
    pub server: String,
}

impl Launch {
    /// Starts the manager of a session; `recover` has it only undo what an earlier one left.
    pub fn manager(&self, session: SessionId, recover: bool) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("manager").arg("--state").arg(&self.state);
        command.arg("--server").arg(&self.server);
        command.arg("--session").arg(session.to_string());
        if recover {
            command.arg("--recover");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log_file(session)?);
        command
            .arg0(PROGRAM_NAME)
            .process_group(0)
            .kill_on_drop(false);
        command.spawn().map_err(|error| {
            Error::io(
                format!("starting {} manager", self.program.display()),
                error,
            )
        })
    }

    /// Where a manager's own diagnostics go.
    fn log_file(&self, session: SessionId) -> Result<Stdio> {
        let folder = self.state.join("sessions").join(session.to_string());
        let doing = || format!("opening the log of session {session}");
        std::fs::create_dir_all(&folder).map_err(|error| Error::io(doing(), error))?;
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("manager.log"))
            .map_err(|error| Error::io(doing(), error))?;
        Ok(Stdio::from(file))
    }
}

/// Whether the process is the living manager of this session.
pub fn is_manager_of(pid: u32, session: SessionId) -> bool {
    let Ok(command_line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let session = session.to_string();
    let mut arguments = command_line.split(|byte| *byte == 0);
    arguments.any(|argument| argument == session.as_bytes()) && !is_zombie(pid)
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in brackets and may hold anything.
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}
