//! How is an instance picked by a rule of my own?

use std::sync::Arc;

use axum::http::Request;
use tower_sd::{
    BoxError, Instancer,
    balance::{Balancer, Choice, Members, Picker},
    http::Client,
};

/// Prefers instances that have fewer requests in flight than a limit, in the order of the set.
#[derive(Debug)]
pub(crate) struct Fill {
    /// How many requests an instance gets before the next one is used.
    pub(crate) limit: usize,
}

struct FillPicker(usize);

impl Balancer for Fill {
    fn picker(&self, _: &Members<'_>) -> Arc<dyn Picker> {
        Arc::new(FillPicker(self.limit))
    }
}

impl Picker for FillPicker {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let usable = (0..choice.len()).filter(|&index| choice.is_usable(index));
        let free = |index: &usize| choice.in_flight(*index) < self.0;
        usable.clone().find(free).or_else(|| choice.first_usable(0))
    }
}

/// A client that fills one instance after the other.
pub(crate) fn client(orders: impl Instancer) -> Client {
    Client::builder(orders).balancer(Fill { limit: 100 }).build()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let registry = tower_sd::open("consul://127.0.0.1:8500")?;
    let request = Request::get("http://orders/orders").body(String::new())?;
    let response = client(registry.instancer("orders")?).request(request).await?;
    tracing::info!(status = %response.status(), "answered");
    Ok(())
}
