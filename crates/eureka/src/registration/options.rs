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
#[derive(Clone, Debug, Default)]
#[must_use]
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
