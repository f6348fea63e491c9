use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// A bound on the connections to all instances together: Envoy's `max_connections`.
///
/// Clones share it: those of one [`HttpFactory`](crate::HttpFactory), or factories of several
/// services that share the files which a process may open. At the bound no connection is opened,
/// which is counted, and requests wait for those that their instance has; an instance with none
/// gets one, whatever the bound is. Connections of active checks do not count.
///
/// ```
/// use tower_sd::http::{ConnectionLimit, HttpFactory};
///
/// let limit = ConnectionLimit::new(400);
/// let factory: HttpFactory<String> = HttpFactory::new().connection_limit(limit.clone());
/// assert_eq!((limit.open(), limit.refused()), (0, 0));
/// ```
#[derive(Clone)]
pub struct ConnectionLimit(Arc<Counters>);

struct Counters {
    max: usize,
    open: AtomicUsize,
    refused: AtomicU64,
}

/// One connection that counts, from its dial to its end.
pub(super) struct Place(Arc<Counters>);

impl ConnectionLimit {
    /// A bound of `max` connections; 0 leaves each instance one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let (open, refused) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Counters { max, open, refused }))
    }

    /// Connections that are open, or are being opened.
    pub fn open(&self) -> usize {
        self.0.open.load(Relaxed)
    }

    /// How often a connection was needed and not opened.
    ///
    /// A request that waits may need one several times.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    /// Room for a connection; `is_first`: to its instance, which gets it in any case.
    pub(super) fn place(&self, is_first: bool) -> Option<Place> {
        let room = |open| (is_first || open < self.0.max).then_some(open + 1);
        if self.0.open.fetch_update(Relaxed, Relaxed, room).is_err() {
            self.0.refused.fetch_add(1, Relaxed);
            return None;
        }
        Some(Place(Arc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionLimit")
            .field("max", &self.0.max)
            .field("open", &self.open())
            .field("refused", &self.refused())
            .finish()
    }
}
