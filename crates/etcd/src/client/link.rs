//! One connection at a time, to one member after the other.

use std::{future::Future, sync::Arc, time::Duration};

use etcd_client::{Client, ConnectOptions};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    EtcdConfig,
    error::{Failure, Remedy},
};

/// The members, and the connection to the one in use.
pub(super) struct Links {
    config: EtcdConfig,
    state: Mutex<State>,
}

struct State {
    link: Option<Arc<Link>>,
    /// The index of the member that is tried next.
    next: usize,
}

/// A connection to one member. Whoever uses it keeps it open; a new one is made when a call on it has failed.
pub(super) struct Link {
    client: Client,
    endpoint: String,
    /// How often a token was asked for after the first.
    token: Mutex<u64>,
}

impl Links {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self { config, state: Mutex::new(State { link: None, next: 0 }) }
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
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
        let mut members_left = self.config.endpoints.len();
        let mut may_authenticate = true;
        loop {
            let failure = match self.attempt(&request).await {
                Ok(answer) => return Ok(answer),
                Err((failure, None)) => failure,
                Err((failure, Some((link, token)))) => match failure.remedy {
                    Remedy::NextMember => {
                        self.abandon(&link).await;
                        failure
                    }
                    Remedy::Authenticate if may_authenticate => {
                        may_authenticate = false;
                        self.authenticate(&link, token).await?;
                        continue;
                    }
                    Remedy::Authenticate | Remedy::None => return Err(failure),
                },
            };
            members_left -= 1;
            if members_left == 0 || failure.remedy != Remedy::NextMember {
                return Err(failure);
            }
        }
    }

    /// The connection in use, made anew if need be.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Failure> {
        let mut state = self.state.lock().await;
        if let Some(link) = &state.link {
            return Ok(Arc::clone(link));
        }
        let endpoint = &self.config.endpoints[state.next % self.config.endpoints.len()];
        let connecting = Client::connect([endpoint], Some(self.options()));
        match bounded(self.config.connect_timeout, connecting).await {
            Ok(client) => {
                let token = Mutex::new(0);
                let link = Arc::new(Link { client, endpoint: endpoint.clone(), token });
                state.link = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(failure) => {
                let failure = failure.at(endpoint);
                state.next += 1;
                Err(failure)
            }
        }
    }

    /// Uses another connection from now on, to the next member; streams that use this one are left alone.
    pub(super) async fn abandon(&self, link: &Arc<Link>) {
        let mut state = self.state.lock().await;
        if state.link.as_ref().is_some_and(|it| Arc::ptr_eq(it, link)) {
            state.link = None;
            state.next += 1;
        }
    }

    /// Gets a new token, unless somebody has since `token`.
    pub(super) async fn authenticate(&self, link: &Link, token: u64) -> Result<(), Failure> {
        let mut current = link.token.lock().await;
        if *current == token {
            bounded(self.config.connect_timeout, link.client.refresh_token()).await?;
            *current += 1;
        }
        Ok(())
    }

    /// One call, and what it was made with, if a connection could be made at all.
    async fn attempt<T, F>(
        &self,
        request: &(impl Fn(Client) -> F + Send + Sync),
    ) -> Result<T, (Failure, Option<(Arc<Link>, u64)>)>
    where
        T: Send,
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let link = self.link().await.map_err(|failure| (failure, None))?;
        let token = link.token().await;
        let answer = bounded(self.config.request_timeout, request(link.client())).await;
        answer.map_err(|failure| (failure.at(&link.endpoint), Some((link, token))))
    }

    fn options(&self) -> ConnectOptions {
        let config = &self.config;
        // `default()` would not ping while nothing is in flight.
        let options = ConnectOptions::new()
            .with_connect_timeout(config.connect_timeout)
            .with_keep_alive(config.ping_interval, PING_TIMEOUT)
            .with_require_leader(true);
        let options = match config.tls.options() {
            Some(tls) => options.with_tls(tls),
            None => options,
        };
        match &config.user {
            Some(user) => options.with_user(&user.name, user.password.expose()),
            None => options,
        }
    }
}

impl Link {
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The number of the token in use.
    pub(super) async fn token(&self) -> u64 {
        *self.token.lock().await
    }
}

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

/// How long a ping may stay unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
