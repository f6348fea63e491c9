//! The calls which touch one registration's key and its lease.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KeyValue, PutOptions, PutResponse, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use crate::{
    client::{Change, EtcdClient, Position},
    error::Failure,
};

/// The key of one registration.
pub(super) struct Entry {
    client: EtcdClient,
    key: Vec<u8>,
    /// That is requested; the server may grant more.
    ttl: Duration,
}

/// A lease that was granted, with the time to live that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) id: i64,
    pub(super) ttl: Duration,
}

/// The result of a put which takes nothing from another registration.
pub(super) enum Put {
    Done(Position),
    /// The key belongs to another lease, and was left alone.
    Refused(Change, Position),
}

impl Entry {
    pub(super) fn new(client: &EtcdClient, key: Vec<u8>, ttl: Duration) -> Self {
        Self { client: client.clone(), key, ttl }
    }

    pub(super) fn client(&self) -> &EtcdClient {
        &self.client
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) async fn grant(&self) -> Result<Lease, Failure> {
        let seconds = seconds(self.ttl);
        let grant = |mut client: Client| async move {
            let answer = client.lease_grant(seconds, None).await?;
            Ok(Lease { id: answer.id(), ttl: granted(answer.ttl()) })
        };
        self.client.call(grant).await
    }

    /// Renews the lease; a lease which has ended is a failure that reports so.
    pub(super) async fn keep_alive(&self, lease: Lease) -> Result<(), Failure> {
        // The library makes an error of an answer without a time to live, which means a dead lease.
        let alive = |mut client: Client| async move {
            client.lease_keep_alive(lease.id).await.map(|_streams| ())
        };
        self.client.call(alive).await
    }

    /// Puts whatever the key has, and returns what it had: a registration takes over from its
    /// predecessor.
    pub(super) async fn put_over(
        &self,
        lease: Lease,
        value: &[u8],
    ) -> Result<(Position, Option<Change>), Failure> {
        let put = |mut client: Client| {
            let options = PutOptions::new().with_lease(lease.id).with_prev_key();
            let put = (self.key.clone(), value.to_vec());
            async move { client.put(put.0, put.1, Some(options)).await }
        };
        let answer: PutResponse = self.client.call(put).await?;
        Ok((Position::of(answer.header()), answer.prev_key().map(Change::from)))
    }

    /// Puts where the key is ours, is absent, or has no lease; otherwise returns what it has.
    pub(super) async fn put_unless_taken(
        &self,
        lease: Lease,
        value: &[u8],
    ) -> Result<Put, Failure> {
        let put = |mut client: Client| {
            let txn = self.put_txn(lease, value);
            async move { client.txn(txn).await }
        };
        let answer = self.client.call(put).await?;
        let position = Position::of(answer.header());
        Ok(match found(&answer) {
            Some(other) => Put::Refused(Change::from(&other), position),
            None => Put::Done(position),
        })
    }

    fn put_txn(&self, lease: Lease, value: &[u8]) -> Txn {
        let put = || {
            let options = PutOptions::new().with_lease(lease.id);
            TxnOp::put(self.key.clone(), value, Some(options))
        };
        let has_lease = |id| Compare::lease(self.key.clone(), CompareOp::Equal, id);
        let get = TxnOp::get(self.key.clone(), None);
        // etcd compares an absent key as one with lease 0.
        let otherwise = Txn::new().when([has_lease(0)]).and_then([put()]).or_else([get]);
        Txn::new().when([has_lease(lease.id)]).and_then([put()]).or_else([TxnOp::txn(otherwise)])
    }

    pub(super) async fn read(&self) -> Result<(Option<Change>, Position), Failure> {
        let get = |mut client: Client| {
            let key = self.key.clone();
            async move { client.get(key, Some(GetOptions::new())).await }
        };
        let answer = self.client.call(get).await?;
        Ok((answer.kvs().first().map(Change::from), Position::of(answer.header())))
    }

    /// Deletes the key if it is under this lease, and ends the lease: a put which is still on its
    /// way finds no lease to live under.
    pub(super) async fn remove(&self, lease: Lease) -> Result<(), Failure> {
        let delete = |mut client: Client| {
            let ours = Compare::lease(self.key.clone(), CompareOp::Equal, lease.id);
            let delete = TxnOp::delete(self.key.clone(), None);
            let txn = Txn::new().when([ours]).and_then([delete]);
            async move { client.txn(txn).await.map(|_answer| ()) }
        };
        self.client.call(delete).await?;
        let revoke = |mut client: Client| async move {
            client.lease_revoke(lease.id).await.map(|_answer| ())
        };
        match self.client.call(revoke).await {
            Err(failure) if !failure.is_lease_not_found() => Err(failure),
            _ => Ok(()),
        }
    }
}

/// The entry which kept [`Entry::put_txn`] from putting.
fn found(answer: &TxnResponse) -> Option<KeyValue> {
    answer.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Txn(inner) => found(&inner),
        TxnOpResponse::Get(get) => get.kvs().first().cloned(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) => None,
    })
}

/// A server may grant more than was requested, and reports a number of any size.
fn granted(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default().clamp(1, MAX_GRANTED))
}

/// A year: far above all leases in use, and far below the end of the clock.
const MAX_GRANTED: u64 = 365 * 24 * 60 * 60;

/// A time to live in etcd's whole seconds.
fn seconds(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_times_of_any_size_are_usable() {
        for (seconds, expected) in
            [(15, 15), (0, 1), (-1, 1), (i64::MIN, 1), (i64::MAX, MAX_GRANTED)]
        {
            assert_eq!(granted(seconds), Duration::from_secs(expected));
        }
    }
}
