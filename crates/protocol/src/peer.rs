//! Who is at the other end.
//!
//! Knows: roles, serial numbers of certificates, and the name that an identity carries:
//! `backstay://site/<site id>/role/<role>/<host id>`, as a URI among the certificate's subject
//! alternative names. Refuses to know: whether the certificate is to be believed; that is for
//! [`crate::verify`].

use base::id::{HostId, SiteId};
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a process is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The backup service.
    Server,
    /// The data mover service of a host.
    Mover,
    /// The manager of one session.
    Manager,
    /// One data mover.
    Agent,
    /// Command line and screens.
    Console,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Server,
        Self::Mover,
        Self::Manager,
        Self::Agent,
        Self::Console,
    ];

    /// The word in names of identities.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Mover => "mover",
            Self::Manager => "manager",
            Self::Agent => "agent",
            Self::Console => "console",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| {
                Error::invalid(
                    "protocol.role.unknown",
                    format!(
                        "\u{201c}{}\u{201d} is not a role",
                        crate::error_word::clean(text)
                    ),
                )
            })
    }
}

/// The serial number of a certificate: sixteen bytes. The authority keeps the first byte between
/// 0x40 and 0x7f, so that the number always has the same length in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub [u8; 16]);

impl Serial {
    /// A new one from random bytes.
    pub fn new(mut random: [u8; 16]) -> Self {
        random[0] = 0x40 | (random[0] & 0x3f);
        Self(random)
    }

    /// From the bytes in a certificate or revocation list.
    ///
    /// # Errors
    /// `Invalid` where no authority of Backstay can have made it.
    pub fn from_der(bytes: &[u8]) -> Result<Self> {
        match <[u8; 16]>::try_from(bytes) {
            Ok(bytes) if (0x40..0x80).contains(&bytes[0]) => Ok(Self(bytes)),
            _ => Err(malformed(
                "a serial number was not made by an authority of Backstay",
            )),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Who a certificate says its holder is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerIdentity {
    /// The installation it belongs to.
    pub site: SiteId,
    /// What it is for.
    pub role: Role,
    /// The host it runs on.
    pub host: HostId,
    /// The serial number of its certificate.
    pub serial: Serial,
}

impl PeerIdentity {
    /// Reads it from a certificate in DER. Believe it only after the chain was verified.
    ///
    /// # Errors
    /// `Invalid` (`protocol.certificate.malformed`) where the certificate does not parse or carries
    /// not exactly one name of ours.
    pub fn from_certificate(der: &[u8]) -> Result<Self> {
        let certificate = parse(der)?;
        let [uri] = uris(&certificate)?[..] else {
            return Err(malformed("a certificate does not carry exactly one URI"));
        };
        let (site, role, host) = parse_name(uri)?;
        let serial = Serial::from_der(certificate.raw_serial())?;
        Ok(Self {
            site,
            role,
            host,
            serial,
        })
    }
}

impl fmt::Display for PeerIdentity {
    /// As errors and logs say it: `mover on host 0192...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on host {}", self.role, self.host)
    }
}

/// The other end of a link, and how it is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Peer {
    /// By a certificate of the site's authority, in a TLS handshake.
    Certified(PeerIdentity),
    /// By the kernel, over a socket of this host.
    Local {
        /// The user it runs as.
        uid: u32,
        /// Its process, where the kernel says so.
        pid: Option<i32>,
    },
}

impl Peer {
    /// The identity, where a certificate gave one.
    pub const fn identity(&self) -> Option<PeerIdentity> {
        match self {
            Self::Certified(identity) => Some(*identity),
            Self::Local { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certified(identity) => identity.fmt(f),
            Self::Local {
                uid,
                pid: Some(pid),
            } => write!(f, "local process {pid} of user {uid}"),
            Self::Local { uid, pid: None } => write!(f, "a local process of user {uid}"),
        }
    }
}

/// The name of a role on a host.
pub(crate) fn name(site: SiteId, role: Role, host: HostId) -> String {
    format!("{}/role/{role}/{host}", site_name(site))
}

/// The name of a site's authority.
pub(crate) fn site_name(site: SiteId) -> String {
    format!("backstay://site/{site}")
}

/// The site of an authority's certificate in DER.
///
/// # Errors
/// `Invalid` where it is not the certificate of an authority of Backstay.
pub(crate) fn site_of_authority(der: &[u8]) -> Result<SiteId> {
    let certificate = parse(der)?;
    match uris(&certificate)?[..] {
        [uri] if certificate.is_ca() => match uri.strip_prefix("backstay://site/") {
            Some(site) => site.parse(),
            None => Err(malformed(
                "the authority's certificate does not name a site",
            )),
        },
        _ => Err(malformed("this is not the certificate of an authority")),
    }
}

/// Parses one certificate and nothing after it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(malformed("a certificate does not parse")),
    }
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| malformed("a certificate's alternative names do not parse"))?;
    let names = names
        .map(|names| names.value.general_names.as_slice())
        .unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect())
}

fn parse_name(uri: &str) -> Result<(SiteId, Role, HostId)> {
    let parts: Vec<&str> = uri.split('/').collect();
    match parts[..] {
        ["backstay:", "", "site", site, "role", role, host] => {
            Ok((site.parse()?, role.parse()?, host.parse()?))
        }
        _ => Err(malformed(
            "a certificate's URI is not the name of an identity",
        )),
    }
}

fn malformed(message: &str) -> Error {
    Error::new(Kind::Invalid, "protocol.certificate.malformed", message)
}
