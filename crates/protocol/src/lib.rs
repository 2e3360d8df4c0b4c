//! Every word that one process of Backstay says to another, and the wire it is said over.
//!
//! Knows: who a process is (certificates of the site's own authority), how bytes become frames,
//! how frames become calls and answers, how bulk data flows between two agents, and the words.
//! Refuses to know: what the words make the other side do, databases, disks, repositories.
//!
//! # The storeys of this room
//! - [`frame`]: a header, a payload, a checksum. No sockets.
//! - [`authority`], [`identity`], [`peer`], [`revocations`], [`verify`]: certificates and what is
//!   checked in the handshake.
//! - [`link`]: a connection whose two ends know each other: dial, listen, keepalive. Async.
//! - [`call`] and [`mod@serve`]: typed requests and answers over a link, many at a time.
//! - [`stream`]: bulk data between threads of two agents over a link.
//! - [`words`]: the messages themselves; [`paging`] for what is longer than one.
//!
//! The wire is written down for other implementations in `docs/protocols/`.

pub mod authority;
mod blocking;
pub mod call;
pub mod error_word;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod identity;
mod keyfile;
pub mod link;
mod message;
pub mod paging;
pub mod peer;
pub mod revocations;
pub mod serve;
pub mod stream;
pub mod token;
pub mod verify;
pub mod version;
pub mod words;

pub use authority::Authority;
pub use call::{BlockingClient, Client};
pub use error_word::ErrorWord;
pub use identity::Identity;
pub use link::{Dialer, Link, LinkOptions, Listener, Purpose};
pub use peer::{Peer, PeerIdentity, Role};
pub use serve::{Call, Service, serve};
pub use stream::{BulkOptions, BulkReceiver, BulkSender, StreamRegister, dial_stream};
pub use token::StreamToken;
pub use verify::Expect;
