//! The database keeps what it is told.
