//! The store through its public face, against a model that is a vector of bytes.

mod line;
mod support;
