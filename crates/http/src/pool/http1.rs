//! Connections that carry one request at a time.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tower_sd_balance::BoxError;
use tower_sd_core::{Shutdown, StopOnDrop, TaskGroup};
use tower_sd_net::Io;

use super::{
    Settings, Target,
    upload::{Outgoing, Payload},
};

/// One open connection with one owner, which may send on it. Dropped, it is closed.
///
/// In a box of its own: it goes from hand to hand several times for each request.
pub(crate) struct Exclusive<B: Send + 'static> {
    pub(crate) sender: http1::SendRequest<Outgoing<B>>,
    pub(crate) reused: bool,
    pub(super) target: Arc<Target>,
    retire_at: Option<Instant>,
    /// `Keep-Alive: timeout`.
    announced: Option<Duration>,
    /// `None`: it carries a request.
    idle_since: Option<Instant>,
    home: Weak<dyn Home<B>>,
    _close: StopOnDrop,
    /// A response may outlive its client: the connection's task then has no other owner.
    tasks: TaskGroup,
}

/// The pool of a connection.
pub(super) trait Home<B: Send + 'static>: Send + Sync {
    /// Keeps a connection for the next request; above the bounds it is closed.
    fn keep(self: Arc<Self>, exclusive: Box<Exclusive<B>>);
}

/// The other half of an [`Exclusive`]: reads and writes the socket.
pub(super) type Driver<B> = http1::Connection<TokioIo<Io>, Outgoing<B>>;

impl<B: Send + 'static> Exclusive<B> {
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until the previous exchange is over in both directions. `false`: it is closed.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.sender.poll_ready(cx).map(|settled| settled.is_ok())
    }

    /// The end of its time without a request.
    pub(super) fn expires(&self, now: Instant, settings: &Settings) -> Instant {
        let until = self.idle_since.unwrap_or(now) + settings.http1_idle(self.announced);
        self.retire_at.map_or(until, |at| at.min(until))
    }

    /// Reads the head of a response.
    pub(super) fn observe(&mut self, headers: &HeaderMap) {
        self.idle_since = None;
        self.announced =
            headers.get(&KEEP_ALIVE).and_then(|value| timeout_of(value.to_str().ok()?));
    }

    /// Keeps it for the next request, if its endpoint still exists and has room.
    pub(crate) fn give_back(mut self: Box<Self>) {
        self.reused = true;
        self.idle_since.get_or_insert_with(Instant::now);
        if self.sender.is_closed() {
            return;
        }
        match self.home.upgrade() {
            Some(pool) => pool.keep(self),
            None => self.close(),
        }
    }

    /// Closes it when the last bytes of its request have left.
    pub(super) fn close(self: Box<Self>) {
        if !self.is_ready() && !self.sender.is_closed() {
            self.linger(drop);
        }
    }

    /// Reads the rest of a dropped response, and keeps the connection if that is soon over.
    ///
    /// Without a runtime it is closed.
    pub(crate) fn drain(self: Box<Self>, mut rest: Incoming) {
        if Handle::try_current().is_err() {
            return;
        }
        let tasks = self.tasks.clone();
        tasks.spawn(|stop| async move {
            let read = async {
                while let Some(frame) = rest.frame().await {
                    frame?;
                }
                Ok::<_, hyper::Error>(())
            };
            tokio::select! {
                biased;
                () = stop.requested() => {}
                read = timeout(DRAIN, read) => if let Ok(Ok(())) = read {
                    self.give_back();
                }
            }
        });
    }

    /// Waits until its last exchange is over, and then for `next`: one that did not settle in time
    /// is still sending the end of a request that was answered early.
    ///
    /// Without a runtime it is closed.
    pub(super) fn linger(mut self: Box<Self>, next: fn(Box<Self>)) {
        if Handle::try_current().is_err() {
            return;
        }
        let tasks = self.tasks.clone();
        tasks.spawn(|stop| async move {
            let settled = poll_fn(|cx| self.poll_settled(cx));
            tokio::select! {
                biased;
                () = stop.requested() => {}
                settled = timeout(LINGER, settled) => if settled == Ok(true) {
                    next(self);
                }
            }
        });
    }
}

/// Uses HTTP/1.1 from now on.
pub(super) async fn begin<B: Payload>(
    io: Io,
    settings: &Settings,
    home: Weak<dyn Home<B>>,
    (target, tasks): (&Arc<Target>, TaskGroup),
    close: StopOnDrop,
) -> Result<(Box<Exclusive<B>>, Driver<B>), BoxError> {
    let mut builder = http1::Builder::new();
    if let Some(max_headers) = settings.max_http1_headers {
        builder.max_headers(max_headers);
    }
    let (sender, driver) = builder.handshake(TokioIo::new(io)).await?;
    let exclusive = Box::new(Exclusive {
        sender,
        reused: false,
        target: Arc::clone(target),
        retire_at: settings.retire_at(),
        announced: None,
        idle_since: Some(Instant::now()),
        home,
        _close: close,
        tasks,
    });
    Ok((exclusive, driver))
}

/// Runs until either side closes.
pub(super) async fn drive<B: Payload>(driver: Driver<B>, target: &Target, stop: &Shutdown) {
    tokio::select! {
        biased;
        () = stop.requested() => {}
        ended = driver => if let Err(error) = ended {
            let address = &target.address;
            tracing::debug!(%address, %error, "connection ended with an error");
        }
    }
}

/// The value of `timeout` in a `Keep-Alive` header (RFC 2068 §19.7.1.1).
fn timeout_of(value: &str) -> Option<Duration> {
    let parameters = value.split(',').filter_map(|parameter| parameter.split_once('='));
    let (_, seconds) =
        parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
    seconds.trim().trim_matches('"').parse().ok().map(Duration::from_secs)
}

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// A peer that has sent the head has mostly sent a short body too.
const DRAIN: Duration = Duration::from_millis(100);
/// As long as an idle connection is kept.
const LINGER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_timeouts_are_read_in_any_order_and_case() {
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("max=100, Timeout = 15", Some(15)),
            ("timeout=\"3\", max=1", Some(3)),
            ("max=100", None),
            ("timeout=soon", None),
            ("", None),
        ] {
            assert_eq!(timeout_of(value), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
