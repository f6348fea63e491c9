//! Against real servers of Spring Cloud's.

mod absence;
mod foreign;
mod outages;
mod peers;
mod statuses;
mod support;
