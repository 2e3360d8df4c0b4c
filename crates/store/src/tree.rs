//! Trees: a disk as a radix tree over its windows (format page, section "Trees").
//!
//! Knows: nodes, leaves and roots. Refuses to know: where they are stored.
