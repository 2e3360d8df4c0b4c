//! Bulk data between the threads of two agents.
//!
//! Knows: records (a kind, a sequence number, bytes) that flow both ways over a link of their own,
//! the right to do so, a window that bounds what is on its way, and an end that both sides know of.
//! Refuses to know: what the records are.
//!
//! Threads that carry bytes block in [`BulkSender::send`] and [`BulkReceiver::receive`]; tasks of
//! the runtime move the frames. Either side may dial: the one that dials presents the token, the
//! other one expects it in its [`StreamRegister`].
//!
//! # The end
//! Each direction ends by itself: `finish` of the sender returns once the receiver has called its
//! own `finish`, which it does when all it took is safe. A direction on which nothing was ever sent
//! may simply be dropped. Anything else that is dropped before its end fails the stream on both
//! sides.

mod breaker;
mod engine;
mod receive;
mod register;
mod send;
mod state;
pub(crate) mod wire;

pub use breaker::StreamBreaker;
pub use receive::{BulkReceiver, BulkRecord};
pub use register::{ExpectedStream, StreamRegister};
pub use send::BulkSender;

use crate::blocking::wait;
use crate::link::{Dialer, Link, Purpose};
use crate::token::StreamToken;
use crate::verify::Expect;
use base::Result;
use base::size::{ByteCount, MIB};
use std::time::Duration;
use tokio::runtime::Handle;

/// What each record costs of a window beside its bytes: small ones need memory too.
pub const RECORD_OVERHEAD: u64 = 256;

/// Bounds of one stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BulkOptions {
    /// Bytes that this side holds, received but not yet taken by [`BulkReceiver::receive`]; and
    /// the most it sends ahead, where the other side would hold even more. One record may always
    /// be on its way, however large.
    pub window: ByteCount,
    /// The stream has failed when a thread waited for so long and nothing at all happened.
    pub stall: Duration,
    /// The same for the other side's word that all is safe: it may have much to write.
    pub finish: Duration,
}

impl Default for BulkOptions {
    fn default() -> Self {
        Self {
            window: ByteCount(32 * MIB),
            stall: Duration::from_secs(600),
            finish: Duration::from_secs(600),
        }
    }
}

/// How much flowed one way and how long it took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BulkCounters {
    /// Records.
    pub records: u64,
    /// Their bytes, without frames and TLS.
    pub bytes: ByteCount,
    /// How long the link was busy with writing, both ways' frames together: encrypting, and waiting
    /// for the network to take more. 0 for a receiver.
    pub busy: Duration,
    /// How long the thread waited: a sender for room, which means that network or receiver are
    /// slower; a receiver for records, which means that network or sender are slower.
    pub waiting: Duration,
}

/// Both halves of a stream. A half that is not needed may be dropped at once.
pub type BulkHalves = (BulkSender, BulkReceiver);

/// Dials the agent that expects the stream and presents the token.
///
/// # Errors
/// As [`Dialer::dial`]; `Denied` (`protocol.stream.denied`) where the token is not expected there.
pub fn dial_stream(
    runtime: &Handle,
    dialer: &Dialer,
    address: &str,
    expect: Expect,
    token: &StreamToken,
    options: BulkOptions,
) -> Result<BulkHalves> {
    let (dialer, address, token) = (dialer.clone(), address.to_owned(), token.clone());
    wait(runtime, async move {
        let link = dialer.dial(&address, expect, Purpose::Bulk).await?;
        present(link, &token, options).await
    })?
}

/// Presents the token over a link that is there already, which must be for bulk data.
///
/// # Errors
/// `Denied` (`protocol.stream.denied`) where the token is not expected there.
pub async fn present(link: Link, token: &StreamToken, options: BulkOptions) -> Result<BulkHalves> {
    engine::present(link, token, options).await
}
