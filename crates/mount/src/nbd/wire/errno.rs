//! The error numbers that cross the wire.
//!
//! Knows: the protocol's few numbers and which kind of our errors each stands for, both ways.
//! Refuses to know: the operating system's numbers.

use base::{Error, Kind};

/// An error number of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Errno(pub u32);

impl Errno {
    /// Not permitted: a write to a read-only export.
    pub const PERM: Self = Self(1);
    /// Reading or writing failed.
    pub const IO: Self = Self(5);
    /// Not enough memory.
    pub const NOMEM: Self = Self(12);
    /// The request does not make sense.
    pub const INVAL: Self = Self(22);
    /// No space left.
    pub const NOSPC: Self = Self(28);
    /// The request is too large.
    pub const OVERFLOW: Self = Self(75);
    /// Not supported.
    pub const NOTSUP: Self = Self(95);
    /// The server is being shut down.
    pub const SHUTDOWN: Self = Self(108);

    /// The number that tells a client of one of our errors.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            Kind::Denied => Self::PERM,
            Kind::Invalid => Self::INVAL,
            Kind::Full => Self::NOSPC,
            Kind::Unsupported => Self::NOTSUP,
            Kind::Cancelled => Self::SHUTDOWN,
            _ => Self::IO,
        }
    }

    /// Its name in the protocol's document.
    pub fn name(self) -> &'static str {
        match self {
            Self::PERM => "EPERM",
            Self::IO => "EIO",
            Self::NOMEM => "ENOMEM",
            Self::INVAL => "EINVAL",
            Self::NOSPC => "ENOSPC",
            Self::OVERFLOW => "EOVERFLOW",
            Self::NOTSUP => "ENOTSUP",
            Self::SHUTDOWN => "ESHUTDOWN",
            _ => "an unknown error",
        }
    }

    /// What sort of failure it is, and its stable code. Unknown numbers count as EINVAL, as the
    /// protocol asks.
    pub fn kind_and_code(self) -> (Kind, &'static str) {
        match self {
            Self::PERM => (Kind::Denied, "mount.nbd.refused-eperm"),
            Self::IO => (Kind::Io, "mount.nbd.refused-eio"),
            Self::NOMEM => (Kind::Limit, "mount.nbd.refused-enomem"),
            Self::NOSPC => (Kind::Full, "mount.nbd.refused-enospc"),
            Self::OVERFLOW => (Kind::Limit, "mount.nbd.refused-eoverflow"),
            Self::NOTSUP => (Kind::Unsupported, "mount.nbd.refused-enotsup"),
            Self::SHUTDOWN => (Kind::Unreachable, "mount.nbd.refused-eshutdown"),
            _ => (Kind::Invalid, "mount.nbd.refused-einval"),
        }
    }
}
