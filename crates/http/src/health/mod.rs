//! Active checks of endpoints.

mod checks;
mod policy;

pub(crate) use self::checks::check;
pub use self::policy::HealthPolicy;
