//! The cache of live services: one endpoint per instance, kept across updates.

mod factory;
mod hold;
mod lease;

pub use self::{
    factory::{Factory, FactoryFn, factory_fn},
    hold::{Hold, ToResponse},
    lease::Lease,
};
