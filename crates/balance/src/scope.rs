use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread_local,
    time::Duration,
};

use tokio::time::Instant;
use tower_sd_core::InstanceId;

use crate::{CallerDeadline, NoInstances, Overloaded, limits::Ticket, restore::with};

/// One logical request, across all its attempts, as a balancer reads and writes it.
///
/// A [`Retry`](crate::Retry) enters one around its attempts. [`ScopeLayer`](crate::ScopeLayer), a
/// hedge or a retry of another crate does the same: the [`Balance`](crate::Balance) below leaves
/// out the endpoints that were tried, and its picker reads the key and the deadline. Clones are the
/// same request.
///
/// The scope is a value of the thread, entered around every poll, so that no request type is
/// constrained. It does not cross a `Buffer` or a spawned task: below one, nothing is excluded. It
/// is left around the endpoint's own work, which may send requests of its own.
///
/// ```
/// use tower_sd::endpoint::RequestScope;
///
/// let scope = RequestScope::new().with_key(7);
/// let key = scope.enter(|| RequestScope::current().and_then(|scope| scope.key()));
/// assert_eq!(key, Some(7));
/// assert!(RequestScope::current().is_none());
/// ```
//
// A pointer, because it goes through several hands.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RequestScope(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    settings: Settings,
    progress: Progress,
    /// The same request with other settings: that one has the progress.
    of: Option<RequestScope>,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    key: Option<u64>,
    deadline: Option<Instant>,
    label: Option<Arc<str>>,
    /// Of the head of the response alone.
    head_deadline: Option<Instant>,
    /// The bound of each attempt, up to the head of its response.
    per_try: Option<Duration>,
    /// It is sent beside an attempt in flight, or not at all.
    is_hedge: bool,
    /// A `Retry` keeps the record of it.
    is_retried: bool,
    /// Part of the deadlines already.
    caller: Option<CallerDeadline>,
}

#[derive(Default)]
struct Progress {
    /// Distinguishes the requests of one process; drawn when it is needed.
    id: OnceLock<u64>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tried: Vec<Tried>,
    /// The place of the attempt whose result counts, when that is not the last.
    result_of: Option<usize>,
    /// Why there is no endpoint yet, while one is searched.
    search: Option<Box<WhyNone>>,
    /// The limit of retries of the balancer below.
    admit_retry: Option<Arc<AdmitRetry>>,
    /// Of a retry that is admitted and not begun.
    admitted: Option<Ticket>,
}

struct Tried {
    key: u64,
    id: InstanceId,
    was_sent: bool,
}

pub(crate) type WhyNone = dyn Fn() -> NoInstances + Send + Sync;
pub(crate) type AdmitRetry = dyn Fn() -> Result<Ticket, Overloaded> + Send + Sync;

impl RequestScope {
    /// A request that was not tried yet, without key and deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the key by which a hashing balancer chooses.
    ///
    /// A key must be the same in all clients and releases: a number, or a stable hash of a name.
    /// The hashers of the standard library promise neither.
    pub fn with_key(self, key: u64) -> Self {
        self.edit(|it| it.key = Some(key))
    }

    /// Sets the moment at which the request is over.
    ///
    /// An earlier one of an outer layer stays. A [`Retry`](crate::Retry) inside the scope ends the
    /// request then; endpoints end the bodies of its responses.
    pub fn with_deadline(self, deadline: Instant) -> Self {
        self.edit(|it| it.deadline = it.deadline.into_iter().chain([deadline]).min())
    }

    /// Sets the label of the instances that a [`Select`](crate::Select) selects.
    pub fn with_label(self, label: impl Into<Arc<str>>) -> Self {
        self.edit(|it| it.label = Some(label.into()))
    }

    /// Sets the moment by which the head of the response must have come.
    ///
    /// An earlier one of an outer layer stays. The body has the time that
    /// [`with_deadline`](Self::with_deadline) leaves it.
    pub fn with_head_deadline(self, deadline: Instant) -> Self {
        self.edit(|it| it.head_deadline = it.head_deadline.into_iter().chain([deadline]).min())
    }

    /// Adds the deadline of the request that the caller is serving.
    pub(crate) fn with_caller(self, caller: CallerDeadline) -> Self {
        let scope = self.edit(|it| it.caller = Some(caller));
        match caller.is_to_head() {
            true => scope.with_head_deadline(caller.at()),
            false => scope.with_deadline(caller.at()),
        }
    }

    /// The deadline of the request that the caller is serving.
    pub(crate) fn caller(&self) -> Option<CallerDeadline> {
        self.0.settings.caller
    }

    /// The key.
    pub fn key(&self) -> Option<u64> {
        self.0.settings.key
    }

    /// The label of the instances that are selected.
    pub fn label(&self) -> Option<&str> {
        self.0.settings.label.as_deref()
    }

    /// The moment at which the request is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.settings.deadline
    }

    /// The moment by which the head of the response must have come.
    ///
    /// It is the earlier of both deadlines.
    pub fn head_deadline(&self) -> Option<Instant> {
        let Settings { deadline, head_deadline, .. } = self.0.settings;
        deadline.into_iter().chain(head_deadline).min()
    }

    /// The instances that the request was sent to, in order.
    pub fn tried(&self) -> Vec<InstanceId> {
        self.inner().tried.iter().map(|tried| tried.id.clone()).collect()
    }

    /// The scope that the caller is in.
    pub fn current() -> Option<Self> {
        match is_entered() {
            true => CURRENT.with(|current| {
                let scope = current.take();
                current.set(scope.clone());
                scope
            }),
            false => None,
        }
    }

    /// Runs `f`, the poll of a future or a call, inside this scope.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        let f = || CURRENT.with(|current| with(current, Some(self.clone()), f).0);
        ENTERED.with(|entered| with(entered, true, f).0)
    }

    pub(crate) fn id(&self) -> u64 {
        *self.progress().id.get_or_init(|| NEXT.fetch_add(1, Relaxed))
    }

    /// An endpoint is searched from now on.
    pub(crate) fn search(&self, why_none: Box<WhyNone>) {
        self.inner().search = Some(why_none);
    }

    /// The search is over: the endpoint gets the request; how often it was sent, this time
    /// included.
    pub(crate) fn sent(&self, key: u64, id: &InstanceId) -> u32 {
        let mut inner = self.inner();
        (inner.search, inner.result_of, inner.admitted) = (None, None, None);
        inner.tried.push(Tried { key, id: id.clone(), was_sent: true });
        u32::try_from(inner.tried.len()).unwrap_or(u32::MAX)
    }

    /// That endpoint has found that nothing of the request was sent to it after all.
    pub(crate) fn not_sent(&self, key: u64) {
        let mut inner = self.inner();
        if let Some(tried) = inner.tried.iter_mut().rfind(|tried| tried.key == key) {
            tried.was_sent = false;
        }
    }

    /// Whether an endpoint that was tried since there were `len` has received anything of the
    /// request.
    pub(crate) fn was_sent_since(&self, len: usize) -> bool {
        self.inner().tried.iter().skip(len).any(|tried| tried.was_sent)
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.inner().tried.iter().any(|tried| tried.key == key)
    }

    /// The endpoints that were tried.
    pub(crate) fn keys(&self) -> Vec<u64> {
        self.inner().tried.iter().map(|tried| tried.key).collect()
    }

    pub(crate) fn n_tried(&self) -> usize {
        self.inner().tried.len()
    }

    /// The endpoint that was tried when there were `len`.
    pub(crate) fn nth(&self, len: usize) -> Option<(u64, InstanceId)> {
        self.inner().tried.get(len).map(|tried| (tried.key, tried.id.clone()))
    }

    /// The one among those that were added since there were `len` whose result counts.
    pub(crate) fn last_since(&self, len: usize) -> Option<InstanceId> {
        let inner = self.inner();
        let last = inner.result_of.or_else(|| inner.tried.len().checked_sub(1))?;
        inner.tried.get(last).filter(|_| last >= len).map(|tried| tried.id.clone())
    }

    /// The result of that attempt counts, although another was begun after it.
    pub(crate) fn result_of(&self, nth: usize) {
        self.inner().result_of = Some(nth);
    }

    /// Bounds each attempt up to the head of its response.
    pub(crate) fn with_per_try(self, per_try: Duration) -> Self {
        self.edit(|it| it.per_try = Some(per_try))
    }

    /// Whether it has a deadline, or its attempts have.
    pub(crate) fn is_bounded(&self) -> bool {
        let Settings { deadline, head_deadline, per_try, .. } = self.0.settings;
        deadline.or(head_deadline).is_some() || per_try.is_some()
    }

    /// When the head of the response of an attempt must have come that begins at `now`.
    pub(crate) fn attempt_deadline(&self, now: Instant) -> Option<Instant> {
        let of_attempt = self.0.settings.per_try.and_then(|per_try| now.checked_add(per_try));
        self.head_deadline().into_iter().chain(of_attempt).min()
    }

    /// The scope of a `Retry`.
    ///
    /// One inside another belongs to a request of what stands between them: it has the same key and
    /// deadlines, and a record of its own.
    pub(crate) fn retried(self) -> Self {
        if !self.0.settings.is_retried {
            return self.edit(|it| it.is_retried = true);
        }
        let settings = Settings { is_hedge: false, ..self.0.settings.clone() };
        Self(Arc::new(Shared { settings, ..Shared::default() }))
    }

    /// The same request, for an attempt beside the one in flight.
    pub(crate) fn hedge(&self) -> Self {
        self.clone().edit(|it| it.is_hedge = true)
    }

    /// Whether it takes no instance but another one that is ready.
    pub(crate) fn is_hedge(&self) -> bool {
        self.0.settings.is_hedge
    }

    pub(crate) fn is_searching(&self) -> bool {
        self.inner().search.is_some()
    }

    /// Ends the search. `None`: there is none.
    pub(crate) fn give_up(&self) -> Option<NoInstances> {
        let search = self.inner().search.take();
        search.map(|why_none| why_none().of_request(Some(self.id())))
    }

    /// The balancer below has limits.
    pub(crate) fn limit_retries(&self, admit: &Arc<AdmitRetry>) {
        if self.0.settings.is_retried {
            self.inner().admit_retry = Some(Arc::clone(admit));
        }
    }

    /// Whether the limits of the balancer below admit another attempt, which begins after a pause.
    pub(crate) fn admit_retry(&self) -> Result<(), Overloaded> {
        let is_retry = self.n_tried() > 0;
        // It calls observers, which may read this scope.
        let admit = self.inner().admit_retry.take().filter(|_| is_retry);
        if let Some(admit) = admit {
            let ticket = admit()?;
            self.inner().admitted = Some(ticket);
        }
        Ok(())
    }

    /// Takes the place of the attempt that was admitted: it begins, or never will.
    pub(crate) fn admitted(&self) -> Option<Ticket> {
        self.inner().admitted.take()
    }

    fn edit(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        if let Some(own) = Arc::get_mut(&mut self.0) {
            change(&mut own.settings);
            return self;
        }
        let mut settings = self.0.settings.clone();
        change(&mut settings);
        let of = Some(self.0.of.clone().unwrap_or(self));
        Self(Arc::new(Shared { settings, of, ..Shared::default() }))
    }

    fn progress(&self) -> &Progress {
        self.0.of.as_ref().map_or(&self.0.progress, |of| &of.0.progress)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.progress().inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the caller is in a scope.
#[inline]
pub(crate) fn is_entered() -> bool {
    ENTERED.get()
}

/// Runs `f`, the work of an endpoint, outside of any scope.
#[inline]
pub(crate) fn leave<T>(f: impl FnOnce() -> T) -> T {
    ENTERED.with(|entered| with(entered, false, f).0)
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("id", &self.id).finish_non_exhaustive()
    }
}

thread_local! {
    /// Read with every request: without a destructor it costs a load.
    static ENTERED: Cell<bool> = const { Cell::new(false) };
    /// Outdated while it is not entered.
    static CURRENT: Cell<Option<RequestScope>> = const { Cell::new(None) };
}

static NEXT: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests;
