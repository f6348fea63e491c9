use std::ops::Deref;

use tower_sd::Instancer;
use tower_sd_testkit::{
    real::{self, Server},
    servers::required,
};

/// A real registry that keeps its data when it is killed.
pub(crate) enum Registry {
    Consul(real::Consul),
    Etcd(real::Etcd),
}

impl Registry {
    pub(crate) async fn consul() -> Self {
        let config = real::ConsulConfig::server(required("consul"));
        Self::Consul(real::Consul::start(config).await.expect("consul starts"))
    }

    pub(crate) async fn etcd() -> Self {
        let config = real::EtcdConfig::new(required("etcd"));
        Self::Etcd(real::Etcd::start(config).await.expect("etcd starts"))
    }

    /// What `--registry` takes.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Consul(consul) => format!("consul://{}", consul.address()),
            Self::Etcd(etcd) => format!("etcd://{}", etcd.address()),
        }
    }

    pub(crate) fn instancer(&self, service: &str) -> impl Instancer + use<> {
        let registry = tower_sd::open(&self.url()).expect("a URL");
        registry.instancer(service).expect("a name")
    }
}

impl Deref for Registry {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self {
            Self::Consul(consul) => consul,
            Self::Etcd(etcd) => etcd,
        }
    }
}
