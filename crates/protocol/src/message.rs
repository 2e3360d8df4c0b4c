//! Messages as bytes: the version they are written in, then postcard.
//!
//! Knows: the two bytes in front and the bound on the whole. Refuses to know: which messages.
//!
//! Message types must not contain themselves: postcard follows any depth, so a recursive type
//! would let a peer exhaust the stack.

use base::limit::MESSAGE_SIZE_MAX;
use base::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The message as bytes.
///
/// # Errors
/// `Limit` (`protocol.message.too-large`).
pub(crate) fn encode<T: Serialize>(version: u16, message: &T) -> Result<Vec<u8>> {
    let bytes = postcard::to_extend(message, version.to_le_bytes().to_vec()).map_err(|error| {
        Error::new(
            Kind::Bug,
            "protocol.message.unsendable",
            "a message cannot be encoded",
        )
        .caused_by(error)
    })?;
    if bytes.len() > MESSAGE_SIZE_MAX {
        return Err(Error::new(
            Kind::Limit,
            "protocol.message.too-large",
            format!(
                "a message of {} bytes is larger than {MESSAGE_SIZE_MAX}",
                bytes.len()
            ),
        ));
    }
    Ok(bytes)
}

/// The message in all of `bytes`.
///
/// # Errors
/// `Unsupported` (`protocol.message.version`) for another version than agreed; `Invalid`
/// (`protocol.message.malformed`) for anything that is not exactly one message.
pub(crate) fn decode<T: DeserializeOwned>(version: u16, bytes: &[u8]) -> Result<T> {
    let malformed = || {
        Error::invalid(
            "protocol.message.malformed",
            "a message from the peer does not parse",
        )
        .hint("upgrade the older of the two programs")
    };
    let Some((told, rest)) = bytes.split_first_chunk::<2>() else {
        return Err(malformed());
    };
    let told = u16::from_le_bytes(*told);
    if told != version {
        return Err(Error::new(
            Kind::Unsupported,
            "protocol.message.version",
            format!("a message is in version {told}, version {version} was agreed"),
        ));
    }
    match postcard::take_from_bytes(rest) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(malformed()),
        Err(error) => Err(malformed().caused_by(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::agent::{AgentRequest, AgentResponse};
    use crate::words::console::{ConsoleRequest, ConsoleResponse};
    use proptest::prelude::*;

    #[test]
    fn exactly_one_message_of_the_agreed_version() {
        let bytes = encode(1, &("backstay", 7u32)).unwrap();
        assert_eq!(
            decode::<(String, u32)>(1, &bytes).unwrap(),
            ("backstay".into(), 7)
        );
        assert_eq!(
            decode::<(String, u32)>(2, &bytes).unwrap_err().code(),
            "protocol.message.version"
        );
        for end in 0..bytes.len() {
            assert!(decode::<(String, u32)>(1, &bytes[..end]).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(decode::<(String, u32)>(1, &longer).is_err());
        assert!(encode(1, &vec![0u8; MESSAGE_SIZE_MAX]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if bytes.len() >= 2 {
                bytes[..2].copy_from_slice(&1u16.to_le_bytes());
            }
            let _ = decode::<AgentRequest>(1, &bytes);
            let _ = decode::<AgentResponse>(1, &bytes);
            let _ = decode::<ConsoleRequest>(1, &bytes);
            let _ = decode::<ConsoleResponse>(1, &bytes);
            let _ = decode::<crate::ErrorWord>(1, &bytes);
        }
    }
}
