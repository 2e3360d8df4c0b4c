//! Trees read back, and broken ones are refused.
