//! Instances whose latency and failures the test decides, under an open load.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_sd_balance::{
    Balance, BalanceLayer, Balancer, BoxError, Endpointer, FixedInstancer, Instance,
};

use crate::support::all_ready;

type Answer = Pin<Box<dyn Future<Output = Result<u16, BoxError>> + Send>>;
pub(crate) type Node = BoxCloneSyncService<(), u16, BoxError>;

/// One client and its instances, by port.
#[derive(Clone, Default)]
pub(crate) struct Fleet(Arc<Mutex<HashMap<u16, Behaviour>>>);

#[derive(Clone, Copy)]
struct Behaviour {
    latency: Duration,
    fails: bool,
    rejects: bool,
    n: usize,
}

impl Fleet {
    /// Each answers after 10 ms.
    pub(crate) fn new(n: u16) -> Self {
        let one =
            Behaviour { latency: Duration::from_millis(10), fails: false, rejects: false, n: 0 };
        Self(Arc::new(Mutex::new((1..=n).map(|port| (port, one)).collect())))
    }

    pub(crate) fn slow(&self, port: u16, latency: Duration) {
        self.0.lock().unwrap().get_mut(&port).unwrap().latency = latency;
    }

    /// It fails immediately.
    pub(crate) fn fail(&self, port: u16, fails: bool) {
        self.0.lock().unwrap().get_mut(&port).unwrap().fails = fails;
    }

    /// Its response is immediate, and [`REJECTED`].
    pub(crate) fn reject(&self, port: u16, rejects: bool) {
        self.0.lock().unwrap().get_mut(&port).unwrap().rejects = rejects;
    }

    pub(crate) fn node(&self, port: u16) -> Node {
        let fleet = self.clone();
        BoxCloneSyncService::new(service_fn(move |(): ()| -> Answer {
            let Behaviour { latency, fails, rejects, .. } = {
                let mut all = fleet.0.lock().unwrap();
                let one = all.get_mut(&port).unwrap();
                one.n += 1;
                *one
            };
            Box::pin(async move {
                if fails {
                    return Err("it fails".into());
                }
                if rejects {
                    return Ok(REJECTED);
                }
                sleep(latency).await;
                Ok(port)
            })
        }))
    }

    pub(crate) fn instances(&self) -> Vec<Instance> {
        let n = u16::try_from(self.0.lock().unwrap().len()).unwrap();
        (1..=n).map(|port| Instance::new("h", port)).collect()
    }

    pub(crate) async fn client(
        &self,
        balancer: impl Balancer,
        change: impl Fn(Instance) -> Instance,
    ) -> (Endpointer<Node>, Balance<Node>) {
        let fleet = self.clone();
        let instances: Vec<_> = self.instances().into_iter().map(change).collect();
        let n = instances.len();
        let endpointer = Endpointer::with(&FixedInstancer::new(instances), move |instance| {
            let node = fleet.node(instance.port());
            async move { Ok(node) }
        });
        all_ready(&endpointer, n).await;
        let balance = BalanceLayer::new(balancer).with_seed(1).layer(endpointer.clone());
        (endpointer, balance)
    }

    /// So many requests, one every `interval`; the requests of each port, and all failures.
    pub(crate) async fn load<S>(
        &self,
        client: &S,
        n: usize,
        interval: Duration,
    ) -> (BTreeMap<u16, usize>, usize)
    where
        S: Service<(), Response = u16, Future: Send> + Clone + Send + 'static,
    {
        self.0.lock().unwrap().values_mut().for_each(|one| one.n = 0);
        let mut running = JoinSet::new();
        let mut n_failed = 0;
        for _ in 0..n {
            sleep(interval).await;
            let client = client.clone();
            running.spawn(async move { client.oneshot(()).await.is_err() });
            while let Some(failed) = running.try_join_next() {
                n_failed += usize::from(failed.unwrap());
            }
        }
        while let Some(failed) = running.join_next().await {
            n_failed += usize::from(failed.unwrap());
        }
        let requests = self.0.lock().unwrap().iter().map(|(port, one)| (*port, one.n)).collect();
        (requests, n_failed)
    }
}

/// The response of an instance that has too many requests.
pub(crate) const REJECTED: u16 = 0;
