//! What is checked in the handshake, before a single byte of the peer is read as a message.
//!
//! Knows: the chain up to the site's own authority, validity, revocation, the role and host that
//! the caller expects; and how a failed check is said. Refuses to know: any other authority.
//!
//! TLS 1.3 only, both sides always show a certificate, no session is ever resumed (a resumed
//! session would skip these checks), no early data, no renegotiation.

use crate::identity::Identity;
use crate::peer::{PeerIdentity, Role};
use crate::revocations::Revocations;
use crate::version::ALPN;
use base::clock::Clock;
use base::id::{HostId, SiteId};
use base::{Error, Kind, Result};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    RootCertStore, ServerConfig, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whom a caller is ready to talk to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expect {
    /// The roles that are welcome.
    pub roles: Vec<Role>,
    /// The one host that is welcome; any where absent.
    pub host: Option<HostId>,
}

impl Expect {
    /// A role on whatever host.
    pub fn role(role: Role) -> Self {
        Self {
            roles: vec![role],
            host: None,
        }
    }

    /// Any of these roles on whatever host.
    pub fn roles(roles: &[Role]) -> Self {
        Self {
            roles: roles.to_vec(),
            host: None,
        }
    }

    /// The same on this host only.
    #[must_use]
    pub fn on(mut self, host: HostId) -> Self {
        self.host = Some(host);
        self
    }

    fn welcomes(&self, peer: &PeerIdentity) -> bool {
        self.roles.contains(&peer.role) && self.host.is_none_or(|host| host == peer.host)
    }
}

/// The TLS settings of the side that dials.
pub fn client_config(
    identity: &Identity,
    expect: Expect,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig> {
    let provider = provider();
    let verifier = Arc::new(SiteVerifier::new(identity, expect, &provider)?);
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.chain(), identity.key()?)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // Names of hosts mean nothing here and are nobody's business on the way.
    config.enable_sni = false;
    Ok(config)
}

/// The TLS settings of the side that listens.
pub fn server_config(
    identity: &Identity,
    expect: Expect,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig> {
    let provider = provider();
    let verifier = Arc::new(SiteVerifier::new(identity, expect, &provider)?);
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Time(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key()?)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// AES-128 first: bulk data is most of what flows, and it costs a sixth less than AES-256 where
/// the key exchange, hybrid with ML-KEM, is what decides about secrecy.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    })
}

fn unusable(error: rustls::Error) -> Error {
    Error::new(
        Kind::Invalid,
        "protocol.identity.unusable",
        "an identity cannot be used for TLS",
    )
    .caused_by(error)
}

/// The wall clock as TLS asks for it.
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

/// Checks peers of either side.
#[derive(Debug)]
struct SiteVerifier {
    site: SiteId,
    expect: Expect,
    revocations: Revocations,
    roots: RootCertStore,
    chain: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl SiteVerifier {
    fn new(identity: &Identity, expect: Expect, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(identity.authority().clone()).map_err(unusable)?;
        let chain = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots.clone()),
            Arc::clone(provider),
        )
        .build()
        .map_err(|error| {
            Error::new(
                Kind::Invalid,
                "protocol.identity.unusable",
                "an authority cannot be used for TLS",
            )
            .caused_by(error)
        })?;
        Ok(Self {
            site: identity.own().site,
            expect,
            revocations: identity.revocations().clone(),
            roots,
            chain,
            provider: Arc::clone(provider),
        })
    }

    /// The checks that are ours. The chain was verified before.
    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let Ok(peer) = PeerIdentity::from_certificate(certificate) else {
            return Err(CertificateError::BadEncoding.into());
        };
        if self.revocations.contains(peer.serial) {
            tracing::warn!(%peer, serial = %peer.serial, "refused a revoked certificate");
            return Err(CertificateError::Revoked.into());
        }
        if peer.site != self.site || !self.expect.welcomes(&peer) {
            tracing::warn!(%peer, expected = ?self.expect, "refused another role or host");
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn no_tls12() -> rustls::Error {
    rustls::PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}

impl ServerCertVerifier for SiteVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // No name of a host is compared: the identity says role and host id, which `admit` checks.
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        self.admit(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for SiteVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Says nothing about the site to strangers.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        self.admit(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Says a failure of a TLS connection in our words. `None` where it is not one of TLS.
pub(crate) fn explain(error: &std::io::Error) -> Option<Error> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let (kind, code, message, hint) = match error {
        rustls::Error::InvalidCertificate(reason) => explain_certificate(reason),
        rustls::Error::AlertReceived(alert) => explain_alert(*alert),
        rustls::Error::NoCertificatesPresented => (
            Kind::Denied,
            "protocol.peer.no-certificate",
            "the peer shows no certificate",
            "only programs deployed by this site's server may connect",
        ),
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => INCOMPATIBLE,
        _ => (
            Kind::Invalid,
            "protocol.link.not-tls",
            "the peer does not speak TLS as it should",
            "check that the address and port belong to a program of Backstay",
        ),
    };
    Some(
        Error::new(kind, code, message)
            .hint(hint)
            .caused_by(error.clone()),
    )
}

type Explanation = (Kind, &'static str, &'static str, &'static str);

const INCOMPATIBLE: Explanation = (
    Kind::Unsupported,
    "protocol.link.incompatible",
    "the peer does not speak this protocol over TLS 1.3",
    "check that the address and port belong to a program of Backstay of a like version",
);

/// We refuse the peer.
fn explain_certificate(reason: &CertificateError) -> Explanation {
    use CertificateError as C;
    match reason {
        C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => (
            Kind::Denied,
            "protocol.peer.expired",
            "the peer's certificate is not good at this time",
            "check the clocks of both hosts, then renew the peer's identity on the server",
        ),
        C::Revoked => (
            Kind::Denied,
            "protocol.peer.revoked",
            "the peer's certificate was revoked",
            "deploy the peer anew if it is to come back",
        ),
        C::ApplicationVerificationFailure => (
            Kind::Denied,
            "protocol.peer.wrong-role",
            "the peer has another role or host than expected here",
            "check the address and port",
        ),
        _ => (
            Kind::Denied,
            "protocol.peer.unknown-authority",
            "the peer's certificate is not of this site's authority",
            "the peer belongs to another site, or somebody is in between; deploy it anew",
        ),
    }
}

/// The peer refuses us.
fn explain_alert(alert: AlertDescription) -> Explanation {
    use AlertDescription as A;
    match alert {
        A::UnknownCA | A::DecryptError | A::BadCertificate => (
            Kind::Denied,
            "protocol.link.refused-authority",
            "the peer does not know this site's authority",
            "the peer belongs to another site; deploy it anew",
        ),
        A::CertificateExpired => (
            Kind::Denied,
            "protocol.link.refused-expired",
            "the peer finds this program's certificate not good at this time",
            "check the clocks of both hosts, then renew this host's identity",
        ),
        A::CertificateRevoked => (
            Kind::Denied,
            "protocol.link.refused-revoked",
            "this program's certificate was revoked",
            "ask the server for a new identity for this host",
        ),
        A::AccessDenied => (
            Kind::Denied,
            "protocol.link.refused-role",
            "the peer does not talk to programs of this role or host",
            "check the address and port",
        ),
        A::CertificateRequired => (
            Kind::Denied,
            "protocol.link.refused-no-certificate",
            "the peer asks for a certificate",
            "deploy this host from the server",
        ),
        A::NoApplicationProtocol | A::ProtocolVersion | A::HandshakeFailure => INCOMPATIBLE,
        _ => (
            Kind::Unreachable,
            "protocol.link.refused",
            "the peer ended the connection with an alert of TLS",
            "look into the peer's log",
        ),
    }
}
