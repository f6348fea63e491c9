//! A server as tower's services have it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};
use tower::Service;
use tower_sd_balance::BoxError;

use crate::world::World;

#[derive(Clone)]
pub struct Node {
    pub world: Arc<World>,
    pub index: usize,
}

impl Node {
    /// Sends a request now.
    pub fn send(&self) -> BoxFuture<'static, Result<(), BoxError>> {
        let (world, index, begun) = (Arc::clone(&self.world), self.index, Instant::now());
        let taken = world.arrive(index);
        Box::pin(async move {
            sleep_until(taken.ends).await;
            world.depart(index, &taken, begun.elapsed());
            if taken.fails { Err("it fails".into()) } else { Ok(()) }
        })
    }
}

impl Service<()> for Node {
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.send()
    }
}
