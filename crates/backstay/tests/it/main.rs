//! The real program, as people run it: `backstay up` and the command line, on real files.
//!
//! Needs `qemu-img` and `qemu-io` (Debian's qemu-utils), `strace`, `bash`, and root for a small file
//! system of its own. A part that is missing fails the test that needs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alone;
mod backup;
mod command;
mod damage;
mod faults;
mod images;
mod kills;
mod refusals;
mod shell;
mod site;
mod upgrade;
