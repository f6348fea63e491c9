//! Faults that a real server does not show on demand, from a scripted server.

mod fake;
mod leases;
mod messages;
mod resuming;
mod watches;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use self::{
    fake::{Call, Fake, Replies, Reply, say},
    messages::{
        Create, Done, Event, Header, KeyValue, Lease, PutRequest, RangeResponse, Token, TxnRequest,
        WatchRequest, WatchResponse,
    },
};

const REVISION: i64 = 100;

fn header() -> Option<Header> {
    Some(Header { cluster_id: 1, revision: REVISION })
}

/// The key and the value of an instance of the service `s`. No two have the same address.
fn entry(id: &str, mod_revision: i64) -> KeyValue {
    let port = id.bytes().map(u16::from).sum::<u16>();
    KeyValue {
        key: format!("tower-sd/s/{id}").into_bytes(),
        create_revision: mod_revision,
        mod_revision,
        version: 1,
        value: format!(r#"{{"Addr":"127.0.0.1:{port}"}}"#).into_bytes(),
        lease: 7,
    }
}

/// A list of these instances.
fn listed(ids: &[&str]) -> Replies {
    let kvs: Vec<_> = ids.iter().map(|id| entry(id, REVISION)).collect();
    let count = i64::try_from(kvs.len()).expect("is small");
    vec![say(&RangeResponse { header: header(), kvs, more: false, count })]
}

fn created(watch_id: i64) -> WatchResponse {
    WatchResponse { header: header(), watch_id, created: true, ..WatchResponse::default() }
}

/// A watch that is refused immediately.
fn refused(reason: &str) -> WatchResponse {
    WatchResponse { canceled: true, cancel_reason: reason.to_owned(), ..created(-1) }
}

/// A new instance, at this revision.
fn event(watch_id: i64, id: &str, revision: i64) -> WatchResponse {
    WatchResponse {
        header: Some(Header { cluster_id: 1, revision }),
        watch_id,
        events: vec![Event { kv: Some(entry(id, revision)) }],
        ..WatchResponse::default()
    }
}

/// The watch that a call creates.
fn wanted(call: &Call) -> Option<Create> {
    call.decode::<WatchRequest>().create
}

/// The answers of a healthy server to calls beside the test's subject.
///
/// Watches begin, and are silent but for the progress that is requested
/// for; everything else succeeds.
fn well(call: &Call) -> Replies {
    match &*call.method {
        "Range" => listed(&[]),
        "Watch" => match wanted(call) {
            Some(create) => vec![say(&created(create.watch_id))],
            None => {
                vec![say(&WatchResponse { watch_id: -1, header: header(), ..Default::default() })]
            }
        },
        "LeaseGrant" | "LeaseKeepAlive" => vec![say(&Lease { header: header(), id: 7, ttl: 1 })],
        "Authenticate" => vec![say(&Token { header: header(), token: "token".to_owned() })],
        _ => vec![say(&Done { header: header() })],
    }
}

/// The number of requests before.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Relaxed)
    }
}
