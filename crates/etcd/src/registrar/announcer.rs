use std::{future::pending, time::Duration};

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use tokio::time::{Instant, sleep_until};
use tower_sd_core::{
    Announcement, Announcer, Backoff, Error, ErrorKind, LeaseTtl, LossReason, Renewal, Result,
    async_trait,
};

use crate::{
    EtcdClient,
    client::{Change, Position, Watch},
    error::{BACKEND, Failure},
    key::{Range, instance_key},
};

/// One instance's key, under a lease of its own.
pub(super) struct EtcdAnnouncer {
    client: EtcdClient,
    key: Vec<u8>,
    lease: Option<Lease>,
    /// The value that the key should have.
    value: Vec<u8>,
    n_renewed: u32,
    watch: Option<Watch>,
    /// When to look at the key again after its watch has ended, and the pauses between.
    look_at: Instant,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: i64,
    ttl: LeaseTtl,
}

/// What the key says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Ours,
    /// Somebody announces the same instance under a lease of their own: a successor, whom we do not fight. When their
    /// lease ends, the key is gone, and we put it again.
    TakenOver,
    /// Gone, or put by hand without a lease, so that it would stay for ever.
    Gone,
}

impl EtcdAnnouncer {
    pub(super) fn new(client: &EtcdClient, service: &str, id: &str) -> Result<Self> {
        Ok(Self {
            key: instance_key(&client.config().prefix, service, id)?,
            client: client.clone(),
            lease: None,
            value: Vec::new(),
            n_renewed: 0,
            watch: None,
            look_at: Instant::now(),
            backoff: Backoff::default(),
        })
    }

    async fn grant(&mut self) -> Result<Lease, Failure> {
        let ttl = self.client.config().ttl_seconds();
        let grant = |mut client: etcd_client::Client| async move {
            let answer = client.lease_grant(ttl, None).await?;
            Ok((answer.id(), answer.ttl()))
        };
        let (id, ttl) = self.client.call(grant).await?;
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or_default().max(1));
        let ttl = LeaseTtl::new(ttl);
        let lease = Lease { id, ttl };
        self.lease = Some(lease);
        self.n_renewed = 0;
        Ok(lease)
    }

    async fn put(&self, lease: Lease) -> Result<Position, Failure> {
        let put = |mut client: etcd_client::Client| {
            let (key, value) = (self.key.clone(), self.value.clone());
            let options = PutOptions::new().with_lease(lease.id);
            async move {
                let answer = client.put(key, value, Some(options)).await?;
                Ok(Position::of(answer.header()))
            }
        };
        self.client.call(put).await
    }

    /// Puts under the lease we have, or under a new one if there is none or it has expired; which a new one may have too,
    /// when the process stood still.
    async fn put_under_lease(&mut self) -> Result<(Lease, Position), Failure> {
        let mut n_left = MAX_LEASES;
        loop {
            let lease = match self.lease {
                Some(lease) => lease,
                None => self.grant().await?,
            };
            match self.put(lease).await {
                Ok(position) => return Ok((lease, position)),
                Err(failure) if failure.is_lease_not_found() => {
                    self.lease = None;
                    n_left -= 1;
                    if n_left == 0 {
                        return Err(failure.worth_repeating());
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn look(&self, lease: Lease) -> Result<(Found, Position), Failure> {
        let get = |mut client: etcd_client::Client| {
            let key = self.key.clone();
            async move { client.get(key, Some(GetOptions::new())).await }
        };
        let answer = self.client.call(get).await?;
        let found = match answer.kvs().first() {
            Some(pair) => self.judge(&pair.into(), lease),
            None => Found::Gone,
        };
        Ok((found, Position::of(answer.header())))
    }

    fn judge(&self, change: &Change, lease: Lease) -> Found {
        match &change.value {
            None => Found::Gone,
            Some(_) if change.lease == 0 => Found::Gone,
            Some(_) if change.lease != lease.id => Found::TakenOver,
            Some(value) if *value != self.value => Found::Gone,
            Some(_) => Found::Ours,
        }
    }

    fn watch_from(&mut self, position: Position) {
        let range = Range::one(self.key.clone());
        self.watch = Some(self.client.watch(range, position));
    }

    /// The watch has ended, or the key could not be read.
    fn look_later(&mut self) {
        self.watch = None;
        self.look_at = Instant::now() + self.backoff.next_pause();
    }
}

#[async_trait]
impl Announcer for EtcdAnnouncer {
    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        self.watch = None;
        let Some(codec) = self.client.config().codecs.first() else {
            return Err(Error::new(ErrorKind::Config, BACKEND, "register"));
        };
        self.value = codec.encode(&desired.instance).map_err(|cause| {
            Error::new(ErrorKind::Config, BACKEND, "register").with_source(cause)
        })?;
        let put = self.put_under_lease().await;
        let (lease, position) = put.map_err(|failure| failure.into_error("register"))?;
        self.watch_from(position);
        Ok(Renewal::Renewed(lease.ttl))
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        let Some(lease) = self.lease else {
            return Ok(Renewal::Lost(LossReason::Gone));
        };
        // The library turns an answer without a TTL, which is how etcd says that a lease is dead, into an error.
        let alive = |mut client: etcd_client::Client| async move {
            client.lease_keep_alive(lease.id).await.map(|_streams| ())
        };
        match self.client.call(alive).await {
            Ok(()) => {}
            Err(failure) if failure.is_lease_not_found() => {
                self.lease = None;
                return Ok(Renewal::Lost(LossReason::SessionEnded));
            }
            Err(failure) => return Err(failure.into_error("renew")),
        }
        // The server is well: no reason to wait longer with a new watch, if there is none.
        self.look_at = Instant::now();
        self.n_renewed = self.n_renewed.wrapping_add(1);
        if self.n_renewed.is_multiple_of(VERIFY_EVERY) {
            let (found, _) =
                self.look(lease).await.map_err(|failure| failure.into_error("verify"))?;
            if found == Found::Gone {
                return Ok(Renewal::Lost(LossReason::Gone));
            }
        }
        Ok(Renewal::Renewed(lease.ttl))
    }

    async fn lost(&mut self) -> LossReason {
        let Some(lease) = self.lease else {
            return pending().await;
        };
        loop {
            if let Some(watch) = &mut self.watch {
                match watch.next().await {
                    // Only the last one counts: what happened before it is over.
                    Ok(changes) => match changes.last().map(|it| self.judge(it, lease)) {
                        Some(Found::Gone) => return LossReason::Gone,
                        Some(Found::Ours | Found::TakenOver) | None => {}
                    },
                    Err(_ended) => self.look_later(),
                }
                continue;
            }
            sleep_until(self.look_at).await;
            match self.look(lease).await {
                Ok((Found::Gone, _)) => return LossReason::Gone,
                Ok((Found::Ours | Found::TakenOver, position)) => self.watch_from(position),
                Err(_failure) => self.look_later(),
            }
        }
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.watch = None;
        let Some(Lease { id, .. }) = self.lease else {
            return Ok(());
        };
        let delete_if_mine = |mut client: etcd_client::Client| {
            let mine = Compare::lease(self.key.clone(), CompareOp::Equal, id);
            let delete = TxnOp::delete(self.key.clone(), None);
            let txn = Txn::new().when([mine]).and_then([delete]);
            async move { client.txn(txn).await.map(|_answer| ()) }
        };
        let deleted = self.client.call(delete_if_mine).await;
        deleted.map_err(|failure| failure.into_error("deregister"))?;
        // A put that is still on its way finds no lease to live under.
        let revoke = |mut client: etcd_client::Client| async move {
            client.lease_revoke(id).await.map(|_answer| ())
        };
        match self.client.call(revoke).await {
            Err(failure) if !failure.is_lease_not_found() => Err(failure.into_error("deregister")),
            _ => {
                self.lease = None;
                Ok(())
            }
        }
    }
}

/// One read of the key per time to live: old servers have acknowledged the renewal of a lease that was revoked.
const VERIFY_EVERY: u32 = 3;
/// The one that we had, and two that were granted at once. After that the loop waits before it tries again.
const MAX_LEASES: u32 = 3;

#[cfg(test)]
mod tests;
