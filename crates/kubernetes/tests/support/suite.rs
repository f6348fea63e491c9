//! The shared suite on an API server, for the reading half.
//!
//! Registering is the platform's: the fixture writes a slice for each instance.

#[path = "mod.rs"]
mod support;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::IpAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tower_sd_core::{
    AnnounceConfig, Announcement, Announcer, Error, ErrorKind, InstanceId, InstanceStatus,
    LeaseTtl, Registrar, Registration, RegistrationHandle, Renewal, Result, TaskGroup, TlsConfig,
    announce, async_trait,
};
use tower_sd_kubernetes::{Kubernetes, KubernetesConfig};
use tower_sd_testkit::{
    Fixture, TestClient, TestInstancer,
    proxy::Fault,
    real::{self, KubernetesApi},
    run_on,
};

use self::support::{Condition, NAMESPACE, endpoint, slice, start};

struct ApiServer {
    server: real::Kubernetes,
    max_single_watches: usize,
}

/// Writes past no fault: through the proxy.
struct SliceRegistrar {
    api: KubernetesApi,
    tasks: TaskGroup,
}

struct SliceAnnouncer {
    api: KubernetesApi,
    written: Option<Value>,
}

#[async_trait]
impl Registrar for SliceRegistrar {
    async fn close(&self) {
        self.tasks.close().await;
    }

    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let announcer = SliceAnnouncer { api: self.api.clone(), written: None };
        let config = AnnounceConfig::default();
        announce("slices", Box::new(announcer), registration, config, &self.tasks).await
    }
}

#[async_trait]
impl Announcer for SliceAnnouncer {
    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        let slice = slice_of(desired);
        self.written = Some(slice.clone());
        self.api.apply(&slice).await.map_err(failed)?;
        Ok(renewed())
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        Ok(renewed())
    }

    /// The slice of a Service stays when its last pod goes.
    async fn withdraw(&mut self) -> Result<()> {
        let Some(mut slice) = self.written.take() else {
            return Ok(());
        };
        slice["endpoints"] = json!([]);
        self.api.apply(&slice).await.map_err(failed)?;
        Ok(())
    }
}

fn slice_of(desired: &Announcement) -> Value {
    let instance = &desired.instance;
    let condition = match instance.status() {
        InstanceStatus::Draining => Condition::Terminating,
        InstanceStatus::Critical => Condition::NotReady,
        _ => Condition::Ready,
    };
    let mut endpoint = endpoint(instance.id().as_str(), instance.host(), condition);
    if let Some(zone) = instance.zone() {
        endpoint["zone"] = json!(zone);
    }
    let name = slice_name(&desired.service, instance.id());
    let mut slice = slice(&desired.service, &name, instance.port(), &[endpoint]);
    slice["addressType"] = json!(match instance.host().parse() {
        Ok(IpAddr::V4(_)) => "IPv4",
        Ok(IpAddr::V6(_)) => "IPv6",
        Err(_) => "FQDN",
    });
    if let Some(scheme) = instance.scheme() {
        slice["ports"][0]["appProtocol"] = json!(scheme);
    }
    slice
}

/// An id may have characters that a name of Kubernetes may not.
fn slice_name(service: &str, id: &InstanceId) -> String {
    let mut hasher = DefaultHasher::new();
    id.as_str().hash(&mut hasher);
    format!("{service}-{:016x}", hasher.finish())
}

fn renewed() -> Renewal {
    Renewal::Renewed(LeaseTtl::new(TTL))
}

fn failed(cause: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "slices", "write").with_source(cause)
}

#[async_trait]
impl Fixture for ApiServer {
    fn client(&self) -> TestClient {
        let server = &self.server;
        let ca = server.authority().pem().to_owned();
        let config = KubernetesConfig::new(server.proxied_url())
            .namespace(NAMESPACE)
            .token(real::Kubernetes::ADMIN)
            .max_single_watches(self.max_single_watches)
            .tls(TlsConfig::new().with_root(ca.clone()));
        let kubernetes = Kubernetes::new(config).expect("good settings");
        let proxy = server.proxy().address();
        TestClient::new(
            move || {
                let api = KubernetesApi::new(proxy, &ca, real::Kubernetes::ADMIN);
                let api = api.expect("the server's own certificate");
                Arc::new(SliceRegistrar { api, tasks: TaskGroup::new() })
            },
            move |service| {
                let follower = kubernetes.instancer(service);
                let closed = follower.clone();
                TestInstancer::new(follower, async move { closed.close().await })
            },
        )
    }

    async fn n_reads(&self) -> Option<u64> {
        let api = self.server.admin().expect("an administrator's client");
        Some(api.n_lists("endpointslices").await.expect("the server counts"))
    }

    async fn interrupt(&self) {
        self.server.proxy().set(Fault::Refuse).await;
    }

    async fn freeze(&self) {
        self.server.proxy().set(Fault::BlackHole).await;
    }

    async fn resume(&self) {
        self.server.proxy().set(Fault::None).await;
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let api = self.server.admin().expect("an administrator's client");
        let gone = slice(service, &slice_name(service, id), 1, &[]);
        api.delete(&gone).await.expect("a well server deletes");
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    /// Pings of HTTP/2 find a server that hangs.
    fn silence_bound(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn evidence(&self) -> String {
        self.server.output()
    }

    fn exceptions() -> &'static [(&'static str, &'static str)] {
        const LABEL: &str = "a Service's name is a label of DNS";
        const NO_ROOM: &str = "an endpoint of a slice has no room for it";
        const PLATFORM: &str = "the platform registers, and renews no lease";
        &[
            ("service_name_may_be_unicode", LABEL),
            ("service_name_may_be_of_120_characters", LABEL),
            ("service_name_may_have_spaces_and_slashes", LABEL),
            ("service_name_like_a_path_works_or_is_refused", LABEL),
            ("service_does_not_see_one_whose_name_begins_with_its_own", LABEL),
            ("weight_survives", NO_ROOM),
            ("weight_of_zero_survives", NO_ROOM),
            ("priority_survives", NO_ROOM),
            ("tags_survive", NO_ROOM),
            ("metadata_survives", NO_ROOM),
            ("start_time_survives", NO_ROOM),
            ("update_is_seen_without_a_gap", NO_ROOM),
            ("update_survives_the_loss_of_the_entry", NO_ROOM),
            ("refused_update_keeps_the_registration", NO_ROOM),
            ("updates_every_tenth_of_the_ttl_are_without_a_gap", NO_ROOM),
            ("dropped_handle_deregisters", PLATFORM),
            ("registrations_of_one_registrar_are_independent", PLATFORM),
            ("deregistering_an_entry_that_is_gone_succeeds", PLATFORM),
            ("expired_entry_comes_back", PLATFORM),
            ("predecessor_that_leaves_last_takes_nothing_away", PLATFORM),
            ("predecessor_that_updates_takes_nothing_away", PLATFORM),
            ("predecessor_observes_its_successor", PLATFORM),
            ("predecessor_is_back_when_its_successor_is_gone", PLATFORM),
            ("closing_a_registrar_withdraws_and_leaks_nothing", PLATFORM),
            ("deregistering_leaks_nothing", PLATFORM),
            ("instance_that_left_during_the_outage_is_gone_after_it", PLATFORM),
            ("registration_is_back_after_an_outage_of_three_ttls", PLATFORM),
            ("deregistering_during_a_reconnect_leaves_nothing", PLATFORM),
            ("first_registration_fails_fast_when_the_registry_is_down", PLATFORM),
            ("first_registration_in_the_background_succeeds_when_the_registry_is_up", PLATFORM),
            ("registration_is_back_after_the_registry_hung_for_longer_than_the_ttl", PLATFORM),
            ("process_suspended_for_longer_than_the_ttl_is_back_within_a_second", PLATFORM),
        ]
    }
}

/// Of clients that watch this many services one by one.
pub(crate) fn run(max_single_watches: usize) -> ExitCode {
    run_on("kubernetes", async move |binary| {
        Ok(ApiServer { server: start(binary).await?, max_single_watches })
    })
}

const TTL: Duration = Duration::from_secs(3);
