//! The store through its public face, against a model that is a vector of bytes.

mod collect;
mod damage;
mod line;
mod support;
