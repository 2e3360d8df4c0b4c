//! Sessions played against the simulated platform, a server and agents that this test plays, and cut
//! or failed at every single deed.

// The lints that keep panics out of the program do not know that all of this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod cuts;
mod plans;
mod scene;
mod shown;
