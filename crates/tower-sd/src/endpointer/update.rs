use std::{
    future,
    sync::{Arc, Weak},
};

use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tower_sd_core::{Stop, Subscription};

use super::{Factory, making::Making, shared::Shared};

/// Applies what the registry and the factories bring, while no request flows too.
///
/// It owns no service: with the last handle they are all dropped, whatever this task is doing.
pub(super) async fn update<F: Factory>(
    shared: Weak<Shared<F::Service>>,
    mut subscription: Subscription,
    mut making: Making<F>,
    stop: Stop,
) {
    let Some(wake) = shared.upgrade().map(|shared| Arc::clone(&shared.wake)) else {
        return;
    };
    let mut following = apply(&shared, &mut making, &subscription).is_some();
    loop {
        let deadline = match shared.upgrade() {
            Some(shared) => shared.next_deadline(),
            None => break,
        };
        select! {
            biased;
            () = stop.requested() => break,
            changed = subscription.changed(), if following => match changed {
                Ok(_) => following = apply(&shared, &mut making, &subscription).is_some(),
                // Its loop was closed: the set stays what it is.
                Err(_) => following = false,
            },
            made = making.next() => {
                let Some(shared) = shared.upgrade() else { break };
                drop(shared.update(|state| {
                    let mut todo = state.made(&made.id, made.making, made.service);
                    while let Some(made) = making.another() {
                        let also = state.made(&made.id, made.making, made.service);
                        todo.changed |= also.changed;
                        todo.spare.extend(also.spare);
                    }
                    todo
                }));
            }
            () = wake.notified() => {}
            () = until(deadline) => if let Some(shared) = shared.upgrade() {
                shared.give_up(Instant::now());
            },
        }
    }
    making.shutdown().await;
}

fn apply<F: Factory>(
    shared: &Weak<Shared<F::Service>>,
    making: &mut Making<F>,
    subscription: &Subscription,
) -> Option<()> {
    let shared = shared.upgrade()?;
    let snapshot = subscription.snapshot();
    let todo = shared.update(|state| state.apply(&snapshot));
    todo.stop.iter().for_each(|id| making.stop(id));
    todo.make.into_iter().for_each(|make| making.start(make));
    Some(())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}
