//! For those who have a [`reqwest::Client`].
//!
//! It is balanced over the instances of a service, or has names resolved by a registry.
//!
//! | | [`ReqwestFactory`] | [`InstanceResolver`] | [`HttpFactory`](crate::HttpFactory) |
//! |---|---|---|---|
//! | each request's instance | the balancer's pick | a pooled connection's | the balancer's pick |
//! | a dead instance costs | an attempt, repeated by `Retry` | nothing, on connecting | nothing |
//! | an instance that left gets | what it has | requests until its connections end | what it has |
//! | connections end | when idle | when idle | when idle, and by age |
//! | unix sockets | [on demand](ReqwestFactory::unix_sockets) | no | yes |
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
