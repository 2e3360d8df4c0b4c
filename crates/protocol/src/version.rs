//! Which versions of the protocol this program speaks.
//!
//! Knows: the range of versions and how two ends agree on one. Refuses to know: what changed.
//!
//! # What may change in which way
//! Messages are postcard-encoded enums, and postcard has no field names: *any* change of a message
//! is a new protocol version. New variants go to the end of an enum; a message that changed keeps
//! its old shape beside the new one for as long as [`OLDEST`] says.

use base::{Error, Kind, Result};

/// The newest version of the protocol that this program speaks.
pub const NEWEST: u16 = 1;
/// The oldest version of the protocol that this program still speaks.
pub const OLDEST: u16 = 1;
/// The name of the protocol in the TLS handshake (ALPN). The number is the major version of the
/// frames below the messages; it changes only where two ends cannot even exchange a hello.
pub const ALPN: &[u8] = b"backstay/1";
/// This program's own version, told to the peer for its log. No decision hangs on it.
pub const PROGRAM: &str = concat!("backstay ", env!("CARGO_PKG_VERSION"));

/// The newest version that both ends speak.
///
/// # Errors
/// `Unsupported` with code `protocol.version.mismatch` where there is none, or where the peer's
/// range is upside down.
pub fn agree(peer_oldest: u16, peer_newest: u16, peer_program: &str) -> Result<u16> {
    let version = NEWEST.min(peer_newest);
    if peer_oldest <= peer_newest && version >= OLDEST && version >= peer_oldest {
        return Ok(version);
    }
    Err(Error::new(
        Kind::Unsupported,
        "protocol.version.mismatch",
        format!(
            "the peer ({peer_program}) speaks protocol versions {peer_oldest} to {peer_newest}, \
             this program ({PROGRAM}) speaks {OLDEST} to {NEWEST}"
        ),
    )
    .hint("upgrade the older of the two programs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(agree(1, 1, "x").unwrap(), 1);
        assert_eq!(agree(0, 9, "x").unwrap(), NEWEST);
        for (oldest, newest) in [(NEWEST + 1, NEWEST + 3), (0, 0), (9, 1)] {
            let error = agree(oldest, newest, "x").unwrap_err();
            assert_eq!(error.code(), "protocol.version.mismatch");
            assert_eq!(error.kind(), Kind::Unsupported);
        }
    }
}
