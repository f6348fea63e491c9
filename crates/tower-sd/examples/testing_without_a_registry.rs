//! Tests of code that discovers a service.
//!
//! The registry is a value in memory, the clock is paused.

use std::time::Duration;

use tower_sd::{FixedInstancer, Instance, Instancer, Result};

/// The code under test. It accepts any instancer.
async fn n_servers(orders: &impl Instancer) -> Result<usize> {
    let snapshot = orders.subscribe().ready(Duration::from_secs(1)).await?;
    Ok(snapshot.instances().len())
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the output of the example")]
async fn main() -> Result<()> {
    let orders = FixedInstancer::new([Instance::new("10.0.0.7", 8081)]);
    println!("{} server", n_servers(&orders).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use tower_sd::{ErrorKind, MemoryRegistry, Registration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn servers_are_counted_before_and_during_an_outage() {
        let registry = MemoryRegistry::new();
        let orders = registry.instancer("orders");
        let instance = Instance::new("10.0.0.7", 8081);
        let _handle = registry.register(Registration::new("orders", instance)).await;
        assert_eq!(n_servers(&orders).await.expect("answers"), 1);
        registry.interrupt();
        assert_eq!(n_servers(&orders).await.expect("the last set"), 1);
        let unread = n_servers(&registry.instancer("orders")).await;
        assert_eq!(unread.expect_err("no answer").kind(), ErrorKind::Timeout);
    }
}
