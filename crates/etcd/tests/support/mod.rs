//! A real etcd as a fixture, and what an operator does to it.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::time::Duration;

use etcd_client::{Client, GetOptions, KeyValue};
use tower_sd_core::{BoxError, InstanceId, async_trait};
use tower_sd_etcd::{EtcdClient, EtcdConfig, EtcdInstancer, EtcdRegistrar};
use tower_sd_testkit::{
    Fixture, TestInstancer, TestRegistrar,
    real::{self, Etcd},
    servers::ServerBinary,
};

pub(crate) struct EtcdFixture {
    pub(crate) server: Etcd,
}

impl EtcdFixture {
    pub(crate) async fn start(binary: ServerBinary) -> Result<Self, BoxError> {
        let server = Etcd::start(real::EtcdConfig::new(binary)).await?;
        Ok(Self { server })
    }

    /// Settings with a short time to live.
    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig::new([self.server.url()]).ttl(TTL)
    }

    pub(crate) fn client(&self) -> EtcdClient {
        EtcdClient::new(self.config()).expect("the settings can work")
    }

    pub(crate) async fn operator(&self) -> Client {
        let client = Client::connect([self.server.url()], None).await;
        client.expect("the server runs")
    }

    /// What is there below the default prefix, as the operator sees it.
    pub(crate) async fn keys(&self, service: &str) -> Vec<KeyValue> {
        let prefix = format!("tower-sd/{service}/");
        let options = GetOptions::new().with_prefix();
        let answer = self.operator().await.get(prefix, Some(options)).await;
        answer.expect("the server answers").take_kvs()
    }
}

#[async_trait]
impl Fixture for EtcdFixture {
    async fn registrar(&self) -> TestRegistrar {
        let registrar = EtcdRegistrar::new(&self.client());
        let closing = registrar.clone();
        TestRegistrar::new(registrar, async move { closing.close().await })
    }

    async fn instancer(&self, service: &str) -> TestInstancer {
        let instancer = EtcdInstancer::new(&self.client(), service);
        let closing = instancer.clone();
        TestInstancer::new(instancer, async move { closing.close().await })
    }

    async fn interrupt(&self) {
        self.server.kill();
    }

    async fn resume(&self) {
        if !self.server.is_running() {
            self.server.restart().await.expect("it starts again");
        }
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let key = format!("tower-sd/{service}/{id}");
        let mut operator = self.operator().await;
        let answer = operator.get(key, None).await.expect("the server answers");
        let entry = answer.kvs().first().expect("it is registered");
        let revoked = operator.lease_revoke(entry.lease()).await;
        revoked.expect("the lease lives");
    }

    fn ttl(&self) -> Duration {
        TTL
    }
}

pub(crate) const TTL: Duration = Duration::from_secs(2);
