use std::{future, mem, sync::Weak};

use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tower_sd_core::{Shutdown, Subscription};

use super::{Factory, Shared, contain::contain, factories::Factories, state::Event};

/// Applies what the registry, the runs and the requests bring, while no request flows too.
///
/// It owns no service: with the last handle they are all dropped, whatever this task is doing.
pub(super) async fn work<F: Factory>(
    shared: Weak<Shared<F::Service>>,
    mut subscription: Subscription,
    mut runs: Factories<F>,
    stop: Shutdown,
) {
    let Some(wake) = shared.upgrade().map(|shared| shared.wake()) else {
        return;
    };
    let mut following = true;
    let mut event = Some(Event::Snapshot(subscription.snapshot()));
    while let Some(deadline) = step(&shared, &mut runs, event.take()) {
        event = select! {
            biased;
            () = stop.requested() => break,
            changed = subscription.changed(), if following => match changed {
                Ok(snapshot) => Some(Event::Snapshot(snapshot)),
                // Its loop was closed: the set stays what it is.
                Err(_) => {
                    following = false;
                    None
                }
            },
            event = runs.next() => Some(event),
            () = wake.notified() => None,
            () = until(deadline) => None,
        };
    }
    runs.shutdown().await;
}

/// The next deadline. `None`: no handle is left.
fn step<F: Factory>(
    shared: &Weak<Shared<F::Service>>,
    runs: &mut Factories<F>,
    event: Option<Event<F::Service>>,
) -> Option<Option<Instant>> {
    let shared = shared.upgrade()?;
    let ended = std::iter::from_fn(|| runs.another()).collect::<Vec<_>>();
    let mut effects = shared.apply(event.into_iter().chain(ended));
    effects.stop.iter().for_each(|id| runs.stop(id));
    mem::take(&mut effects.make).into_iter().for_each(|make| runs.make(make));
    mem::take(&mut effects.probe).into_iter().for_each(|probe| runs.probe(probe));
    contain("drop of a service", || drop(effects));
    Some(shared.next_deadline())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}
