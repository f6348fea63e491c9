use std::str::FromStr;

use serde::Deserialize;
use tower_sd_core::{Error, Result};

use crate::error::{self, CONFIGURE};

/// The Service to follow, and which of its ports.
///
/// As text it is `orders`, or `orders:grpc` for the port of this name.
///
/// ```
/// use tower_sd::kubernetes::Query;
///
/// let query = Query::new("orders").port("grpc");
/// assert_eq!(query, "orders:grpc".parse()?);
/// # Ok::<(), tower_sd::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Query {
    pub(crate) service: String,
    pub(crate) port: Option<String>,
}

/// The IP family of a Service with both.
///
/// Each of its pods has an address of both, and as two instances it would get twice the traffic.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The IPv4 address of a pod, or the IPv6 address of one without.
    #[default]
    Ipv4First,
    /// The IPv6 address of a pod, or the IPv4 address of one without.
    Ipv6First,
    /// All of them, each an instance.
    Both,
}

impl Query {
    /// Follows a Service at its only TCP port.
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into(), port: None }
    }

    /// Sets the name of the port, as the Service has it.
    ///
    /// Needed for a Service with several ports. Defaults to the only one.
    pub fn port(self, name: impl Into<String>) -> Self {
        Self { port: Some(name.into()), ..self }
    }

    /// Refuses what no Service can be called.
    pub(crate) fn validate(&self) -> Result<()> {
        if !is_label(&self.service) {
            let message = format!(
                "service {:?}: a name of Kubernetes has letters in lower case, digits and \
                 hyphens; the namespace belongs into the registry's URL",
                self.service
            );
            return Err(error::config(CONFIGURE, message));
        }
        match &self.port {
            Some(port) if !is_label(port) => {
                let message = format!("port {port:?}: a Service's ports are chosen by name");
                Err(error::config(CONFIGURE, message))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Query {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let query = Self::from(text);
        query.validate()?;
        Ok(query)
    }
}

impl<T: AsRef<str>> From<T> for Query {
    fn from(text: T) -> Self {
        let text = text.as_ref();
        match text.split_once(':') {
            Some((service, port)) => Self::new(service).port(port),
            None => Self::new(text),
        }
    }
}

/// RFC 1123 §2.1, in lower case.
pub(crate) fn is_label(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

const MAX_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_and_port_are_names_of_kubernetes() {
        assert_eq!(Query::from("orders:grpc"), Query::new("orders").port("grpc"));
        for text in ["orders", "orders:grpc", "a-1"] {
            assert!(text.parse::<Query>().is_ok(), "{text}");
        }
        for text in ["", "Orders", "shop/orders", "orders.shop", "orders:", "a_b", "-a", "a:b:c"] {
            assert!(text.parse::<Query>().is_err(), "{text}");
        }
    }
}
