//! The store through its public face, against a model that is a vector of bytes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod collect;
mod damage;
mod faults;
mod line;
mod recover;
mod support;
