//! The server as its peers see it: requests in, answers out, rows kept. Managers are played here.

// The lints that keep panics out of the program do not know that all of this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod console;
mod database;
mod managers;
mod scene;
