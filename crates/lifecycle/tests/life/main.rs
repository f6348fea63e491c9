//! A server's life on a paused clock, with a registry in memory. No connection is ever made.

mod orders;
mod scene;
mod start;
mod stop;
