//! The user, and the token that stands for it.

use std::sync::{PoisonError, RwLock};

use etcd_client::{Client, Error};
use http::{HeaderValue, Request};
use tokio::sync::Mutex;

use crate::{config::User, error::Failure};

/// The token of a client: one for all its connections, since every member of a cluster accepts it.
pub(super) struct Credentials {
    user: Option<User>,
    token: RwLock<Token>,
    /// One authentication at a time: etcd computes a tenth of a second for each.
    authenticating: Mutex<()>,
}

#[derive(Clone, Default)]
struct Token {
    /// The number of authentications so far.
    generation: u64,
    header: Option<HeaderValue>,
}

impl Credentials {
    pub(super) fn new(user: Option<User>) -> Self {
        Self { user, token: RwLock::default(), authenticating: Mutex::new(()) }
    }

    /// The number of the token in use; 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.current().generation
    }

    /// Whether there is a user, and no token yet.
    pub(super) fn are_needed(&self) -> bool {
        self.user.is_some() && self.current().header.is_none()
    }

    /// Gets a new token, unless another caller has since `generation`.
    ///
    /// A password file is read each time, so that a rotated password is used.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the token stays as it was.
    pub(super) async fn authenticate(
        &self,
        client: &Client,
        generation: u64,
    ) -> Result<(), Failure> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        let _one_at_a_time = self.authenticating.lock().await;
        if self.generation() != generation {
            return Ok(());
        }
        let password = user.password().map_err(|error| Failure::of_settings(&error))?;
        let mut auth = client.auth_client();
        let answer = auth.authenticate(user.name.clone(), password.expose().to_owned()).await;
        let header = match answer {
            Ok(answer) => {
                let mut header =
                    HeaderValue::from_str(answer.token()).map_err(Failure::of_token)?;
                header.set_sensitive(true);
                Some(header)
            }
            // No token is needed, as in etcd's own client: users come before `auth enable`.
            Err(error) if is_not_enabled(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let mut token = self.token.write().unwrap_or_else(PoisonError::into_inner);
        *token = Token { generation: generation + 1, header };
        Ok(())
    }

    /// Adds the token to a request.
    pub(super) fn attach<B>(&self, mut request: Request<B>) -> Request<B> {
        if !request.uri().path().ends_with("/Authenticate")
            && let Some(header) = self.current().header
        {
            request.headers_mut().insert("token", header);
        }
        request
    }

    fn current(&self) -> Token {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn is_not_enabled(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}
