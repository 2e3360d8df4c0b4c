//! Segments answer as a map would.
