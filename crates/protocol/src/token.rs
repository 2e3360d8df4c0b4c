//! The right to one bulk stream.
//!
//! Knows: the stream's id and a secret made for this stream alone. Refuses to know: what flows.

use crate::words::agent::StreamTicket;
use crate::words::secret::Secret;
use base::digest::Digest;
use base::id::StreamId;
use base::random::Random;
use base::{Error, Result};
use std::fmt;

/// Names one bulk stream and proves the right to it. Made by whoever gives the orders, told to both
/// agents over their links, used for one stream only and forgotten with it.
#[derive(Clone)]
pub struct StreamToken {
    /// Which stream.
    pub id: StreamId,
    secret: [u8; 32],
}

impl StreamToken {
    /// A new token for `id`.
    pub fn generate(id: StreamId, random: &dyn Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        Self { id, secret }
    }

    /// The token as orders carry it.
    pub fn ticket(&self) -> StreamTicket {
        // Digest writes 32 bytes as 64 hexadecimal digits.
        StreamTicket {
            id: self.id,
            token: Secret::new(Digest(self.secret).to_string()),
        }
    }

    /// The token of an order.
    ///
    /// # Errors
    /// `Invalid` (`protocol.token.malformed`) where it is not 64 hexadecimal digits.
    pub fn from_ticket(ticket: &StreamTicket) -> Result<Self> {
        let Ok(digest) = ticket.token.reveal().parse::<Digest>() else {
            // The cause is left out on purpose: it quotes the secret.
            return Err(Error::invalid(
                "protocol.token.malformed",
                format!(
                    "the token of stream {} is not 64 hexadecimal digits",
                    ticket.id
                ),
            ));
        };
        Ok(Self {
            id: ticket.id,
            secret: digest.0,
        })
    }

    /// From the bytes presented by a peer.
    pub(crate) const fn from_parts(id: StreamId, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// The secret, for the first frame of the stream.
    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Whether both are the same token. Takes the same time wherever the secrets differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.id == other.id
            && aws_lc_rs::constant_time::verify_slices_are_equal(&self.secret, &other.secret)
                .is_ok()
    }
}

impl fmt::Debug for StreamToken {
    /// Never shows the secret: tokens end up in logs of messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamToken({})", self.id)
    }
}

impl Drop for StreamToken {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;

    #[test]
    fn only_the_very_token_matches_and_its_secret_stays_out_of_logs() {
        let id = StreamId::new(1, [1; 10]);
        let token = StreamToken::generate(id, &SeededRandom::new(1));
        assert!(token.matches(&token.clone()));
        assert!(!token.matches(&StreamToken::generate(id, &SeededRandom::new(2))));
        let elsewhere = StreamToken {
            id: StreamId::new(2, [1; 10]),
            secret: token.secret,
        };
        assert!(!token.matches(&elsewhere));
        let mut ticket = token.ticket();
        assert!(token.matches(&StreamToken::from_ticket(&ticket).unwrap()));
        ticket.token = Secret::new("hunter2");
        let error = StreamToken::from_ticket(&ticket).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        assert_eq!(format!("{token:?}"), format!("StreamToken({id})"));
    }
}
