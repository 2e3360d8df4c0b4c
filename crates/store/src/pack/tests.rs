//! Packs read back; damaged trailers are replaced by a search.
