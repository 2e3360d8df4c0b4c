//! A failure that several waiting threads are told of.
//!
//! Knows: what makes an error, in a form that can be copied. Refuses to know: who waits.

use super::super::wire::Errno;
use base::{Error, Kind};
use std::io;

/// A failure that can be told more than once.
#[derive(Clone, Debug)]
pub struct Fault {
    kind: Kind,
    code: String,
    message: String,
    hint: Option<String>,
}

impl Fault {
    /// The same as `error`.
    pub fn of(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            code: error.code().to_owned(),
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }
    }

    /// The server answered a request with an error.
    pub fn refusal(error: Errno, text: &str) -> Self {
        let (kind, code) = error.kind_and_code();
        let said = if text.is_empty() {
            String::new()
        } else {
            format!(": {text}")
        };
        let hint = match kind {
            Kind::Full => Some("free space where the NBD server writes"),
            Kind::Io => Some("look at the NBD server's own log; its storage failed"),
            _ => None,
        };
        Self {
            kind,
            code: code.to_owned(),
            message: format!("the NBD server answers {}{said}", error.name()),
            hint: hint.map(str::to_owned),
        }
    }

    /// As an error.
    pub fn error(&self) -> Error {
        let error = Error::new(self.kind, self.code.clone(), self.message.clone());
        match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }
}

/// A stream that failed in the middle of something.
pub fn broken_stream(error: io::Error) -> Error {
    let (kind, code, what, hint) = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => (
            Kind::Timeout,
            "mount.nbd.timeout",
            "the other side of the NBD connection does not answer in time",
            "check that the other side is alive, then connect again",
        ),
        io::ErrorKind::InvalidData => (
            Kind::Denied,
            "mount.nbd.tls-failed",
            "the encrypted NBD connection failed",
            "check both sides' certificates, names and times of validity",
        ),
        _ => (
            Kind::Unreachable,
            "mount.nbd.connection-lost",
            "the NBD connection was lost",
            "check that the other side is alive, then connect again",
        ),
    };
    Error::new(kind, code, what).hint(hint).caused_by(error)
}

/// The connection was closed on this side while a request was under way.
pub fn closed() -> Error {
    Error::new(
        Kind::Cancelled,
        "mount.nbd.closed",
        "the NBD connection was closed on this side",
    )
}
