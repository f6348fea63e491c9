//! Against real servers of Spring Cloud's.

mod foreign;
mod outages;
mod peers;
mod statuses;
mod support;
