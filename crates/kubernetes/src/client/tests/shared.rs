//! More followed services than are watched one by one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tower_sd_core::{Follower, Snapshot, Subscription};

use super::*;

/// A server of a namespace: the slices by service, and events that each shared watch reports.
#[derive(Default)]
struct Namespace {
    slices: BTreeMap<&'static str, Value>,
    event: Option<(Duration, String)>,
    /// Each shared watch breaks off after this.
    life: Option<Duration>,
}

impl Namespace {
    fn answer(&mut self, request: &Received) -> Reply {
        let selector = option(request, "labelSelector").expect("always");
        let service = selector.strip_prefix("kubernetes.io/service-name=");
        match (option(request, "watch"), service) {
            (Some(_), None) => {
                let reply = Reply::new(200).chunk(bookmark());
                match (&self.event, self.life) {
                    (Some((pause, event)), _) => reply.pause(*pause).chunk(event.clone()).hang(),
                    (None, Some(life)) => reply.pause(life).cut(),
                    (None, None) => reply.hang(),
                }
            }
            (Some(_), Some(_)) => Reply::new(200).hang(),
            (None, service) => {
                let all = self.slices.iter();
                let items = all.filter(|(name, _)| service.is_none_or(|service| service == **name));
                let items: Vec<Value> = items.map(|(_, slice)| slice.clone()).collect();
                list(10, "", &items)
            }
        }
    }
}

async fn scripted(namespace: &Arc<Mutex<Namespace>>) -> Script {
    let namespace = Arc::clone(namespace);
    let answer = move |request: &Received| {
        namespace.lock().unwrap_or_else(PoisonError::into_inner).answer(request)
    };
    Script::answering(answer).await.expect("loopback")
}

fn namespace(services: &[&'static str]) -> Arc<Mutex<Namespace>> {
    let slice = |service: &&'static str| (*service, slice_of(service, service, 1, &["10.0.0.1"]));
    let slices = services.iter().map(slice).collect();
    Arc::new(Mutex::new(Namespace { slices, event: None, life: None }))
}

pub(super) async fn reaches(
    subscription: &mut Subscription,
    wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
) {
    let reached = async {
        while !wanted(&subscription.snapshot()) {
            subscription.changed().await.expect("it follows");
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "{:?}", subscription.snapshot());
}

/// The requests that are watches, or lists, of the whole namespace or of one service.
fn n_requests(script: &Script, is_watch: bool, is_shared: bool) -> usize {
    let is_of_kind = |request: &&Received| {
        let selector = option(request, "labelSelector").expect("always");
        option(request, "watch").is_some() == is_watch && selector.contains('=') != is_shared
    };
    script.received().iter().filter(is_of_kind).count()
}

fn follow(kubernetes: &Kubernetes, services: &[&str]) -> Vec<(Follower, Subscription)> {
    let follow = |service: &&str| {
        let follower = kubernetes.instancer(*service);
        let subscription = follower.subscribe();
        (follower, subscription)
    };
    services.iter().map(follow).collect()
}

#[tokio::test]
async fn many_services_share_one_watch_that_reports_to_each() {
    let namespace = namespace(&["a", "b", "c", "unfollowed"]);
    let changed = slice_of("b", "b", 11, &["10.0.0.1", "10.0.0.2"]);
    // Above the bound of an object.
    let lonely = slice_of("unfollowed", "unfollowed", 12, &["10.0.0.9"; 80_000]);
    let events = event("MODIFIED", &lonely) + &event("MODIFIED", &changed);
    {
        let mut namespace = namespace.lock().expect("alone");
        namespace.event = Some((Duration::from_millis(300), events));
        namespace.slices.insert("unfollowed", lonely);
    }
    let script = scripted(&namespace).await;
    let config = config(&script).max_single_watches(1);
    let kubernetes = Kubernetes::new(config).expect("it can work");
    let mut followed = follow(&kubernetes, &["a", "b", "c"]);
    for (service, (_, subscription)) in ["a", "b", "c"].iter().zip(&mut followed) {
        let expected = if *service == "b" { 2 } else { 1 };
        reaches(subscription, |it| it.instances().len() == expected).await;
        assert_eq!(subscription.stats().errors, 0, "the slice of another service is no trouble");
    }
    // A list, and one for each service that came while another one was under way.
    assert!(n_requests(&script, false, true) <= 3, "{:?}", script.received());
    assert!(n_requests(&script, true, true) <= 3, "one after the other");
    assert!(n_requests(&script, true, false) <= 1, "at most the first one was alone");
}

#[tokio::test]
async fn list_that_answers_all_requests_is_the_only_one() {
    let script = scripted(&namespace(&["a"])).await;
    let kubernetes = Kubernetes::new(config(&script).max_single_watches(0)).expect("valid");
    let mut followed = follow(&kubernetes, &["a"]);
    reaches(&mut followed[0].1, |it| it.instances().len() == 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(n_requests(&script, false, true), 1);
}

#[tokio::test]
async fn service_that_is_followed_later_is_listed() {
    let namespace = namespace(&["a", "b", "c", "d"]);
    let script = scripted(&namespace).await;
    let kubernetes = Kubernetes::new(config(&script).max_single_watches(1)).expect("valid");
    let mut followed = follow(&kubernetes, &["a", "b", "c"]);
    for (_, subscription) in &mut followed {
        reaches(subscription, |it| it.instances().len() == 1).await;
    }
    followed.extend(follow(&kubernetes, &["d"]));
    reaches(&mut followed[3].1, |it| it.instances().len() == 1).await;
}

#[tokio::test]
async fn shared_watch_gives_way_to_single_ones_below_half_of_bound() {
    let namespace = namespace(&["a", "b", "c"]);
    let script = scripted(&namespace).await;
    let kubernetes = Kubernetes::new(config(&script).max_single_watches(2)).expect("valid");
    let mut followed = follow(&kubernetes, &["a", "b", "c"]);
    for (_, subscription) in &mut followed {
        reaches(subscription, |it| it.instances().len() == 1).await;
    }
    while n_requests(&script, true, true) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let n_before = n_requests(&script, true, false);
    followed.truncate(1);
    let alone = async {
        while n_requests(&script, true, false) == n_before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), alone).await.expect("a watch of its own");
    assert!(followed[0].1.snapshot().freshness().is_fresh());
}

#[tokio::test]
async fn failure_of_the_shared_watch_is_trouble_of_each_service() {
    let namespace = namespace(&["a", "b"]);
    let failure = event("ERROR", &status(500, "InternalError"));
    namespace.lock().expect("alone").event = Some((Duration::from_millis(300), failure));
    let script = scripted(&namespace).await;
    let kubernetes = Kubernetes::new(config(&script).max_single_watches(0)).expect("valid");
    let mut followed = follow(&kubernetes, &["a", "b"]);
    for (_, subscription) in &mut followed {
        reaches(subscription, |it| it.instances().len() == 1).await;
    }
    for (_, subscription) in &mut followed {
        while subscription.stats().errors == 0 {
            subscription.changed().await.expect("it follows");
        }
        assert_eq!(subscription.snapshot().instances().len(), 1, "the set is kept");
        reaches(subscription, |it| it.freshness().is_fresh()).await;
    }
}

#[tokio::test]
async fn absences_are_doubted_after_a_broken_shared_watch() {
    let life = Duration::from_millis(800);
    let expired = event("ERROR", &status(410, "Expired"));
    for (event, life) in [(None, Some(life)), (Some((life, expired)), None)] {
        let namespace = namespace(&["emptied", "gone"]);
        {
            let mut namespace = namespace.lock().expect("alone");
            (namespace.event, namespace.life) = (event, life);
        }
        let script = scripted(&namespace).await;
        let kubernetes = Kubernetes::new(config(&script).max_single_watches(0)).expect("valid");
        let mut followed = follow(&kubernetes, &["emptied", "gone"]);
        for (_, subscription) in &mut followed {
            reaches(subscription, |it| it.instances().len() == 1).await;
        }
        // The followers' own requests of lists are over.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        {
            let mut namespace = namespace.lock().expect("alone");
            namespace.slices.remove("gone");
            namespace.slices.insert("emptied", slice_of("emptied", "emptied", 2, &[]));
        }
        for (_, subscription) in &mut followed {
            reaches(subscription, |it| (it.instances().len(), it.held().len()) == (0, 1)).await;
        }
    }
}
