use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::{Connection, Pool, Unused, connection::Obtained, http1::Exclusive, upload::Payload};
use crate::{HttpError, HttpErrorKind};

/// Obtains one connection for one request: an idle one that is still open, else a new one. In
/// HTTP/2, a place on one.
///
/// Dropped, it gives back what it has.
pub(crate) struct Checkout<B: Send + 'static> {
    pool: Arc<Pool<B>>,
    state: State<B>,
    /// Whether it comes before the requests that wait.
    is_first: bool,
}

enum State<B: Send + 'static> {
    Empty,
    Waiting(oneshot::Receiver<Obtained<B>>),
    /// The previous exchange of the connection is not quite over.
    Settling {
        unused: Unused<B>,
        patience: Pin<Box<Sleep>>,
    },
    Ready(Unused<B>),
}

impl<B: Send + 'static> Checkout<B> {
    pub(crate) fn new(pool: Arc<Pool<B>>) -> Self {
        Self { pool, state: State::Empty, is_first: false }
    }

    /// Another one, for a request that a connection did not take: it has waited already.
    pub(crate) fn again(pool: Arc<Pool<B>>) -> Self {
        Self { pool, state: State::Empty, is_first: true }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool<B>> {
        &self.pool
    }

    /// The connection, once [`poll`](Self::poll) has returned that it is there.
    pub(crate) fn take(&mut self) -> Option<Unused<B>> {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Ready(unused) => Some(unused),
            other => {
                self.state = other;
                None
            }
        }
    }
}

impl<B: Payload> Checkout<B> {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        loop {
            self.state = match &mut self.state {
                State::Empty => match self.pool.obtain(self.is_first) {
                    Ok(unused) => settle(unused),
                    Err(promise) => State::Waiting(promise),
                },
                State::Waiting(promise) => {
                    let obtained = ready!(Pin::new(promise).poll(cx));
                    self.state = State::Empty;
                    settle(obtained.unwrap_or_else(|_| Err(self.closed()))?)
                }
                State::Settling { unused, patience } => {
                    match ready!(poll_settled(unused, patience.as_mut(), cx)) {
                        Settled::Open => self.settled(),
                        Settled::Closed => State::Empty,
                        Settled::Not => {
                            self.set_aside();
                            State::Empty
                        }
                    }
                }
                State::Ready(unused) if unused.is_over(&self.pool.settings) => State::Empty,
                State::Ready(_) => return Poll::Ready(Ok(())),
            };
            // A new connection is not checked again: a server that accepts and closes would keep it
            // here.
            if let State::Ready(_) = self.state {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn settled(&mut self) -> State<B> {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Settling { unused, .. } => State::Ready(unused),
            other => other,
        }
    }

    /// What is still sent is not cut.
    fn set_aside(&mut self) {
        if let State::Settling { unused, .. } = std::mem::replace(&mut self.state, State::Empty)
            && let Some(Connection::Http1(exclusive)) = unused.take()
        {
            exclusive.linger(Exclusive::give_back);
        }
    }

    fn closed(&self) -> HttpError {
        let reason = "the endpoint is closed";
        HttpError::new(HttpErrorKind::Connect, &self.pool.target.address, reason)
    }
}

enum Settled {
    Open,
    Closed,
    Not,
}

fn settle<B: Send + 'static>(mut unused: Unused<B>) -> State<B> {
    match unused.as_mut() {
        Some(Connection::Http1(exclusive)) if exclusive.reused && !exclusive.is_ready() => {
            State::Settling { unused, patience: Box::pin(sleep(SETTLE)) }
        }
        _ => State::Ready(unused),
    }
}

fn poll_settled<B: Send + 'static>(
    unused: &mut Unused<B>,
    patience: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Settled> {
    let Some(Connection::Http1(exclusive)) = unused.as_mut() else {
        return Poll::Ready(Settled::Open);
    };
    match exclusive.poll_settled(cx) {
        Poll::Ready(true) => Poll::Ready(Settled::Open),
        Poll::Ready(false) => Poll::Ready(Settled::Closed),
        Poll::Pending => patience.poll(cx).map(|()| Settled::Not),
    }
}

/// The body of a response may end a moment before its connection's task has noticed, which takes
/// microseconds; when it takes longer, the end of a request that was answered early is still on its
/// way, and a new connection is quicker.
const SETTLE: Duration = Duration::from_millis(10);
