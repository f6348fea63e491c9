//! One connection at a time, to one member after the other.

use std::{future::Future, sync::Arc, time::Duration};

use etcd_client::Client;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tower_sd_core::Error;

use super::{
    connection::{Connection, Connector},
    credentials::Credentials,
};
use crate::{
    EtcdConfig,
    error::{Failure, Remedy},
};

/// The members, and the connection to the one in use.
pub(super) struct Members {
    config: EtcdConfig,
    connector: Connector,
    credentials: Arc<Credentials>,
    state: Mutex<State>,
}

struct State {
    connection: Option<Arc<Connection>>,
    /// The index of the member that is tried next.
    next: usize,
}

/// A failed call, and the connection it was made on, if one could be made at all.
struct Attempt {
    failure: Failure,
    connection: Option<Arc<Connection>>,
    /// The connection was made for this call.
    fresh: bool,
    generation: u64,
}

impl Members {
    /// # Errors
    ///
    /// `Config`: the files of TLS cannot be used.
    pub(super) fn new(config: EtcdConfig) -> Result<Self, Error> {
        let credentials = Arc::new(Credentials::new(config.user.clone()));
        let connector = Connector::new(&config, &credentials)?;
        let state = Mutex::new(State { connection: None, next: 0 });
        Ok(Self { config, connector, credentials, state })
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    pub(super) fn len(&self) -> usize {
        self.config.endpoints.len()
    }

    /// See [`EtcdClient::call`](super::EtcdClient::call).
    pub(super) async fn call<T, F>(
        &self,
        request: impl Fn(Client) -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        T: Send,
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let mut n_left = self.len();
        let (mut may_authenticate, mut may_reconnect) = (true, true);
        loop {
            let attempt = match self.attempt(&request).await {
                Ok(answer) => return Ok(answer),
                Err(attempt) => attempt,
            };
            let Attempt { failure, connection, fresh, generation } = attempt;
            match (failure.remedy, connection) {
                (Remedy::Authenticate, Some(connection)) if may_authenticate => {
                    may_authenticate = false;
                    self.authenticate(&connection, generation).await?;
                    continue;
                }
                (Remedy::NextMember, Some(connection)) => {
                    self.abandon(&connection).await;
                    // It may have broken long ago, with its server restarted or its runtime gone.
                    if !fresh && may_reconnect && !failure.is_timeout() {
                        may_reconnect = false;
                        continue;
                    }
                }
                (Remedy::NextMember, None) => {}
                (Remedy::Authenticate | Remedy::None, _) => return Err(failure),
            }
            n_left -= 1;
            if n_left == 0 {
                return Err(failure);
            }
        }
    }

    /// The connection in use, made anew if need be, and whether it was.
    pub(super) async fn connection(&self) -> Result<(Arc<Connection>, bool), Failure> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((Arc::clone(connection), false));
        }
        let at = state.next;
        // A call that is given up meanwhile is followed by one to another member.
        state.next += 1;
        let endpoint = &self.config.endpoints[at % self.config.endpoints.len()];
        let opening = self.connector.connect(endpoint);
        let opened = timeout(self.config.connect_timeout, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(Failure::timeout(self.config.connect_timeout)));
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                (state.connection, state.next) = (Some(Arc::clone(&connection)), at);
                Ok((connection, true))
            }
            Err(failure) => Err(failure.at(endpoint)),
        }
    }

    /// Uses another connection from now on, to the next member; streams on this one live on.
    pub(super) async fn abandon(&self, connection: &Arc<Connection>) {
        self.state.lock().await.leave(connection);
    }

    /// The number of the token in use.
    pub(super) fn token_generation(&self) -> u64 {
        self.credentials.generation()
    }

    /// Gets a new token, unless another caller has since `generation`.
    pub(super) async fn authenticate(
        &self,
        connection: &Connection,
        generation: u64,
    ) -> Result<(), Failure> {
        let client = connection.client();
        let authenticating = self.credentials.authenticate(&client, generation);
        let bound = self.config.connect_timeout;
        let result = timeout(bound, authenticating).await;
        let result = result.unwrap_or_else(|_elapsed| Err(Failure::timeout(bound)));
        result.map_err(|failure| connection.explain(failure))
    }

    async fn attempt<T, F>(
        &self,
        request: &(impl Fn(Client) -> F + Send + Sync),
    ) -> Result<T, Attempt>
    where
        T: Send,
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let (connection, fresh) = self.connection().await.map_err(|failure| Attempt {
            failure,
            connection: None,
            fresh: true,
            generation: 0,
        })?;
        let generation = self.token_generation();
        let mut in_flight = InFlight {
            members: self,
            connection: Some(Arc::clone(&connection)),
            since: Instant::now(),
        };
        let answer = bounded(self.config.request_timeout, request(connection.client())).await;
        in_flight.connection = None;
        answer.map_err(|failure| Attempt {
            failure: connection.explain(failure),
            connection: Some(connection),
            fresh,
            generation,
        })
    }
}

/// A request without an answer yet. Dropped so after a while, its caller has given it up: the next
/// one must not hang at the same member.
struct InFlight<'a> {
    members: &'a Members,
    connection: Option<Arc<Connection>>,
    since: Instant,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.since.elapsed() >= PATIENCE
            && let Ok(mut state) = self.members.state.try_lock()
        {
            state.leave(&connection);
        }
    }
}

impl State {
    fn leave(&mut self, connection: &Arc<Connection>) {
        if self.connection.as_ref().is_some_and(|it| Arc::ptr_eq(it, connection)) {
            self.connection = None;
            self.next += 1;
        }
    }
}

/// Half of the shortest bound of a renewal.
const PATIENCE: Duration = Duration::from_millis(500);

/// Puts a bound on an answer.
pub(super) async fn bounded<T>(
    bound: Duration,
    answer: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Failure> {
    match timeout(bound, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(Failure::timeout(bound)),
    }
}
