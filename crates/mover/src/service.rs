//! `backstay mover`: the mover service of a host.
//!
//! Knows: agents are started, listed and ended on request of managers. Refuses to know: what
//! agents do.
//!
//! Agents are processes of their own in process groups of their own. They outlive a service that
//! is restarted: each has a record in the state folder, by which a new service finds it again.
//! Agents whose manager is gone end by themselves (see [`crate::agent`]).

mod launch;
mod process;
mod roster;

use crate::agent::{Ports, host_text, parse_ports, runtime};
use base::{Error, Kind, Result};
use launch::Launch;
use protocol::words::mover::{MoverHealth, MoverRequest, MoverResponse};
use protocol::{Call, Expect, Identity, LinkOptions, Listener, Role, Service, serve};
use roster::Roster;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Agents at a time: each may take some hundred megabytes.
const AGENTS_MAX: usize = 128;
/// The longest text of a purpose, in bytes.
const PURPOSE_LENGTH_MAX: usize = 512;
/// How often the service looks which agents have ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Start and end agents on this host for managers
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder for the records of running agents, and for identities unless named below
    #[arg(long, value_name = "DIR", default_value = "/var/lib/backstay/mover")]
    pub state: PathBuf,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6162")]
    pub listen: SocketAddr,
    /// Ports for agents
    #[arg(long, value_name = "FROM-TO", default_value = "6200-6999", value_parser = parse_ports)]
    pub ports: Ports,
    /// Name or address that managers and agents reach this host by [default: the listening
    /// address, or the host's name where that is any]
    #[arg(long, value_name = "HOST")]
    pub reached_at: Option<String>,
    /// Folder with the service's certificate and key [default: STATE/identity/mover]
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// Folder with the agents' certificate and key [default: STATE/identity/agent]
    #[arg(long, value_name = "DIR")]
    pub agent_identity: Option<PathBuf>,
    /// Seconds an agent waits for its manager to come, or to come back
    #[arg(long, value_name = "SECONDS", default_value_t = crate::agent::PATIENCE.as_secs(),
          hide = true)]
    pub patience: u64,
}

/// Runs the service until SIGTERM or SIGINT. Agents stay.
///
/// # Errors
/// Of the state folder, the identity and listening.
pub fn run(args: &Args) -> Result<()> {
    let service = Mover::new(args)?;
    runtime()?.block_on(serve_all(args, service))
}

async fn serve_all(args: &Args, service: Mover) -> Result<()> {
    let expect = Expect::roles(&[Role::Manager, Role::Server]);
    let mut listener = Listener::bind(
        args.listen,
        &service.identity,
        expect,
        LinkOptions::default(),
    )
    .await?;
    let shown = listener
        .address()
        .map(|address| address.to_string())
        .unwrap_or_default();
    tracing::info!(
        "mover service {} listens on {shown}",
        protocol::version::PROGRAM
    );
    let service = Arc::new(service);
    let failed = |error| Error::io("waiting for signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            link = listener.accept() => {
                let (link, service) = (link?, Arc::clone(&service));
                let peer = link.peer();
                tokio::spawn(async move {
                    if let Err(error) = serve(link, service).await {
                        tracing::info!("the link to {peer} has ended: {error}");
                    }
                });
            }
            _ = look.tick() => {
                let service = Arc::clone(&service);
                drop(tokio::task::spawn_blocking(move || service.roster.look()).await);
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("mover service ends; running agents stay");
    Ok(())
}

/// The service's parts.
struct Mover {
    identity: Identity,
    roster: Roster,
    launch: Launch,
}

impl Mover {
    fn new(args: &Args) -> Result<Self> {
        let own = args
            .identity
            .clone()
            .unwrap_or_else(|| args.state.join("identity/mover"));
        let agents = args
            .agent_identity
            .clone()
            .unwrap_or_else(|| args.state.join("identity/agent"));
        let identity = Identity::load(&own)?;
        // Found missing now, not when the first agent is started.
        Identity::load(&agents)?;
        let launch = Launch {
            program: launch::OWN_PROGRAM.into(),
            identity: agents,
            listen: args.listen.ip(),
            ports: args.ports,
            reached_at: reached_at(args)?,
            patience: args.patience,
        };
        let roster = Roster::open(&args.state.join("agents"))?;
        Ok(Self {
            identity,
            roster,
            launch,
        })
    }

    fn answer_now(&self, request: MoverRequest, starter: Option<String>) -> Result<MoverResponse> {
        match request {
            MoverRequest::Health => Ok(MoverResponse::Health(MoverHealth {
                host: self.identity.own().host,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                processors: processors(),
                agents: u32::try_from(self.roster.list(None).len()).unwrap_or(u32::MAX),
                capabilities: Vec::new(),
            })),
            MoverRequest::StartAgent { session, purpose } => {
                let Some(starter) = starter else {
                    return Err(managers_only());
                };
                if purpose.len() > PURPOSE_LENGTH_MAX || purpose.contains('\0') {
                    return Err(Error::invalid(
                        "mover.agent.purpose",
                        "the purpose is no short text",
                    ));
                }
                let place = self.roster.reserve(AGENTS_MAX)?;
                let (agent, child) = self.launch.start(session, &purpose, &starter)?;
                place.fill(agent.clone(), child)?;
                Ok(MoverResponse::Started(agent))
            }
            MoverRequest::ListAgents { session } => {
                Ok(MoverResponse::Agents(self.roster.list(session)))
            }
            MoverRequest::StopAgents { session } => {
                Ok(MoverResponse::Stopped(self.roster.stop(session)?))
            }
        }
    }
}

/// What managers and the server ask, answered on threads that may block.
impl Service for Mover {
    type Request = MoverRequest;
    type Response = MoverResponse;

    async fn answer(
        &self,
        request: MoverRequest,
        call: Call<MoverResponse>,
    ) -> Result<MoverResponse> {
        let identity = call
            .peer()
            .identity()
            .filter(|peer| peer.role == Role::Manager);
        let starter = identity.map(|peer| peer.serial.to_string());
        tokio::task::block_in_place(|| self.answer_now(request, starter))
    }
}

fn processors() -> u32 {
    u32::try_from(crate::pipeline::backup::processors()).unwrap_or(u32::MAX)
}

fn managers_only() -> Error {
    Error::new(
        Kind::Denied,
        "mover.agent.managers-only",
        "only managers may start agents",
    )
}

/// How others reach this host.
fn reached_at(args: &Args) -> Result<String> {
    if let Some(name) = &args.reached_at {
        return Ok(name.clone());
    }
    if !args.listen.ip().is_unspecified() {
        return Ok(host_text(args.listen.ip()));
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(|error| Error::io("asking for the host's name", error))?;
    Ok(name.trim().to_owned())
}
