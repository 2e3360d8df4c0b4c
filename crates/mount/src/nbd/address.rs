//! Where an NBD export is found: a socket, an export's name, and whether TLS is demanded.
//!
//! Knows: the URI forms `nbd://`, `nbds://`, `nbd+unix://` and `nbds+unix://`.
//! Refuses to know: certificates (they come with the connection's options), name resolution.
//!
//! Source of the syntax: "NBD URI" of the NBD project (doc/uri.md).

use base::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port that IANA reserves for NBD.
pub const NBD_PORT: u16 = 10809;

/// The longest export name the protocol allows, in bytes.
const EXPORT_NAME_MAX: usize = 4096;

/// The socket a server listens on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NbdSocket {
    /// A Unix socket in the file system.
    Unix(PathBuf),
    /// A TCP port of a host (a name, an IPv4 or an IPv6 address without brackets).
    Tcp(String, u16),
}

/// Where an export is found.
///
/// Written and read as a URI: `nbd://host:port/export`, `nbd+unix:///export?socket=/path`, and the
/// same with `nbds` where TLS is demanded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NbdAddress {
    /// The server's socket.
    pub socket: NbdSocket,
    /// The export's name. Empty is the server's default export.
    pub export: String,
    /// Whether the connection must be encrypted. There is no silent fall-back to plain text.
    pub tls: bool,
    /// The name to demand of the server's certificate, where it is not the host's own name.
    pub tls_name: Option<String>,
}

impl NbdAddress {
    /// An export behind a Unix socket, without TLS.
    pub fn unix(path: impl Into<PathBuf>, export: impl Into<String>) -> Self {
        Self {
            socket: NbdSocket::Unix(path.into()),
            export: export.into(),
            tls: false,
            tls_name: None,
        }
    }

    /// An export behind a TCP port, without TLS.
    pub fn tcp(host: impl Into<String>, port: u16, export: impl Into<String>) -> Self {
        Self {
            socket: NbdSocket::Tcp(host.into(), port),
            export: export.into(),
            tls: false,
            tls_name: None,
        }
    }

    /// The same place, with TLS demanded.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

impl FromStr for NbdAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| malformed(text, "it has no scheme"))?;
        let (tls, unix) = match scheme {
            "nbd" => (false, false),
            "nbds" => (true, false),
            "nbd+unix" => (false, true),
            "nbds+unix" => (true, true),
            _ => return Err(malformed(text, "the scheme is none of ours")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let export = percent_decode(path).ok_or_else(|| malformed(text, "the export's name"))?;
        if export.len() > EXPORT_NAME_MAX || export.contains('\0') {
            return Err(malformed(
                text,
                "the export's name is too long or holds a zero byte",
            ));
        }
        let mut socket_path = None;
        let mut tls_name = None;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decode(value).ok_or_else(|| malformed(text, "a parameter"))?;
            match key {
                "socket" => socket_path = Some(value),
                "tls-hostname" => tls_name = Some(value),
                _ => {
                    return Err(malformed(
                        text,
                        &format!("the parameter \u{201c}{key}\u{201d}"),
                    ));
                }
            }
        }
        let socket = match (unix, socket_path) {
            (true, Some(path)) if authority.is_empty() && !path.is_empty() => {
                NbdSocket::Unix(PathBuf::from(path))
            }
            (false, None) => {
                parse_authority(authority).ok_or_else(|| malformed(text, "the host or the port"))?
            }
            _ => {
                return Err(malformed(
                    text,
                    "a Unix socket needs ?socket=PATH and no host",
                ));
            }
        };
        Ok(Self {
            socket,
            export,
            tls,
            tls_name,
        })
    }
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "nbds" } else { "nbd" })?;
        let export = percent_encode(&self.export, "/");
        let mut separator = '?';
        match &self.socket {
            NbdSocket::Unix(path) => {
                let path = percent_encode(&path.to_string_lossy(), "/");
                write!(f, "+unix:///{export}?socket={path}")?;
                separator = '&';
            }
            NbdSocket::Tcp(host, port) => {
                if host.contains(':') {
                    write!(f, "://[{host}]")?;
                } else {
                    write!(f, "://{host}")?;
                }
                if *port != NBD_PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{export}")?;
            }
        }
        if let Some(name) = &self.tls_name {
            write!(f, "{separator}tls-hostname={}", percent_encode(name, ""))?;
        }
        Ok(())
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn parse_authority(authority: &str) -> Option<NbdSocket> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (
            host,
            if rest.is_empty() {
                None
            } else {
                Some(rest.strip_prefix(':')?)
            },
        )
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
        Some(_) => return None,
        None => NBD_PORT,
    };
    if host.is_empty() || port == 0 || host.contains(['@', '%', ' ']) {
        return None;
    }
    Some(NbdSocket::Tcp(host.to_owned(), port))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn percent_encode(text: &str, also: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let kept = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if kept || also.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn malformed(text: &str, why: &str) -> Error {
    Error::invalid(
        "mount.nbd-address.malformed",
        format!("\u{201c}{text}\u{201d} is not the address of an NBD export: {why}"),
    )
    .hint("write nbd://host:port/export or nbd+unix:///export?socket=/path (nbds for TLS)")
}

#[cfg(test)]
mod tests;
