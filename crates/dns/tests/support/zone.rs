//! Registering by dynamic update (RFC 2136), and reading the entries again.

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SRV},
    },
};
use tokio::{net::UdpSocket, time::timeout};
use tower_sd_core::{
    AnnounceConfig, Announcement, Announcer, Error, ErrorKind, FollowConfig, Follower, Freshness,
    Instance, Instancer, LeaseTtl, LossPolicy, LossReason, Publisher, ReadRequest, ReadResult,
    Registrar, Registration, RegistrationHandle, RegistryConfig, Renewal, Result, Source,
    Subscription, TaskGroup, announce, async_trait,
};
use tower_sd_dns::{Dns, DnsConfig, Query};
use tower_sd_testkit::real::Bind;

/// The SRV records of a service of the suite are at `<service>.lab.test.`, their targets
/// `<id>.<service>.lab.test.`.
pub(crate) struct ZoneRegistrar {
    pub(crate) server: SocketAddr,
    pub(crate) ttl: Duration,
    pub(crate) tasks: TaskGroup,
}

struct ZoneAnnouncer {
    server: SocketAddr,
    ttl: Duration,
    written: Option<Entry>,
}

/// One instance in the zone.
#[derive(Clone)]
struct Entry {
    service: Name,
    srv: SRV,
    address: RData,
}

#[async_trait]
impl Registrar for ZoneRegistrar {
    async fn close(&self) {
        self.tasks.close().await;
    }

    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let Self { server, ttl, .. } = *self;
        let announcer = Box::new(ZoneAnnouncer { server, ttl, written: None });
        announce("zone", announcer, registration, AnnounceConfig::default(), &self.tasks).await
    }
}

#[async_trait]
impl Announcer for ZoneAnnouncer {
    /// In one update: the records of another weight or address go as the new ones come.
    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        let new = Entry::of(desired)?;
        let mut changes = Vec::new();
        if let Some(old) = self.written.replace(new.clone()) {
            changes.extend(old.records().map(removed));
        }
        changes.extend(new.records());
        update(self.server, changes).await?;
        Ok(self.renewed())
    }

    /// The address stands for both records: they go together.
    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        let Some(Entry { srv, address, .. }) = &self.written else {
            return Ok(Renewal::Lost(LossReason::Gone));
        };
        let answer = exchange(self.server, question(&srv.target, address.record_type())).await?;
        match answer.answers.is_empty() {
            true => Ok(Renewal::Lost(LossReason::Gone)),
            false => Ok(self.renewed()),
        }
    }

    async fn withdraw(&mut self) -> Result<()> {
        match &self.written {
            Some(entry) => update(self.server, entry.records().map(removed)).await,
            None => Ok(()),
        }
    }
}

impl ZoneAnnouncer {
    fn renewed(&self) -> Renewal {
        Renewal::Renewed(LeaseTtl::new(self.ttl))
    }
}

impl Entry {
    fn of(desired: &Announcement) -> Result<Self> {
        let instance = &desired.instance;
        let service = service_name(&desired.service)?;
        let target = parsed(instance.id().as_str())?.append_domain(&service);
        let target = target.map_err(|cause| protocol().with_source(cause))?;
        let number = |n: u32| u16::try_from(n).map_err(|cause| protocol().with_source(cause));
        let (priority, weight) = (number(instance.priority())?, number(instance.weight())?);
        let address = match (instance.host().parse(), instance.host().parse()) {
            (Ok(ip), _) => RData::A(A(ip)),
            (_, Ok(ip)) => RData::AAAA(AAAA(ip)),
            _ => return Err(protocol().with_message("not an address")),
        };
        Ok(Self { service, srv: SRV::new(priority, weight, instance.port(), target), address })
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        let Self { service, srv, address } = self.clone();
        let target = srv.target.clone();
        [Record::from_rdata(service, 0, RData::SRV(srv)), Record::from_rdata(target, 60, address)]
            .into_iter()
    }
}

/// A client whose guard is that of the outer instancer.
pub(crate) fn client(server: SocketAddr) -> Dns {
    let registry = RegistryConfig::default().loss(LossPolicy::Accept).follow(hasty());
    Dns::new(DnsConfig::new([server]).registry(registry))
}

fn hasty() -> FollowConfig {
    let mut follow = FollowConfig::default();
    follow.min_refresh = Duration::from_millis(300);
    follow.max_backoff = Duration::from_millis(500);
    follow
}

/// The instancer of `service`, with the ids and the weights of the registrations.
pub(crate) fn instancer(dns: &Dns, service: &str) -> (Follower, Follower) {
    let name = service_name(service).expect("the suite's names fit").to_ascii();
    let inner = dns.instancer(Query::srv(&name).expect("a name"));
    let suffix = format!(".{}", service_name(service).expect("as above").to_utf8());
    let source = Renamed { subscription: inner.subscribe(), suffix };
    let publisher = Publisher::new("dns", service, RegistryConfig::default().follow(hasty()));
    (Follower::new(source, publisher), inner)
}

/// A source that reads another instancer.
struct Renamed {
    subscription: Subscription,
    suffix: String,
}

#[async_trait]
impl Source for Renamed {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        if request.waits() {
            self.subscription.changed().await?;
        }
        loop {
            let snapshot = self.subscription.snapshot();
            match snapshot.freshness() {
                Freshness::Fresh => {
                    let entries = snapshot.instances().iter();
                    return Ok(ReadResult::set(entries.map(|it| Ok(self.renamed(it))).collect()));
                }
                freshness => match freshness.error() {
                    Some(error) => return Err(error.clone()),
                    None => drop(self.subscription.changed().await?),
                },
            }
        }
    }
}

impl Renamed {
    fn renamed(&self, instance: &Instance) -> Instance {
        let target = parsed(&instance.metadata()["dns-target"]).expect("it was written so");
        let target = target.to_utf8();
        let id = target.strip_suffix(self.suffix.trim_end_matches('.')).unwrap_or(&target);
        Instance::new(instance.host(), instance.port())
            .with_id(id)
            .with_priority(instance.priority())
            .with_weight(instance.weight())
    }
}

/// Removes the records of an instance behind its owner's back.
pub(crate) async fn expire(server: SocketAddr, service: &str, id: &str) -> Result<()> {
    let service = service_name(service)?;
    let message = exchange(server, question(&service, RecordType::SRV)).await?;
    let target = parsed(id)?.append_domain(&service).map_err(|it| protocol().with_source(it))?;
    let of_target = |record: &Record| match &record.data {
        RData::SRV(srv) => srv.target == target,
        _ => record.name == target,
    };
    let records = message.answers.into_iter().chain(message.additionals);
    update(server, records.filter(of_target).map(removed)).await
}

fn question(name: &Name, kind: RecordType) -> Message {
    let mut message = Message::new(id(), MessageType::Query, OpCode::Query);
    message.add_query(Question::query(name.clone(), kind));
    message
}

async fn update(server: SocketAddr, changes: impl IntoIterator<Item = Record>) -> Result<()> {
    let mut message = Message::new(id(), MessageType::Query, OpCode::Update);
    message.add_query(Question::query(parsed(Bind::ZONE)?, RecordType::SOA));
    message.add_authorities(changes);
    let answer = exchange(server, message).await?;
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(()),
        code => Err(protocol().with_message(code.to_str())),
    }
}

/// Over UDP, which loses nothing on loopback.
async fn exchange(server: SocketAddr, message: Message) -> Result<Message> {
    let unavailable =
        |cause| Error::new(ErrorKind::Unavailable, "zone", "update").with_source(cause);
    let request = message.to_vec().map_err(|cause| protocol().with_source(cause))?;
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.map_err(unavailable)?;
    socket.connect(server).await.map_err(unavailable)?;
    socket.send(&request).await.map_err(unavailable)?;
    let mut answer = vec![0; 65_535];
    let received = timeout(Duration::from_secs(4), socket.recv(&mut answer)).await;
    let n = received.map_err(|cause| protocol().with_source(cause))?.map_err(unavailable)?;
    Message::from_vec(&answer[..n]).map_err(|cause| protocol().with_source(cause))
}

/// RFC 2136 §2.5.4.
fn removed(mut record: Record) -> Record {
    record.dns_class = DNSClass::NONE;
    record.ttl = 0;
    record
}

fn service_name(service: &str) -> Result<Name> {
    let zone = parsed(Bind::ZONE)?;
    parsed(service)?.append_domain(&zone).map_err(|cause| protocol().with_source(cause))
}

fn parsed(name: &str) -> Result<Name> {
    Name::from_utf8(name).map_err(|cause| protocol().with_source(cause))
}

fn protocol() -> Error {
    Error::new(ErrorKind::Protocol, "zone", "update")
}

fn id() -> u16 {
    fastrand::u16(..)
}
