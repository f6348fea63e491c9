//! The request path from outside: endpointer, balance and retry.
//!
//! The test decides every response of their services.

#![expect(clippy::disallowed_methods, reason = "a test ends with the tasks that it starts")]
#![expect(
    clippy::future_not_send,
    clippy::unwrap_used,
    reason = "these are tests and their helpers"
)]

mod budget;
mod cancel;
mod checks;
mod churn;
mod cold;
mod deadline;
mod discover;
mod down;
mod ejection;
mod endpointer;
mod faults;
mod fleet;
mod go_kit;
mod hedge;
mod held;
mod labels;
mod last_resort;
mod least_loaded;
mod limited_retries;
mod limits;
mod load;
mod log;
mod outcomes;
mod panics;
mod pauses;
mod probation;
mod retry;
mod seams;
mod slow_start;
mod support;
mod truth;
