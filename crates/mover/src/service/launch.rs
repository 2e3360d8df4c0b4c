//! Starting an agent.
//!
//! Knows: the command line of an agent, and that it says one line when it listens. Refuses to know:
//! which agents there are.

use crate::agent::{Ports, Ready};
use base::id::SessionId;
use base::{Error, Kind, Result};
use protocol::words::mover::RunningAgent;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// This very program, also after an upgrade has put another file in its place: agents have the
/// version of their service until it is started again.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// What lists of processes show instead.
const PROGRAM_NAME: &str = "backstay";
/// How long an agent may take until it listens.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// The longest line an agent may say.
const READY_LENGTH_MAX: u64 = 4096;

/// How agents are started.
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Folder with the agents' identity.
    pub identity: PathBuf,
    /// Address they listen on.
    pub listen: IpAddr,
    /// Ports they listen on.
    pub ports: Ports,
    /// Name or address that others reach them by.
    pub reached_at: String,
    /// Seconds they wait for their manager.
    pub patience: u64,
}

impl Launch {
    /// Starts an agent and waits until it listens. `starter` is the serial number of the
    /// certificate of the manager it obeys.
    ///
    /// # Errors
    /// Of starting the process; `Timeout` (`mover.agent.silent`) and `Conflict`
    /// (`mover.agent.died`) where it does not come to listen. It is ended then.
    pub fn start(
        &self,
        session: SessionId,
        purpose: &str,
        starter: &str,
    ) -> Result<(RunningAgent, Child)> {
        let mut command = Command::new(&self.program);
        command.arg0(PROGRAM_NAME);
        command.arg("agent").arg("--identity").arg(&self.identity);
        command.arg("--listen").arg(self.listen.to_string());
        command.arg("--ports").arg(self.ports.to_string());
        command.arg("--reached-at").arg(&self.reached_at);
        command
            .arg("--starter")
            .arg(starter)
            .arg("--session")
            .arg(session.to_string());
        command.arg(format!("--purpose={purpose}"));
        command.arg("--patience").arg(self.patience.to_string());
        // Its own group: a signal to the service's terminal or group is not meant for it.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(|error| {
            Error::io(format!("starting {} agent", self.program.display()), error)
        })?;
        match child.stdout.take().map(wait_ready) {
            Some(Ok(ready)) => {
                let address = format!("{}:{}", self.reached_at, ready.port);
                let purpose = purpose.to_owned();
                Ok((
                    RunningAgent {
                        pid: child.id(),
                        address,
                        session,
                        purpose,
                    },
                    child,
                ))
            }
            failed => {
                drop(child.kill());
                drop(child.wait());
                Err(failed.and_then(Result::err).unwrap_or_else(died))
            }
        }
    }
}

/// Reads the one line of an agent that has come to listen.
fn wait_ready(out: ChildStdout) -> Result<Ready> {
    let (tell, told) = mpsc::sync_channel(1);
    // The thread ends with the line or with the process, which is ended where it is too slow.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(out.take(READY_LENGTH_MAX)).read_line(&mut line);
        drop(tell.send(read.map(|_| line)));
    });
    match told.recv_timeout(READY_PATIENCE) {
        Ok(Ok(line)) => serde_json::from_str(&line).map_err(|_| died()),
        Ok(Err(_)) => Err(died()),
        Err(_) => Err(Error::new(
            Kind::Timeout,
            "mover.agent.silent",
            format!(
                "a new agent did not come to listen within {} s",
                READY_PATIENCE.as_secs()
            ),
        )
        .hint("look into the mover's log on that host")),
    }
}

fn died() -> Error {
    Error::new(
        Kind::Conflict,
        "mover.agent.died",
        "a new agent ended before it listened",
    )
    .hint("look into the mover's log on that host")
}
