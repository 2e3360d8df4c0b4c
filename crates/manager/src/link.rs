//! The real links of a manager: to the server, to movers, to agents.
//!
//! Knows: dialing, and that a server may be away for a while. Refuses to know: what is said.

use crate::agents::Dial;
use crate::ask::Ask;
use base::{Error, Result};
use protocol::words::agent::{AgentRequest, AgentResponse};
use protocol::words::manager::{ManagerRequest, ManagerResponse};
use protocol::words::mover::{MoverRequest, MoverResponse};
use protocol::words::session::{OrderedHost, SessionOrder};
use protocol::{BlockingClient, Dialer, Expect, Role};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long the server may be away before the manager gives up: long enough for an upgrade.
const SERVER_PATIENCE: Duration = Duration::from_secs(600);
/// How long to wait between two attempts.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);
/// Starting an agent and opening a repository after a crash may take a while.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);

type Client = BlockingClient<ManagerRequest, ManagerResponse>;

/// The link to the server. It is dialed again, and the session attached again, whenever it broke.
pub struct ServerLink {
    runtime: Handle,
    dialer: Dialer,
    address: String,
    attach: ManagerRequest,
    client: Mutex<Option<Client>>,
}

impl ServerLink {
    /// Dials the server and attaches to the session: the link and the order.
    pub fn attach(
        runtime: Handle,
        dialer: Dialer,
        address: String,
        attach: ManagerRequest,
    ) -> Result<(Self, SessionOrder)> {
        let link = Self {
            runtime,
            dialer,
            address,
            attach,
            client: Mutex::new(None),
        };
        match link.ask(&link.attach)? {
            ManagerResponse::Order(order) => Ok((link, *order)),
            other => Err(Error::new(
                base::Kind::Bug,
                "manager.server.answer",
                format!("the server's answer does not fit: {other:?}"),
            )),
        }
    }

    fn connected(&self) -> Result<Client> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = client.as_ref() {
            return Ok(client.clone());
        }
        let expect = Expect::role(Role::Server);
        let new = Client::dial(&self.runtime, &self.dialer, &self.address, expect)?;
        new.call(&self.attach)?;
        Ok(client.insert(new).clone())
    }

    fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Ask<ManagerRequest, ManagerResponse> for ServerLink {
    fn ask(&self, question: &ManagerRequest) -> Result<ManagerResponse> {
        let begun = Instant::now();
        loop {
            match self.connected().and_then(|client| client.call(question)) {
                Err(error) if is_broken(&error) && begun.elapsed() < SERVER_PATIENCE => {
                    tracing::warn!(%error, "the server is away");
                    self.forget();
                    std::thread::sleep(BETWEEN_ATTEMPTS);
                }
                answer => return answer,
            }
        }
    }
}

/// Whether the link failed, in contrast to an answer that says no.
fn is_broken(error: &Error) -> bool {
    use base::Kind;
    let of_the_link = error.code().starts_with("protocol.") || error.code().starts_with("base.io.");
    of_the_link
        && matches!(
            error.kind(),
            Kind::Unreachable | Kind::Timeout | Kind::Io | Kind::NotFound
        )
}

/// Dials movers and agents over TLS.
pub struct TlsDial {
    /// Where the links live.
    pub runtime: Handle,
    /// As whom.
    pub dialer: Dialer,
}

struct Link<Q, A>(BlockingClient<Q, A>);

impl<Q, A> Ask<Q, A> for Link<Q, A>
where
    Q: Serialize + Send + Sync,
    A: DeserializeOwned + Send,
{
    fn ask(&self, question: &Q) -> Result<A> {
        self.0.call_within(question, ANSWER_PATIENCE)
    }
}

impl Dial for TlsDial {
    fn mover(&self, host: &OrderedHost) -> Result<Box<dyn Ask<MoverRequest, MoverResponse>>> {
        let expect = Expect::role(Role::Mover).on(host.id);
        let client = BlockingClient::dial(&self.runtime, &self.dialer, &host.mover, expect)?;
        Ok(Box::new(Link(client)))
    }

    fn agent(
        &self,
        host: &OrderedHost,
        address: &str,
    ) -> Result<Box<dyn Ask<AgentRequest, AgentResponse>>> {
        let expect = Expect::role(Role::Agent).on(host.id);
        let client = BlockingClient::dial(&self.runtime, &self.dialer, address, expect)?;
        Ok(Box::new(Link(client)))
    }
}
