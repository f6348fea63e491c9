use std::future::pending;

use tokio::time::{Instant, sleep_until};
use tower_sd_core::{
    Announcement, Announcer, Backoff, Error, ErrorKind, LeaseTtl, LossReason, Registration,
    Renewal, Result, async_trait, duration,
};

use super::entry::{Entry, Lease, Put};
use crate::{
    BACKEND, Codec,
    client::{Change, EtcdClient, Position, Update, Watch},
    error::Failure,
    key::{Range, instance_key},
};

/// One instance's key, under a lease of its own.
///
/// The lease distinguishes registrations. `renew` prolongs it; `announce` does after a loss or a
/// failed call only.
pub(crate) struct EtcdAnnouncer {
    entry: Entry,
    lease: Option<Lease>,
    /// The entry was lost, or a call has failed: nothing may have renewed the lease for long.
    is_old: bool,
    /// The value that etcd has accepted last.
    accepted: Option<Vec<u8>>,
    /// Changes up to this revision are older than our own put, or than the latest read.
    since: i64,
    /// The other registration that was reported to have the key.
    other: Option<String>,
    n_renewed: u32,
    watch: Option<Watch>,
    /// When to read the key after its watch has ended, and the pauses between such reads.
    read_at: Instant,
    backoff: Backoff,
}

/// The state of the key.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Found {
    Ours,
    /// Another registration has the key: a successor, which is not fought.
    Other {
        by: String,
    },
    /// Absent, or put by hand without a lease, so that it would stay indefinitely.
    Gone,
}

impl EtcdAnnouncer {
    pub(crate) fn new(client: &EtcdClient, registration: &Registration) -> Result<Self> {
        let (service, id) = (registration.service(), registration.instance().id().as_str());
        let key = instance_key(&client.config().prefix, service, id)?;
        duration::check_ttl(BACKEND, "register", registration.lease_ttl())?;
        Ok(Self {
            entry: Entry::new(client, key, registration.lease_ttl()),
            lease: None,
            is_old: false,
            accepted: None,
            since: 0,
            other: None,
            n_renewed: 0,
            watch: None,
            read_at: Instant::now(),
            backoff: Backoff::default(),
        })
    }

    /// The codec that writes.
    fn codec(&self) -> Result<&dyn Codec> {
        let codecs = &self.entry.client().config().codecs;
        let codec = codecs.first().map(|codec| &**codec);
        codec.ok_or_else(|| Error::new(ErrorKind::Config, BACKEND, "register"))
    }

    /// Puts under the present lease, or under a new one if there is none or it has ended. A new
    /// one may have ended too, when the process stood still.
    async fn put(&mut self, value: &[u8], takes_over: bool) -> Result<(Lease, Put), Failure> {
        let mut n_left = MAX_LEASES;
        loop {
            let lease = match self.lease {
                Some(lease) => lease,
                None => {
                    self.n_renewed = 0;
                    *self.lease.insert(self.entry.grant().await?)
                }
            };
            let put = match takes_over {
                true => self.entry.put_over(lease, value).await.map(|(position, before)| {
                    self.report_predecessor(lease, before.as_ref());
                    Put::Done(position)
                }),
                false => self.entry.put_unless_taken(lease, value).await,
            };
            match put {
                Ok(put) => return Ok((lease, put)),
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

    /// Prolongs a lease that nothing has renewed lately: a put under it does not.
    async fn prolong(&mut self) -> Result<()> {
        if let (true, Some(lease)) = (self.is_old, self.lease) {
            match self.entry.keep_alive(lease).await {
                Err(failure) if failure.is_lease_not_found() => self.lease = None,
                Err(failure) => return Err(failure.into_error("register").without_effect()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn report_predecessor(&self, lease: Lease, before: Option<&Change>) {
        let other = before.filter(|it| it.lease != 0 && it.lease != lease.id);
        if let Some(other) = other {
            let (key, from) = (self.entry.key().escape_ascii(), self.describe(other));
            tracing::warn!(backend = BACKEND, %key, from, "took over another registration's entry");
        }
    }

    /// The state of the key, as it was read or as its watch has reported it.
    fn judge(&self, change: Option<&Change>, lease: Lease) -> Found {
        match change {
            Some(it) if it.value.is_none() || it.lease == 0 => Found::Gone,
            Some(it) if it.lease != lease.id => Found::Other { by: self.describe(it) },
            Some(it) if it.value != self.accepted => Found::Gone,
            Some(_) => Found::Ours,
            None => Found::Gone,
        }
    }

    /// The address and the lease of another registration.
    fn describe(&self, other: &Change) -> String {
        let lease = format!("lease {:x}", other.lease);
        let value = other.value.as_deref().unwrap_or_default();
        let instance = self.codec().ok().and_then(|codec| codec.decode("", value).ok());
        match instance {
            Some(instance) => format!("{instance}, {lease}"),
            None => lease,
        }
    }

    /// The loss that has to be reported, if there is one that was not.
    fn loss(&mut self, found: Found) -> Option<LossReason> {
        self.is_old |= found != Found::Ours;
        match found {
            Found::Ours => {
                self.other = None;
                None
            }
            Found::Gone => {
                self.other = None;
                Some(LossReason::Gone)
            }
            Found::Other { by } => {
                let is_news = self.other.as_ref() != Some(&by);
                self.other = Some(by.clone());
                is_news.then_some(LossReason::TakenOver { by })
            }
        }
    }

    async fn read(&mut self, lease: Lease) -> Result<(Found, Position), Failure> {
        let (change, position) = self.entry.read().await?;
        Ok((self.judge(change.as_ref(), lease), position))
    }

    async fn watch_from(&mut self, position: Position) {
        let range = Range::one(self.entry.key().to_vec());
        self.watch = Some(self.entry.client().watch(range, position).await);
    }

    /// The watch has ended, or the key could not be read.
    fn read_later(&mut self) {
        self.watch = None;
        self.read_at = Instant::now() + self.backoff.next_pause();
    }

    /// The next state of the key: from its watch, or from a read where that has ended.
    async fn next_found(&mut self, lease: Lease) -> Found {
        loop {
            if let Some(watch) = &mut self.watch {
                match watch.next().await {
                    Ok(Update::Changes(changes)) => {
                        // The last change alone counts, and none that is older than our own put.
                        let last = changes.last().filter(|it| it.mod_revision > self.since);
                        if last.is_some() {
                            return self.judge(last, lease);
                        }
                    }
                    Ok(Update::Alive | Update::Trouble(_)) => {}
                    Err(_ended) => self.read_later(),
                }
                continue;
            }
            sleep_until(self.read_at).await;
            match self.read(lease).await {
                Ok((found, position)) => {
                    self.since = position.revision;
                    self.watch_from(position).await;
                    return found;
                }
                Err(_failure) => self.read_later(),
            }
        }
    }
}

#[async_trait]
impl Announcer for EtcdAnnouncer {
    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal> {
        let codec = self.codec()?;
        let value = codec.encode(announcement).map_err(|cause| {
            let message = format!("{codec:?} cannot write the instance; use another first codec");
            Error::new(ErrorKind::Config, BACKEND, "register")
                .with_message(message)
                .with_source(cause)
        })?;
        self.prolong().await?;
        let put = self.put(&value, announcement.takes_over).await;
        self.is_old = put.is_err();
        let (lease, put) = put.map_err(|failure| {
            let error = failure.of_value(value.len(), "register");
            // Nothing is put without a lease.
            if self.lease.is_none() { error.without_effect() } else { error }
        })?;
        let (position, loss) = match put {
            Put::Done(position) => {
                self.accepted = Some(value);
                self.since = position.revision;
                (position, self.loss(Found::Ours))
            }
            Put::Refused(other, position) => {
                self.other = None;
                let by = self.describe(&other);
                (position, self.loss(Found::Other { by }))
            }
        };
        // A live watch sees this put, too, and recognizes its revision.
        if self.watch.is_none() {
            self.watch_from(position).await;
        }
        Ok(loss.map_or_else(|| Renewal::Renewed(LeaseTtl::new(lease.ttl)), Renewal::Lost))
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        let Some(lease) = self.lease else {
            return Ok(Renewal::Lost(LossReason::Gone));
        };
        match self.entry.keep_alive(lease).await {
            Ok(()) => {}
            Err(failure) if failure.is_lease_not_found() => {
                self.lease = None;
                return Ok(Renewal::Lost(LossReason::SessionEnded));
            }
            Err(failure) => {
                self.is_old = true;
                return Err(failure.into_error("renew"));
            }
        }
        // The server is well: no reason to wait longer with a new watch, if there is none.
        self.read_at = Instant::now();
        self.n_renewed = self.n_renewed.wrapping_add(1);
        if self.other.is_some() || self.n_renewed.is_multiple_of(VERIFY_EVERY) {
            let read = self.read(lease).await;
            let (found, _) = read.map_err(|failure| failure.into_error("verify"))?;
            self.other = None;
            if let Some(loss) = self.loss(found) {
                return Ok(Renewal::Lost(loss));
            }
        }
        Ok(Renewal::Renewed(LeaseTtl::new(lease.ttl)))
    }

    async fn lost(&mut self) -> LossReason {
        let Some(lease) = self.lease else {
            return pending().await;
        };
        loop {
            let found = self.next_found(lease).await;
            if let Some(loss) = self.loss(found) {
                return loss;
            }
        }
    }

    async fn withdraw(&mut self) -> Result<()> {
        (self.watch, self.is_old) = (None, true);
        if let Some(lease) = self.lease {
            let removed = self.entry.remove(lease).await;
            removed.map_err(|failure| failure.into_error("deregister"))?;
            self.lease = None;
        }
        Ok(())
    }
}

/// One read of the key per time to live: old servers have acknowledged the renewal of a lease that
/// was revoked.
const VERIFY_EVERY: u32 = 3;
/// The one that there was, and two that were granted just now. After that the loop waits before it
/// tries again.
const MAX_LEASES: u32 = 3;

#[cfg(test)]
mod tests;
