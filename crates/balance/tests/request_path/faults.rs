//! 100 000 requests with random faults, against servers that count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::BoxFuture;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, BoxError, Endpointer, FailureClass, FixedInstancer, HedgePolicy, Instance,
    NotSent, Outcome, Protocol, RetryError, RetryPolicy, Verdict,
};

use crate::support::settle;

const N: u32 = 100_000;
const DEADLINE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
struct Request {
    id: u32,
    is_post: bool,
}

/// As over HTTP: methods decide what is repeated, and a status of 503 is a failure.
#[derive(Clone)]
struct Methods;

impl Protocol<Request, u16> for Methods {
    fn copy(&self, request: &Request) -> Option<Request> {
        Some(*request)
    }

    fn is_idempotent(&self, request: &Request) -> bool {
        !request.is_post
    }

    fn outcome(&self, result: Result<&u16, &BoxError>) -> Outcome {
        match result {
            Ok(503) => Outcome::Failed(FailureClass::Response),
            result => result.map_or_else(Outcome::of_error, |_| Outcome::Success),
        }
    }

    fn verdict(&self, result: Result<&u16, &BoxError>) -> Verdict {
        match result {
            Err(error) => Verdict::of_error(error),
            Ok(503) => Verdict::Failed,
            Ok(_) => Verdict::Final,
        }
    }
}

struct World {
    rng: Rng,
    arrived: HashMap<Request, u32>,
}

/// One server: 1 to 5 ms, and 2 % of the requests meet a fault.
#[derive(Clone)]
struct Faulty(Arc<Mutex<World>>);

enum Fault {
    /// Nothing arrives.
    NotSent,
    /// The connection breaks when the request has arrived.
    Breaks,
    /// The answer takes longer than anything waits.
    Stalls,
    Fails,
}

impl Faulty {
    fn fault(rng: &mut Rng) -> Option<Fault> {
        match rng.u32(..200) {
            0 => Some(Fault::NotSent),
            1 => Some(Fault::Breaks),
            2 => Some(Fault::Stalls),
            3 => Some(Fault::Fails),
            _ => None,
        }
    }
}

impl Service<Request> for Faulty {
    type Response = u16;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<u16, BoxError>>;

    /// A connection is refused now and then.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.0.lock().unwrap().rng.u32(..5_000) {
            0 => Poll::Ready(Err("refused".into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut world = self.0.lock().unwrap();
        let fault = Self::fault(&mut world.rng);
        let time = Duration::from_micros(world.rng.u64(1_000..5_000));
        if !matches!(fault, Some(Fault::NotSent)) {
            *world.arrived.entry(request).or_default() += 1;
        }
        Box::pin(async move {
            if let Some(Fault::NotSent) = fault {
                return Err(NotSent::new("closed").into());
            }
            sleep(time).await;
            match fault {
                Some(Fault::Breaks) => Err("reset by peer".into()),
                Some(Fault::Stalls) => {
                    sleep(10 * DEADLINE).await;
                    Ok(200)
                }
                Some(Fault::Fails) => Ok(503),
                Some(Fault::NotSent) | None => Ok(200),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn post_arrives_at_most_once_and_get_ends_by_its_deadline() {
    let world = World { rng: Rng::with_seed(11), arrived: HashMap::new() };
    let world = Arc::new(Mutex::new(world));
    let hosts = (0..10).map(|n| Instance::new(format!("host{n}"), 1));
    let serving = Faulty(Arc::clone(&world));
    let endpointer = Endpointer::with(&FixedInstancer::new(hosts), move |_| {
        let service = serving.clone();
        async move { Ok(service) }
    });
    settle().await;
    let balance = BalanceLayer::default().with_seed(2).layer(endpointer);
    let policy = RetryPolicy::new()
        .timeout(DEADLINE)
        .per_try_timeout(DEADLINE / 4)
        .with_seed(5)
        .protocol(Methods);
    let (retry, hedge) = policy.hedged(HedgePolicy::percentile(95));
    let client = retry.layer(hedge.layer(balance));
    let (mut requests, begin) = (JoinSet::new(), Instant::now());
    for id in 0..N {
        sleep_until(begin + id * Duration::from_micros(500)).await;
        let request = Request { id, is_post: id % 2 == 0 };
        let client = client.clone();
        requests.spawn(async move {
            let begun = Instant::now();
            let answered = match client.oneshot(request).await {
                Ok(status) => status == 200,
                Err(error) => {
                    assert!(error.is::<RetryError>(), "{error:?}");
                    false
                }
            };
            (request, answered, begun.elapsed())
        });
    }
    let (mut n_answered, mut n_posts) = (0, 0);
    for (request, answered, time) in requests.join_all().await {
        // A timer has a resolution of 1 ms.
        assert!(
            time <= DEADLINE + Duration::from_millis(1),
            "request {} took {time:?}",
            request.id
        );
        n_answered += u32::from(answered && !request.is_post);
        n_posts += u32::from(answered && request.is_post);
    }
    assert!(n_answered * 1_000 >= N / 2 * 999, "{n_answered} of {} answered", N / 2);
    assert!(n_posts < N / 2, "some posts have met a fault, and were not repeated");
    let world = world.lock().unwrap();
    let repeated = world.arrived.iter().filter(|(request, n)| request.is_post && **n > 1);
    assert_eq!(repeated.count(), 0);
    assert!(world.arrived.values().any(|n| *n > 1), "gets are repeated");
}
