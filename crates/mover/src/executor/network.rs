//! How an executor reaches other agents.
//!
//! Knows: its identity, the ports it may listen on, and that a stream comes from an agent of the
//! same site and with the right token, once. Refuses to know: what flows.

use crate::agent::Ports;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use protocol::stream::{BulkHalves, BulkOptions, ExpectedStream, StreamRegister, dial_stream};
use protocol::words::agent::StreamTicket;
use protocol::{Dialer, Expect, Identity, LinkOptions, Listener, Role, StreamToken};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// How long a stream that was announced may take to begin.
const BEGIN_PATIENCE: Duration = Duration::from_secs(60);
/// How often a waiting thread looks whether its task is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How an executor reaches other agents.
#[derive(Clone)]
pub struct Network {
    /// Who it is.
    pub identity: Identity,
    /// Where links live.
    pub runtime: Handle,
    /// Address to listen on.
    pub listen: IpAddr,
    /// Ports to listen on.
    pub ports: Ports,
    /// Name or address that others reach this host by.
    pub reached_at: String,
}

/// A stream that is expected: a listener of its own until it has begun.
pub(super) struct Expected {
    stream: ExpectedStream,
    accepting: AbortHandle,
    /// `address:port` for the other agent.
    pub(super) address: String,
}

impl Network {
    /// Dials an agent that expects the stream.
    pub(super) fn dial(&self, to: &str, ticket: &StreamTicket) -> Result<BulkHalves> {
        let token = StreamToken::from_ticket(ticket)?;
        let dialer = Dialer::new(self.identity.clone(), LinkOptions::default());
        let expect = Expect::role(Role::Agent);
        dial_stream(
            &self.runtime,
            &dialer,
            to,
            expect,
            &token,
            BulkOptions::default(),
        )
    }

    /// Listens for one stream.
    pub(super) fn expect(&self, ticket: &StreamTicket) -> Result<Expected> {
        let token = StreamToken::from_ticket(ticket)?;
        let register = StreamRegister::new();
        let stream = register.expect(&token, BulkOptions::default())?;
        let mut listener = self.runtime.block_on(Listener::bind_in_range(
            self.listen,
            self.ports.range(),
            &self.identity,
            Expect::role(Role::Agent),
            LinkOptions::default(),
        ))?;
        let port = listener.address().map_or(0, |address| address.port());
        let accepting = self.runtime.spawn(async move {
            while let Ok(link) = listener.accept().await {
                let register = register.clone();
                tokio::spawn(async move {
                    if let Err(error) = register.admit(link).await {
                        tracing::warn!(code = error.code(), "refused a stream: {error}");
                    }
                });
            }
        });
        let address = format!("{}:{port}", self.reached_at);
        Ok(Expected {
            stream,
            accepting: accepting.abort_handle(),
            address,
        })
    }
}

impl Expected {
    /// Waits until the other agent has begun the stream.
    ///
    /// # Errors
    /// `Timeout` (`protocol.stream.not-begun`); `Cancelled` on request.
    pub(super) fn wait(self, cancel: &Cancel) -> Result<BulkHalves> {
        let start = Instant::now();
        while start.elapsed() < BEGIN_PATIENCE {
            cancel.check()?;
            if let Some(stream) = self.stream.begun_within(LOOK_EVERY) {
                return Ok(stream);
            }
        }
        Err(Error::new(
            Kind::Timeout,
            "protocol.stream.not-begun",
            "the other agent did not begin its data stream in time",
        )
        .hint("look whether the two hosts can reach each other and no firewall is in between"))
    }
}

impl Drop for Expected {
    /// Listens no more, whether the stream has come or not.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
