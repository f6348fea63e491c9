use etcd_client::{GetOptions, GetResponse};
use tower_sd_core::{Error, ErrorKind, Result};

use crate::{
    BACKEND,
    client::{Change, EtcdClient, MAX_MESSAGE, Position},
    error::Failure,
    key::Range,
};

/// All keys of a range, as they were at one revision.
pub(super) struct List {
    pub(super) position: Position,
    pub(super) entries: Vec<Change>,
}

/// Reads a page at a time; `None` when the revision was compacted meanwhile.
///
/// # Errors
///
/// There are more than `max_entries` keys, or 256 MiB of them; the cluster cannot be read.
pub(super) async fn pages(
    client: &EtcdClient,
    range: &Range,
    max_entries: usize,
) -> Result<Option<List>> {
    let mut from = range.start.clone();
    let (mut list, mut n_bytes) = (None::<List>, 0);
    let mut limit = PAGE;
    loop {
        let revision = list.as_ref().map_or(0, |list| list.position.revision);
        let options = GetOptions::new()
            .with_range(range.end.clone())
            .with_limit(limit)
            .with_revision(revision);
        let max_bytes = if limit == 1 { MAX_MESSAGE } else { MAX_PAGE };
        let page = match page(client, from.clone(), options, max_bytes).await {
            Ok(page) => page,
            Err(failure) if revision != 0 && failure.is_revision_gone() => return Ok(None),
            // Values may be large: fewer of them fit, and arrive within the bound of a call.
            Err(failure) if failure.is_message_too_large() && limit > 1 => {
                limit = (limit / 4).max(1);
                continue;
            }
            Err(failure) => return Err(failure.into_error("follow")),
        };
        let list = list.get_or_insert_with(|| List {
            position: Position::of(page.header()),
            entries: Vec::new(),
        });
        list.entries.extend(page.kvs().iter().map(Change::from));
        n_bytes += page.kvs().iter().map(|kv| kv.key().len() + kv.value().len()).sum::<usize>();
        if n_bytes > MAX_LIST {
            return Err(too_large());
        }
        // The server counts those behind the page, too.
        let n_left = usize::try_from(page.count()).unwrap_or_default();
        let n_behind = n_left.saturating_sub(page.kvs().len());
        if list.entries.len().saturating_add(n_behind) > max_entries {
            return Err(too_many(max_entries));
        }
        match list.entries.last().filter(|_| page.more()) {
            Some(last) => {
                from.clone_from(&last.key);
                from.push(0);
            }
            None => {
                let entries = std::mem::take(&mut list.entries);
                return Ok(Some(List { position: list.position, entries }));
            }
        }
    }
}

async fn page(
    client: &EtcdClient,
    from: Vec<u8>,
    options: GetOptions,
    max_bytes: usize,
) -> Result<GetResponse, Failure> {
    let page = client.call(|client| {
        let (from, options) = (from.clone(), options.clone());
        let mut kv = client.kv_client().max_decoding_message_size(max_bytes);
        async move { kv.get(from, Some(options)).await }
    });
    page.await
}

fn too_large() -> Error {
    let message = format!("more than {MAX_LIST} bytes of keys and values; is the prefix right?");
    Error::new(ErrorKind::Protocol, BACKEND, "follow").with_message(message)
}

pub(super) fn too_many(max_entries: usize) -> Error {
    let message = format!("more than {max_entries} keys; is the prefix right?");
    Error::new(ErrorKind::Protocol, BACKEND, "follow").with_message(message)
}

/// Bytes of a list: a wrong prefix, or a hostile server, must not take the memory of the process.
const MAX_LIST: usize = 256 << 20;
/// Some hundred kilobytes of ordinary instances.
const PAGE: i64 = 1000;
/// Larger pages are read again in smaller ones.
const MAX_PAGE: usize = 8 << 20;
