//! NBD messages as bytes: every header and payload of the handshake and of the transmission.
//!
//! Knows: layouts, magic numbers, flags and the bounds on everything a peer may send.
//! Refuses to know: sockets, threads, which message may follow which. All of it works on byte
//! slices, so that a test or a fuzzer can feed it anything.
//!
//! Source: "The NBD protocol" (doc/proto.md of the NBD project) and its extended headers
//! extension. All numbers are big-endian.

pub mod errno;
mod fields;
pub mod option;
pub mod reply;
pub mod request;

pub use errno::Errno;
pub use fields::Fields;

use base::{Error, Kind};

/// First word of every server: `NBDMAGIC`.
pub const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of a newstyle server, and first of every option: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second word of an oldstyle server, which we refuse.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;

/// Handshake flag of a server, and its echo by the client: options may fail without a hang-up.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag: no 124 bytes of padding after `EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 2;

/// Transmission flag that is always there.
pub const FLAG_HAS_FLAGS: u16 = 1;
/// Transmission flag: writes are refused.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `FLUSH` is understood.
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: the command flag FUA is understood.
pub const FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: `TRIM` is understood.
pub const FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `WRITE_ZEROES` is understood.
pub const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: the command flag DF is understood.
pub const FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: several connections see one another's writes.
pub const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;

/// The longest string the protocol allows, in bytes.
pub const STRING_MAX: usize = 4096;
/// The largest option or option reply we take. Two strings and sixteen queries fit with room.
pub const OPTION_DATA_MAX: u32 = 128 * 1024;
/// The most bytes of one read or write where the server says nothing, and what we serve.
pub const PAYLOAD_MAX: u32 = 32 * 1024 * 1024;
/// The most descriptors of one block status chunk.
pub const DESCRIPTORS_MAX: usize = 1 << 20;
/// The most metadata contexts of one connection.
pub const CONTEXTS_MAX: usize = 16;

/// A peer that breaks the protocol. The connection cannot be used after it.
pub fn violation(what: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "mount.nbd.protocol-violation", what.into())
        .hint("the other side does not speak NBD correctly; check what listens there")
}

#[cfg(test)]
mod tests;
