//! `backstay agent`: moves the data of one session on one host, led over a link.
//!
//! Knows: whom it obeys (exactly the manager that had it started), and that it ends when that one
//! is gone for too long, throwing away what was not committed. Refuses to know: how commands are
//! done; the executor does them.
//!
//! # Life
//! 1. The mover service starts the process and reads one line from it: [`Ready`] as JSON.
//! 2. The manager that asked for it dials, as often and with as many links as it likes.
//! 3. It ends when no link of that manager was there for [`PATIENCE`], or on SIGTERM. Tasks are
//!    cancelled, the point in the making is thrown away. What does not end in time is cut off by
//!    ending the process: the repository's lock of this writer falls with it.

use crate::executor::{Executor, Network};
use base::id::SessionId;
use base::{Error, Kind, Result};
use protocol::words::agent::{AgentRequest, AgentResponse};
use protocol::{Call, Expect, Identity, Link, LinkOptions, Listener, Peer, Role, Service, serve};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long an agent waits for its manager to come, or to come back.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long tasks may take to end before the process is ended under them.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Move data for one session, led by its manager. Started by the mover service
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder with this agent's certificate and key
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Ports to listen on: the first free one is taken
    #[arg(long, value_name = "FROM-TO", default_value = "6200-6999", value_parser = parse_ports)]
    pub ports: Ports,
    /// Name or address that others reach this host by
    #[arg(long, value_name = "HOST")]
    pub reached_at: Option<String>,
    /// Serial number of the certificate of the one manager to obey
    #[arg(long, value_name = "SERIAL")]
    pub starter: String,
    /// The session it works for
    #[arg(long, value_name = "ID")]
    pub session: SessionId,
    /// What it is for, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub purpose: String,
    /// Seconds to wait for the manager to come, or to come back
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs(), hide = true)]
    pub patience: u64,
}

/// A range of ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// First.
    pub from: u16,
    /// Last.
    pub to: u16,
}

impl Ports {
    /// All of them.
    pub const fn range(self) -> RangeInclusive<u16> {
        self.from..=self.to
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

/// Reads `FROM-TO`.
///
/// # Errors
/// A sentence for the command line.
pub fn parse_ports(text: &str) -> Result<Ports, String> {
    let parse = || {
        let (from, to) = text.split_once('-')?;
        let ports = Ports {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
        };
        (0 < ports.from && ports.from <= ports.to).then_some(ports)
    };
    parse().ok_or_else(|| "a range of ports looks like 6200-6999".to_owned())
}

/// What an agent says once it listens: one line on its standard output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The port it takes commands on.
    pub port: u16,
    /// Its process.
    pub pid: u32,
}

/// Runs an agent until it is no longer wanted.
///
/// # Errors
/// Of listening. Failed commands are answered, not returned.
pub fn run(args: &Args) -> Result<()> {
    let runtime = runtime()?;
    let identity = Identity::load(&args.identity)?;
    let network = Network {
        identity: identity.clone(),
        runtime: runtime.handle().clone(),
        listen: args.listen,
        ports: args.ports,
        reached_at: reached_at(args),
    };
    let executor = Arc::new(Executor::of_this_machine().with_network(network));
    let led = runtime.block_on(lead(args, &identity, &executor));
    std::thread::spawn(|| {
        std::thread::sleep(END_PATIENCE);
        tracing::error!("work does not end in time; ending the process under it");
        std::process::exit(70);
    });
    executor.close();
    drop(executor);
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("agent for session {} has ended", args.session);
    led
}

/// The runtime for links; bytes are moved by plain threads.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::io("starting the runtime", error))
}

fn reached_at(args: &Args) -> String {
    args.reached_at
        .clone()
        .unwrap_or_else(|| host_text(args.listen))
}

/// An address as it stands before a colon and a port.
pub(crate) fn host_text(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Listens, says so, and obeys until the manager is gone.
async fn lead(args: &Args, identity: &Identity, executor: &Arc<Executor>) -> Result<()> {
    let expect = Expect::role(Role::Manager);
    let options = LinkOptions::default();
    let ports = args.ports.range();
    let mut listener =
        Listener::bind_in_range(args.listen, ports, identity, expect, options).await?;
    let port = listener.address().map_or(0, |address| address.port());
    say_ready(&Ready {
        port,
        pid: std::process::id(),
    })?;
    tracing::info!(
        "agent for session {} ({}) listens on port {port}",
        args.session,
        args.purpose
    );
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| Error::io("waiting for signals", error))?;
    let presence = Presence::default();
    let patience = Duration::from_secs(args.patience);
    let mut last_seen = Instant::now();
    loop {
        tokio::select! {
            link = listener.accept() => {
                welcome(link?, &args.starter, &presence, executor);
            }
            _ = terminate.recv() => {
                tracing::info!("asked to end");
                return Ok(());
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if presence.any() {
            last_seen = Instant::now();
        } else if last_seen.elapsed() >= patience {
            tracing::info!("the manager is gone for {} s: ending", patience.as_secs());
            return Ok(());
        }
    }
}

fn say_ready(ready: &Ready) -> Result<()> {
    use std::io::Write;
    let line = serde_json::to_string(ready).map_err(|error| {
        Error::new(
            Kind::Bug,
            "mover.agent.ready",
            "cannot say that it is ready",
        )
        .caused_by(error)
    })?;
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Error::io("telling the mover service that it is ready", error))
}

/// How many links of the manager there are.
#[derive(Clone, Default)]
struct Presence(Arc<AtomicUsize>);

/// One link of the manager; counted until dropped.
struct Present(Presence);

impl Presence {
    fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    fn enter(&self) -> Present {
        self.0.fetch_add(1, Ordering::AcqRel);
        Present(self.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves a link of the one manager this agent obeys; refuses others.
fn welcome(link: Link, starter: &str, presence: &Presence, executor: &Arc<Executor>) {
    let peer = link.peer();
    let is_starter = match peer {
        Peer::Certified(identity) => identity.serial.to_string() == starter,
        Peer::Local { .. } => false,
    };
    if !is_starter {
        tracing::warn!("refused {peer}, which has not started this agent");
        tokio::spawn(async move {
            let error = Error::new(
                Kind::Denied,
                "mover.agent.not-yours",
                "this agent was started by another manager",
            );
            link.refuse(&error).await;
        });
        return;
    }
    let present = presence.enter();
    let service = Arc::new(Commands {
        executor: Arc::clone(executor),
    });
    tokio::spawn(async move {
        if let Err(error) = serve(link, service).await {
            tracing::warn!(code = error.code(), "the link to {peer} has ended: {error}");
        }
        drop(present);
    });
}

/// The executor behind a link.
struct Commands {
    executor: Arc<Executor>,
}

impl Service for Commands {
    type Request = AgentRequest;
    type Response = AgentResponse;

    async fn answer(
        &self,
        request: AgentRequest,
        _call: Call<AgentResponse>,
    ) -> Result<AgentResponse> {
        let executor = Arc::clone(&self.executor);
        let done = tokio::task::spawn_blocking(move || executor.execute(request)).await;
        done.unwrap_or_else(|error| {
            Err(Error::new(
                Kind::Bug,
                "mover.agent.panic",
                "the command ended in an unforeseen way",
            )
            .hint("please report this with the log of the agent")
            .caused_by(error))
        })
    }
}
