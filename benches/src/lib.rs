//! What the benchmarks share: measuring in turn, peers, results.

pub mod measure;
pub mod noop;
pub mod peers;
pub mod results;
