//! The request path from outside: endpointer, balance and retry over services whose every answer
//! the test decides.

#![expect(clippy::disallowed_methods, reason = "a test ends with the tasks that it starts")]
#![expect(
    clippy::future_not_send,
    clippy::unwrap_used,
    reason = "these are tests and their helpers"
)]

mod cancel;
mod churn;
mod discover;
mod down;
mod endpointer;
mod go_kit;
mod last_resort;
mod outcomes;
mod retry;
mod seams;
mod support;
mod truth;
