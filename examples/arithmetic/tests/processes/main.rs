//! The program as its users run it: real processes on loopback.

mod commands;
mod gateway;
mod server;
mod traffic;
