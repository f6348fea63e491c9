use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Sleep, sleep},
};
use tokio_util::sync::PollSemaphore;
use tower_sd::BoxError;

use super::{Connection, Exclusive, Pool, connection::Dialled};
use crate::{HttpError, HttpErrorKind, Protocol};

/// Obtains one connection for one request: an idle one that is still open, else a new one. In HTTP/2, a place on one.
///
/// Dropped, it gives back what it has.
pub(crate) struct Checkout<B: Send + 'static> {
    pool: Arc<Pool<B>>,
    state: State<B>,
    /// That of a connection which did not take the request.
    place: Option<OwnedSemaphorePermit>,
}

enum State<B: Send + 'static> {
    Empty,
    /// As many connections carry a request as may.
    Waiting(PollSemaphore),
    /// Taken from the idle ones, and its previous exchange is not quite over.
    Settling {
        connection: Exclusive<B>,
        patience: Pin<Box<Sleep>>,
    },
    Dialling(oneshot::Receiver<Dialled<B>>),
    Ready(Connection<B>),
}

impl<B: Send + 'static> Checkout<B> {
    pub(crate) fn new(pool: Arc<Pool<B>>) -> Self {
        Self { pool, state: State::Empty, place: None }
    }

    /// Another one, for the request that this connection did not take.
    pub(crate) fn instead_of(connection: Connection<B>, pool: Arc<Pool<B>>) -> Self {
        Self { pool, state: State::Empty, place: connection.leave() }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool<B>> {
        &self.pool
    }

    /// The connection, once [`poll`](Self::poll) has said that it is there.
    pub(crate) fn take(&mut self) -> Option<Connection<B>> {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Ready(connection) => Some(connection),
            other => {
                self.state = other;
                None
            }
        }
    }
}

impl<B> Checkout<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        loop {
            self.state = match &mut self.state {
                State::Empty => self.begin(),
                State::Waiting(places) => match ready!(places.poll_acquire(cx)) {
                    Some(place) => self.begin_at(place),
                    None => return Poll::Ready(Err(self.closed())),
                },
                State::Settling { connection, patience } => {
                    match settled(connection, patience.as_mut(), cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(true) => self.settled(),
                        Poll::Ready(false) => State::Empty,
                    }
                }
                State::Dialling(reply) => {
                    let dialled = ready!(Pin::new(reply).poll(cx));
                    self.state = State::Empty;
                    let Some(connection) = dialled.unwrap_or_else(|_| Err(self.closed()))? else {
                        continue;
                    };
                    // Not looked at again: a server that accepts and closes would keep us here for ever.
                    self.state = State::Ready(connection);
                    return Poll::Ready(Ok(()));
                }
                State::Ready(connection) if connection.is_closed() => State::Empty,
                State::Ready(_) => return Poll::Ready(Ok(())),
            };
        }
    }

    fn begin(&mut self) -> State<B> {
        match self.pool.protocol() {
            Protocol::Http1 => self.begin_http1(),
            Protocol::Auto | Protocol::Http2 => match self.pool.stream() {
                Ok(stream) => State::Ready(Connection::Http2(stream)),
                Err(promise) => State::Dialling(promise),
            },
        }
    }

    fn begin_http1(&mut self) -> State<B> {
        let places = &self.pool.places;
        let place = self.place.take().or_else(|| Arc::clone(places).try_acquire_owned().ok());
        match place {
            Some(place) => self.begin_at(place),
            None => State::Waiting(PollSemaphore::new(Arc::clone(places))),
        }
    }

    /// The place comes first: whoever has none must not open a connection.
    fn begin_at(&self, place: OwnedSemaphorePermit) -> State<B> {
        match self.pool.idle() {
            Some(mut connection) => {
                connection.place = Some(place);
                match connection.is_ready() {
                    true => State::Ready(Connection::Http1(connection)),
                    false => State::Settling { connection, patience: Box::pin(sleep(SETTLE)) },
                }
            }
            None => State::Dialling(self.pool.dial(place)),
        }
    }

    fn settled(&mut self) -> State<B> {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Settling { connection, .. } => State::Ready(Connection::Http1(connection)),
            other => other,
        }
    }

    fn closed(&self) -> HttpError {
        let reason = "the endpoint is closed";
        HttpError::new(HttpErrorKind::Connect, &self.pool.target.address, reason)
    }
}

impl<B: Send + 'static> Drop for Checkout<B> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Ready(connection) => connection.give_back(),
            State::Settling { connection, .. } => connection.give_back(),
            State::Empty | State::Waiting(_) | State::Dialling(_) => {}
        }
    }
}

fn settled<B: Send + 'static>(
    connection: &mut Exclusive<B>,
    patience: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    match connection.poll_settled(cx) {
        Poll::Ready(open) => Poll::Ready(open),
        Poll::Pending => patience.poll(cx).map(|()| false),
    }
}

/// The body of a response may end a moment before its connection's task has noticed, which takes microseconds; when
/// it takes longer, the server answered without reading all of the request, and a new connection is quicker.
const SETTLE: Duration = Duration::from_millis(10);
