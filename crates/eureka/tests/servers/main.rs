//! Against real servers of Spring Cloud's.

mod absence;
mod defaults;
mod foreign;
mod many;
mod outages;
mod peers;
mod statuses;
mod support;
