//! Active checks of endpoints.

mod checks;
mod policy;
mod shared;

pub(crate) use self::checks::check;
pub use self::policy::HealthPolicy;
