//! A server's life on a paused clock, with a registry in memory. No connection is ever made.

mod moments;
mod orders;
mod scene;
mod several;
mod start;
mod stop;
