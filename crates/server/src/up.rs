//! A whole site on one machine: the embedded default.
//!
//! Knows: how a site is founded (authority, identities), and that a server and a mover service must
//! run. Refuses to know: what they do.
//!
//! Each role is a process of its own. One that ends is started again, after a moment that grows. A
//! supervisor that is killed takes its roles along ([`end_with`]), so that the next one can start
//! them anew; managers and agents at work go on.

use crate::launch::{OWN_PROGRAM, PROGRAM_NAME};
use crate::state::{self, State};
use crate::{api, end_requested};
use base::os::{OsClock, OsRandom};
use base::{Error, Kind, Result};
use protocol::authority::{Authority, IDENTITY_VALIDITY};
use protocol::words::console::{ConsoleRequest, ConsoleResponse};
use protocol::{Client, Dialer, Expect, Identity, LinkOptions, Purpose, Role};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::{Child, Command};

/// A role that ran this long before it ended is started again at once.
const STEADY: Duration = Duration::from_secs(10);
/// The longest moment before a role is started again.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the roles may take to be ready.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a role may take to end when asked.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How a site is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder of the site's state
    #[arg(long, value_name = "DIR", default_value = state::DEFAULT, env = "BACKSTAY_STATE")]
    pub state: PathBuf,
    /// Address the server listens on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9419")]
    pub listen: SocketAddr,
    /// Address the mover service listens on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6162")]
    pub mover_listen: SocketAddr,
    /// Ports for agents: first and last
    #[arg(long, value_name = "FROM-TO", default_value = "2500-3300", value_parser = ports)]
    pub agent_ports: String,
}

/// Looks whether a range of ports makes sense, before the mover service fails on it again and
/// again.
fn ports(text: &str) -> Result<String, String> {
    let parse = || {
        let (from, to) = text.split_once('-')?;
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        (0 < from && from <= to).then(|| text.to_owned())
    };
    parse().ok_or_else(|| "a range of ports looks like 2500-3300".to_owned())
}

/// Runs the site until asked to end.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("starting the runtime", error))?;
    runtime.block_on(supervise(args))
}

async fn supervise(args: &Args) -> Result<()> {
    let state = State::open(&args.state)?;
    let _only_one = state.lock("up")?;
    found(&state)?;
    let server = vec![
        "server".to_owned(),
        "--state".to_owned(),
        path(state.folder())?,
        "--listen".to_owned(),
        args.listen.to_string(),
        "--local-mover".to_owned(),
        args.mover_listen.to_string(),
    ];
    let mover = vec![
        "mover".to_owned(),
        "--state".to_owned(),
        path(&state.folder().join("mover"))?,
        "--listen".to_owned(),
        args.mover_listen.to_string(),
        "--ports".to_owned(),
        args.agent_ports.clone(),
        "--identity".to_owned(),
        path(&state.identity(Role::Mover))?,
        "--agent-identity".to_owned(),
        path(&state.identity(Role::Agent))?,
    ];
    let (ending, ended) = tokio::sync::watch::channel(false);
    let mut asked_to_end = std::pin::pin!(end_requested());
    let roles = [
        tokio::spawn(keep_running("server", server, ended.clone())),
        tokio::spawn(keep_running("mover", mover, ended)),
    ];
    tokio::select! {
        ready = wait_until_ready(&state, args) => match ready {
            Ok(()) => {
                say_ready(&state, args);
                asked_to_end.await;
            }
            Err(error) => {
                let _ = ending.send(true);
                for role in roles { let _ = role.await; }
                return Err(error);
            }
        },
        () = &mut asked_to_end => {}
    }
    let _ = ending.send(true);
    for role in roles {
        let _ = role.await;
    }
    Ok(())
}

/// Says so to whoever reads; nobody has to.
fn say_ready(state: &State, args: &Args) {
    let (server, mover) = (args.listen, args.mover_listen);
    let folder = state.folder().display();
    let mut out = std::io::stdout();
    let _ = writeln!(
        out,
        "ready: server on {server}, mover on {mover}, state in {folder}"
    );
}

/// Has this process asked to end when its supervisor is gone, however that came. Roles do it first
/// of all when a supervisor has started them.
///
/// # Errors
/// `Conflict` where the supervisor is gone already.
pub fn end_with(supervisor: u32) -> Result<()> {
    let doing = "tying this process to its supervisor";
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| Error::io(doing, error.into()))?;
    // It may have ended before the line above.
    if std::os::unix::process::parent_id() == supervisor {
        Ok(())
    } else {
        Err(Error::new(
            Kind::Conflict,
            "server.supervisor.gone",
            "the supervisor is gone",
        ))
    }
}

fn path(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid(
            "state.path",
            format!("{} is not valid UTF-8", path.display()),
        )
        .hint("name a folder whose path is plain text")
    })
}

/// Makes the authority and the identities of this host's roles, where missing.
pub fn found(state: &State) -> Result<()> {
    let host = state.host()?;
    let authority = match Authority::load(&state.authority()) {
        Ok(authority) => authority,
        Err(error) if error.kind() == Kind::NotFound => {
            let site = base::id::SiteId::generate(&OsClock, &OsRandom);
            let authority = Authority::create(site, &OsClock, &OsRandom)?;
            authority.save(&state.authority())?;
            authority
        }
        Err(error) => return Err(error),
    };
    for role in Role::ALL {
        let folder = state.identity(role);
        let fit = match Identity::load(&folder) {
            Ok(identity) => !identity.renewal_due(base::clock::Clock::now(&OsClock)),
            Err(error) if error.kind() == Kind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !fit {
            authority
                .issue(role, host, IDENTITY_VALIDITY, &OsClock, &OsRandom)?
                .save(&folder)?;
        }
    }
    Ok(())
}

async fn keep_running(
    role: &'static str,
    arguments: Vec<String>,
    mut ending: tokio::sync::watch::Receiver<bool>,
) {
    let mut pause = Duration::from_millis(200);
    while !*ending.borrow() {
        let started = tokio::time::Instant::now();
        match spawn(&arguments) {
            Ok(mut child) => {
                tokio::select! {
                    status = child.wait() => {
                        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                        tracing::error!(role, status, "ended; it is started again");
                    }
                    _ = ending.changed() => {
                        end(role, &mut child).await;
                        return;
                    }
                }
            }
            Err(error) => tracing::error!(role, %error, "could not be started"),
        }
        if started.elapsed() > STEADY {
            pause = Duration::from_millis(200);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = ending.changed() => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn spawn(arguments: &[String]) -> Result<Child> {
    // A process group of its own: Ctrl-C at the terminal ends the supervisor, and the supervisor
    // ends the roles in order.
    Command::new(OWN_PROGRAM)
        .arg0(PROGRAM_NAME)
        .arg("--supervisor")
        .arg(std::process::id().to_string())
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| Error::io("starting a role", error))
}

async fn end(role: &str, child: &mut Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(END_PATIENCE, child.wait())
        .await
        .is_err()
    {
        tracing::error!(role, "did not end in time; killed");
        let _ = child.kill().await;
    }
}

/// Waits until both roles answer.
async fn wait_until_ready(state: &State, args: &Args) -> Result<()> {
    let begun = tokio::time::Instant::now();
    loop {
        let error = match answers(state, args).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if begun.elapsed() > READY_PATIENCE {
            return Err(error.context("the server and the mover service did not become ready"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn answers(state: &State, args: &Args) -> Result<()> {
    let options = LinkOptions::default();
    let console = Identity::load(&state.identity(Role::Console))?;
    let expect = Expect::role(Role::Server).on(state.host()?);
    let link = Dialer::new(console, options.clone())
        .dial(&args.listen.to_string(), expect, Purpose::Calls)
        .await?;
    let client: Client<ConsoleRequest, ConsoleResponse> = Client::new(link);
    client.call(&ConsoleRequest::Status).await?;
    let server = Dialer::new(Identity::load(&state.identity(Role::Server))?, options);
    api::host::health_of(&server, &args.mover_listen.to_string(), Some(state.host()?)).await?;
    Ok(())
}
