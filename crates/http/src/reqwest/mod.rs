//! For those who have a [`reqwest::Client`]: balanced over the instances of a service, or with
//! names resolved by a registry.
//!
//! | | [`ReqwestFactory`] | [`InstanceResolver`] | [`HttpFactory`](crate::HttpFactory) |
//! |---|---|---|---|
//! | each request goes to | the instance that the balancer picks | the instance of a pooled connection | the instance that the balancer picks |
//! | a dead instance costs | an attempt, repeated by `Retry` | nothing, when a connection is made | nothing |
//! | an instance that left gets | what it has | requests until its connections close | what it has |
//! | certificates are for | the instance's host | the service's name | the service's name |
//! | you keep | cookies, redirects, decompression, proxies | all of reqwest | – |

mod client;
mod endpoint;
mod hold;
mod resolver;

pub use client::{ReqwestClient, ReqwestClientBuilder, ReqwestFuture};
pub use endpoint::{ReqwestEndpoint, ReqwestFactory, ResponseFuture};
pub use resolver::InstanceResolver;

#[cfg(test)]
mod tests;
