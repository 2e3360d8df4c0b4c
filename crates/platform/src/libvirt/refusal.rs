//! What libvirt says when it refuses.
//!
//! Knows: libvirt's error numbers, the words that tell apart what one number covers, and which failure
//! of the contract each of them is. Refuses to know: what was asked.

use super::connection::Failure;
use super::procedure::code;
use super::xdr::Decoder;
use crate::contract::{MachineKey, failure};
use base::{Error, Kind, Result};

/// A refusal as libvirt sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The number (`VIR_ERR_…`).
    pub code: i32,
    /// The words.
    pub message: String,
}

impl Refusal {
    /// Reads it. The rest of libvirt's error structure repeats what the message says.
    pub fn decode(payload: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(payload);
        let code = decoder.i32()?;
        let _domain = decoder.i32()?;
        let message = decoder.optional(Decoder::string)?.unwrap_or_default();
        Ok(Self { code, message })
    }

    /// Whether another job or a stuck call holds the machine.
    pub fn is_busy(&self) -> bool {
        (self.code == code::OPERATION_TIMEOUT && self.message.contains("state change lock"))
            || (self.code == code::OPERATION_INVALID
                && (self.message.contains("another") || self.message.contains("already")))
                && self.message.contains("job")
    }

    /// Whether a backup job is neither there nor gone: at its very beginning and end libvirt has the
    /// job, but not what belongs to it. Looking again tells.
    pub fn is_between_jobs(&self) -> bool {
        self.code == code::INTERNAL_ERROR && self.message.contains("backup job data missing")
    }

    /// Whether a checkpoint's bitmap is not in its image.
    pub fn is_bitmap_missing(&self) -> bool {
        matches!(
            self.code,
            code::INTERNAL_ERROR | code::CHECKPOINT_INCONSISTENT
        ) && self.message.contains("bitmap")
    }

    /// Whether the machine should run and does not.
    pub fn is_inactive(&self) -> bool {
        self.code == code::OPERATION_INVALID
            && (self.message.contains("is not running") || self.message.contains("inactive"))
    }

    /// The failure of the contract that this is, said about `machine` while `doing`.
    pub fn into_error(self, machine: &str, doing: &str) -> Error {
        let (busy, inactive) = (self.is_busy(), self.is_inactive());
        let cause = || Said(format!("libvirt error {}: {}", self.code, self.message));
        match self.code {
            code::NO_DOMAIN => failure::machine_unknown(&MachineKey(machine.to_owned())),
            _ if busy => failure::busy(machine, &self.message),
            _ if inactive => failure::machine_inactive(machine, doing),
            code::AGENT_UNRESPONSIVE => failure::agent_absent(machine),
            code::NO_CHECKPOINT => failure::tracker_missing(&self.message),
            code::CHECKPOINT_INCONSISTENT => failure::tracker_inconsistent(&self.message),
            code::OPERATION_DENIED
            | code::AUTH_FAILED
            | code::AUTH_CANCELLED
            | code::AUTH_UNAVAILABLE
            | code::ACCESS_DENIED => Error::new(
                Kind::Denied,
                "platform.libvirt.denied",
                format!("libvirt does not allow {doing}: {}", self.message),
            )
            .hint("run as root or as a member of the group \u{201c}libvirt\u{201d} on that host"),
            number => {
                let (kind, code) = kind_of(number);
                Error::new(
                    kind,
                    code,
                    format!("{doing} failed for {machine}: {}", self.message),
                )
                .hint("libvirt's log on that host says more")
            }
        }
        .caused_by(cause())
    }
}

const fn kind_of(number: i32) -> (Kind, &'static str) {
    match number {
        code::NO_SUPPORT | code::CONFIG_UNSUPPORTED | code::OPERATION_UNSUPPORTED => {
            (Kind::Unsupported, "platform.libvirt.unsupported")
        }
        code::OPERATION_TIMEOUT | code::AGENT_COMMAND_TIMEOUT => {
            (Kind::Timeout, "platform.libvirt.operation-timeout")
        }
        code::OPERATION_INVALID => (Kind::Conflict, "platform.libvirt.not-now"),
        code::XML_ERROR | code::XML_INVALID_SCHEMA => {
            (Kind::Invalid, "platform.libvirt.definition-refused")
        }
        code::DOMAIN_EXISTS => (Kind::Exists, "platform.machine.exists"),
        _ => (Kind::Io, "platform.libvirt.failed"),
    }
}

impl Failure {
    /// The number of libvirt's refusal, if it is one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::Broken(_) => None,
        }
    }

    /// The error that people see.
    pub fn into_error(self, machine: &str, doing: &str) -> Error {
        match self {
            Self::Refused(refusal) => refusal.into_error(machine, doing),
            Self::Broken(error) => error.context(format!("{doing} failed for {machine}")),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// libvirt's own words, kept as the cause.
#[derive(Debug)]
struct Said(String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}
