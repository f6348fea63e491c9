use std::ops::Deref;

use tower_sd::Instancer;
use tower_sd_testkit::{
    real::{self, Server},
    servers::required,
};

/// A real registry. All but Eureka keep their data when they are killed.
pub(crate) enum Registry {
    Consul(real::Consul),
    Etcd(real::Etcd),
    Eureka(real::Eureka),
    ZooKeeper(real::ZooKeeper),
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

    pub(crate) async fn eureka() -> Self {
        let config = real::EurekaConfig::quick(required("eureka"));
        Self::Eureka(real::Eureka::start(config).await.expect("eureka starts"))
    }

    pub(crate) async fn zookeeper() -> Self {
        let config = real::ZooKeeperConfig::new(required("zookeeper"));
        Self::ZooKeeper(real::ZooKeeper::start(config).await.expect("zookeeper starts"))
    }

    /// What `--registry` takes.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Consul(consul) => format!("consul://{}", consul.address()),
            Self::Etcd(etcd) => format!("etcd://{}", etcd.address()),
            Self::Eureka(eureka) => format!("eureka://{}/eureka?poll=1s", eureka.address()),
            Self::ZooKeeper(zookeeper) => format!("zookeeper://{}", zookeeper.address()),
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
            Self::Eureka(eureka) => eureka,
            Self::ZooKeeper(zookeeper) => zookeeper,
        }
    }
}
