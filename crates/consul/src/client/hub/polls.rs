//! The shared polls.

use std::{
    collections::BTreeSet,
    error::Error as _,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::select_all};
use tokio::{
    join, select,
    sync::watch,
    time::{sleep, timeout},
};
use tower_sd_core::{Backoff, Error, Result};
use tower_sd_net::{HttpClientError, HttpClientErrorKind};

use super::{Board, Followers, checks::Checks};
use crate::client::{
    Meta,
    http::{Call, Wire},
    succeed,
};

/// Polls for all followers, until it is dropped.
pub(super) async fn run(followers: Arc<Followers>, board: Arc<Board>) {
    tracing::debug!(backend = crate::BACKEND, "followers share their queries");
    let polls = Polls { followers, board, blind: AtomicBool::new(false) };
    let mut nodes = Checks::default();
    let of_nodes = |body: &[u8]| {
        let differs = nodes.read(body).is_none_or(|changed| !changed.is_empty());
        differs && polls.sweep_soon()
    };
    join!(
        polls.or_blind(polls.poll(0, &["catalog", "services"], None, |_| polls.sweep_soon())),
        polls.or_blind(polls.poll(1, &["catalog", "nodes"], None, |_| polls.sweep_soon())),
        polls.or_blind(polls.poll(2, STATE, Some(filter(&[])), of_nodes)),
        polls.checks_of_services(),
        polls.sweep(),
    );
}

struct Polls {
    followers: Arc<Followers>,
    board: Arc<Board>,
    /// An answer is longer than `max_body`: all services are read anew from time to time instead.
    blind: AtomicBool,
}

impl Polls {
    /// Polls the checks of the followed services, in groups: more of them when a filter or an
    /// answer is too long.
    async fn checks_of_services(&self) {
        let mut n_groups = 1;
        while n_groups <= MAX_GROUPS {
            let groups = (0..n_groups).map(|k| self.checks_of_group(k, n_groups).boxed());
            select_all(groups).await;
            self.board.failures.send_modify(|failures| failures.retain(|n, _| *n < FIRST_GROUP));
            n_groups *= 2;
        }
        self.blind.store(true, Relaxed);
        self.board.sweep.notify_one();
    }

    /// Polls the checks of one group, until it is too large.
    async fn checks_of_group(&self, k: usize, n_groups: usize) {
        let mut names = self.followers.names.subscribe();
        let mut checks = Checks::default();
        loop {
            names.mark_unchanged();
            let group = self.group(k, n_groups);
            let filter = filter(&group.iter().map(String::as_str).collect::<Vec<_>>());
            if filter.len() > MAX_FILTER && n_groups < MAX_GROUPS {
                return;
            }
            if group.is_empty() {
                let _client_lives = names.changed().await;
                continue;
            }
            let changed = |body: &[u8]| match checks.read(body) {
                Some(changed) => {
                    changed.iter().for_each(|service| self.followers.changed(service));
                    !changed.is_empty()
                }
                None => self.sweep_soon(),
            };
            select! {
                () = self.poll(FIRST_GROUP + k, STATE, Some(filter), changed) => return,
                () = self.joined(&mut names, &group, k, n_groups) => {}
            }
        }
    }

    /// Resolves some time after a service was followed that is not in the group yet.
    async fn joined(
        &self,
        names: &mut watch::Receiver<u64>,
        group: &BTreeSet<String>,
        k: usize,
        n_groups: usize,
    ) {
        while names.changed().await.is_ok() {
            if !self.group(k, n_groups).is_subset(group) {
                // Others follow; and an old agent keeps the slot of a connection that is closed.
                return sleep(BETWEEN_GROUPS).await;
            }
        }
    }

    fn group(&self, k: usize, n_groups: usize) -> BTreeSet<String> {
        let followed = self.followers.followed();
        let names = followed.services.keys().filter(|name| group_of(name, n_groups) == k);
        names.cloned().collect()
    }

    /// One poll, until an answer is longer than `max_body`. `changed` returns whether an answer
    /// showed a change.
    async fn poll(
        &self,
        n: usize,
        path: &[&str],
        filter: Option<String>,
        mut changed: impl FnMut(&[u8]) -> bool + Send,
    ) {
        let failures = &self.board.failures;
        // Its followers wait after a denial; this poll goes on for all.
        let mut backoff = Backoff::default().with_denied_pause(Duration::ZERO);
        let (mut index, mut idle) = (None, Duration::ZERO);
        loop {
            match ask(&self.followers.wire, path, filter.as_deref(), index).await {
                Ok((found, body)) => {
                    backoff.succeeded();
                    failures.send_if_modified(|failures| failures.remove(&n).is_some());
                    // Any check of the datacentre wakes a poll of checks.
                    idle = match (found.is_none() || found != index) && changed(&body) {
                        true => Duration::ZERO,
                        false => (idle * 2).clamp(MIN_PAUSE, MAX_IDLE_PAUSE),
                    };
                    sleep(pause_after(body.len()).max(idle)).await;
                    let found = found.filter(|found| *found > 0);
                    if found.is_none() {
                        sleep(POLL_WITHOUT_INDEX).await;
                    }
                    // One that went back is not waited for.
                    index = found.filter(|found| index.is_none_or(|index| *found >= index));
                }
                Err(error) if is_too_long(&error) => {
                    tracing::debug!(backend = crate::BACKEND, %error, "shared query too large");
                    failures.send_if_modified(|failures| failures.remove(&n).is_some());
                    return;
                }
                Err(error) => {
                    index = None;
                    let pause = backoff.next_pause_after(&error);
                    failures.send_modify(|failures| drop(failures.insert(n, error)));
                    sleep(pause).await;
                }
            }
        }
    }

    async fn or_blind(&self, poll: impl Future<Output = ()>) {
        poll.await;
        self.blind.store(true, Relaxed);
        self.board.sweep.notify_one();
    }

    fn sweep_soon(&self) -> bool {
        self.board.sweep.notify_one();
        true
    }

    async fn sweep(&self) {
        loop {
            // A change that woke no poll is found by this.
            let interval = if self.blind.load(Relaxed) { SWEEP_BLIND } else { SWEEP_EVERY };
            let _or_in_time = timeout(interval, self.board.sweep.notified()).await;
            self.followers.all_changed();
            sleep(BETWEEN_SWEEPS).await;
        }
    }
}

async fn ask(
    wire: &Wire,
    path: &[&str],
    filter: Option<&str>,
    index: Option<u64>,
) -> Result<(Option<u64>, Vec<u8>)> {
    let mut call = Call::get("follow", path);
    call.query.extend(filter.map(|filter| ("filter", filter.to_owned())));
    if let Some(index) = index {
        call.query.push(("index", index.to_string()));
        call.query.push(("wait", format!("{}ms", WAIT.as_millis())));
    }
    let answer = wire.send(call.blocking(WAIT)).await?;
    succeed(&answer)?;
    Ok((Meta::of(&answer.headers).index, answer.body))
}

fn is_too_long(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<HttpClientError>());
    cause.is_some_and(|cause| cause.kind() == HttpClientErrorKind::TooLong)
}

/// The checks that do not pass, of these services, or of the nodes themselves: what passes changes
/// nothing. Without regard to case, as Consul finds services.
pub(super) fn filter(services: &[&str]) -> String {
    let selected = match services {
        [] => "ServiceName == ``".to_owned(),
        services => {
            let names: Vec<String> = services.iter().map(|name| pattern(name)).collect();
            format!("ServiceName matches `^(?i:{})$`", names.join("|"))
        }
    };
    format!("Status != `passing` and {selected}")
}

/// A regular expression for a name. A back quote would end the filter's text: any character.
fn pattern(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '`' => pattern.push('.'),
            '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                pattern.extend(['\\', c]);
            }
            c => pattern.push(c),
        }
    }
    pattern
}

fn group_of(name: &str, n_groups: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish() >> 32).unwrap_or_default() % n_groups
}

/// After an answer of 400 KB at most seven a second.
fn pause_after(size: usize) -> Duration {
    MIN_PAUSE + PAUSE_PER_KB * u32::try_from(size / 1024).unwrap_or(u32::MAX)
}

const STATE: &[&str] = &["health", "state", "any"];
/// The number of the first poll of checks of services.
const FIRST_GROUP: usize = 3;
/// Each occupies a connection.
const MAX_GROUPS: usize = 16;
/// Proxies accept 8 KB of a request's head, of which each character may take three.
const MAX_FILTER: usize = 2_500;
const BETWEEN_GROUPS: Duration = Duration::from_secs(1);
/// Shorter than a follower's own: an answer that is lost is missed by all.
const WAIT: Duration = Duration::from_secs(30);
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_IDLE_PAUSE: Duration = Duration::from_millis(500);
const PAUSE_PER_KB: Duration = Duration::from_micros(300);
/// A sweep of 1 000 services takes an agent 70 to 250 ms.
const BETWEEN_SWEEPS: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_BLIND: Duration = Duration::from_secs(5);
const POLL_WITHOUT_INDEX: Duration = Duration::from_secs(2);
