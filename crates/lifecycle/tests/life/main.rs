//! A server's life on a paused clock, without connections.

mod moments;
mod orders;
mod scene;
mod several;
mod start;
mod stop;
mod table;
