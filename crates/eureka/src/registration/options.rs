use serde::Deserialize;

/// Eureka's own options of registrations.
///
/// See [`Eureka::with_options`](crate::Eureka::with_options).
///
/// ```
/// use tower_sd::eureka::{Eureka, EurekaConfig, RegistrationOptions};
///
/// let eureka = Eureka::new(EurekaConfig::new("http://127.0.0.1:8761/eureka"))?;
/// let options = RegistrationOptions::new().health_check_url("http://10.0.0.7:8081/health");
/// let eureka = eureka.with_options(options);
/// # Ok::<(), tower_sd::Error>(())
/// ```
///
/// In a configuration they have the names of the setters:
///
/// ```
/// # use tower_sd::eureka::RegistrationOptions;
/// let options: RegistrationOptions =
///     serde_json::from_str(r#"{"health_check_url": "http://10.0.0.7:8081/health"}"#)?;
/// # drop(options);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[must_use]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationOptions {
    pub(super) home_page_url: Option<String>,
    pub(super) status_page_url: Option<String>,
    pub(super) health_check_url: Option<String>,
}

impl RegistrationOptions {
    /// Creates the defaults: no URLs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the URL of the home page, which the server's own page links to.
    pub fn home_page_url(self, url: impl Into<String>) -> Self {
        Self { home_page_url: Some(url.into()), ..self }
    }

    /// Sets the URL of the status page, which the server's own page links to.
    pub fn status_page_url(self, url: impl Into<String>) -> Self {
        Self { status_page_url: Some(url.into()), ..self }
    }

    /// Sets the URL of the health check.
    ///
    /// Neither a server nor most clients call it: the health check of the
    /// [`Registration`](tower_sd_core::Registration) decides on the status.
    pub fn health_check_url(self, url: impl Into<String>) -> Self {
        Self { health_check_url: Some(url.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_the_options_of_the_code() {
        let text = r#"{"home_page_url": "http://h/", "status_page_url": "http://h/info",
            "health_check_url": "http://h/health"}"#;
        let options: RegistrationOptions = serde_json::from_str(text).expect("options");
        let expected = RegistrationOptions::new()
            .home_page_url("http://h/")
            .status_page_url("http://h/info")
            .health_check_url("http://h/health");
        assert_eq!(options, expected);
        let error = serde_json::from_str::<RegistrationOptions>(r#"{"health_url": "http://h/"}"#)
            .expect_err("no such field");
        assert!(error.to_string().contains("health_url"), "{error}");
    }
}
