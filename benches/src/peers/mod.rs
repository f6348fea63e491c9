//! What one would use instead.

pub mod go_kit;
pub mod pingora;
pub mod tower_p2c;
