//! Tests across the crates, against real servers and real processes.
