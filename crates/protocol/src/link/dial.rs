//! Reaching out.
//!
//! Knows: connecting, the TLS handshake and the hello from the side that begins, with their
//! deadlines. Refuses to know: why, and how often to try again.

use super::{Link, LinkOptions, Purpose, Socket};
use crate::identity::Identity;
use crate::peer::{Peer, PeerIdentity};
use crate::verify::{self, Expect};
use base::{Error, Kind, Result};
use rustls::pki_types::{DnsName, ServerName};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Dials with one identity.
#[derive(Clone, Debug)]
pub struct Dialer {
    identity: Identity,
    options: LinkOptions,
}

impl Dialer {
    /// Dials as `identity`. After a renewal make a new one.
    pub const fn new(identity: Identity, options: LinkOptions) -> Self {
        Self { identity, options }
    }

    /// Connects to `address` (`host:port`) and returns once both ends know each other.
    ///
    /// # Errors
    /// `Unreachable` and `Timeout` where nobody answers; `Denied` (`protocol.peer.*`) where the
    /// peer is not whom we expect and (`protocol.link.refused-*`) where we are not whom it expects;
    /// `Unsupported` where the two speak no common version.
    pub async fn dial(&self, address: &str, expect: Expect, purpose: Purpose) -> Result<Link> {
        let dialed = self.dial_bare(address, expect, purpose).await;
        dialed.map_err(|error| error.context(format!("connecting to {address}")))
    }

    async fn dial_bare(&self, address: &str, expect: Expect, purpose: Purpose) -> Result<Link> {
        let timing = self.options.timing;
        let clock = Arc::clone(&self.options.clock);
        let config = verify::client_config(&self.identity, expect, clock)?;
        let socket = match timeout(timing.connect, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                return Err(Error::io("opening the connection", error)
                    .hint("check the address, and that the program runs there"));
            }
            Err(_) => return Err(late("the network connection")),
        };
        // Calls are small and wait for their answers.
        let _ = socket.set_nodelay(true);
        match timeout(timing.handshake, self.shake(config, socket, purpose)).await {
            Ok(link) => link,
            Err(_) => Err(late("the handshake")),
        }
    }

    async fn shake(
        &self,
        config: rustls::ClientConfig,
        socket: TcpStream,
        purpose: Purpose,
    ) -> Result<Link> {
        // TLS wants a name; none is sent and none is compared.
        let name = ServerName::DnsName(
            DnsName::try_from("backstay.invalid")
                .map_err(|_| Error::new(Kind::Bug, "protocol.link.name", "a name is malformed"))?,
        );
        let connected = TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await;
        let stream = connected.map_err(handshake_failed)?;
        let peer = certified(stream.get_ref().1.peer_certificates())?;
        let socket: Box<dyn Socket> = Box::new(stream);
        Link::greet(socket, Peer::Certified(peer), purpose, self.options.timing).await
    }
}

/// The identity in the certificate that the handshake has verified.
pub(super) fn certified(
    chain: Option<&[rustls::pki_types::CertificateDer<'_>]>,
) -> Result<PeerIdentity> {
    match chain.and_then(<[_]>::first) {
        Some(certificate) => PeerIdentity::from_certificate(certificate),
        None => Err(Error::new(
            Kind::Denied,
            "protocol.peer.no-certificate",
            "the peer shows no certificate",
        )),
    }
}

pub(super) fn handshake_failed(error: std::io::Error) -> Error {
    verify::explain(&error).unwrap_or_else(|| super::cut().caused_by(error))
}

pub(super) fn late(what: &str) -> Error {
    Error::new(
        Kind::Timeout,
        "protocol.link.timeout",
        format!("{what} was not complete in time"),
    )
    .hint("look whether the other host is up and whether a firewall is in between")
}
