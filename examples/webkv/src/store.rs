//! Redis: which server is used, and when a connection is made anew.

use std::{fmt, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, aio::MultiplexedConnection, cmd,
};
use tokio::sync::Mutex;
use tower_sd::discovery::CheckResult;

/// Some Redis servers that hold the same: the first that answers is used.
pub(crate) struct Store {
    servers: Vec<Server>,
    patience: Duration,
}

/// None has answered, with the error of each.
#[derive(Debug)]
pub(crate) struct Unanswered(Vec<(String, RedisError)>);

struct Server {
    address: String,
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Store {
    /// The servers at these addresses; none is connected to before it is used. One that is silent
    /// for `patience` has failed.
    pub(crate) fn new(addresses: &[String], patience: Duration) -> Result<Self, RedisError> {
        let server = |address: &String| {
            let client = Client::open(format!("redis://{address}"))?;
            let (address, connection) = (address.clone(), Mutex::new(None));
            Ok(Server { address, client, connection })
        };
        let servers = addresses.iter().map(server).collect::<Result<_, RedisError>>()?;
        Ok(Self { servers, patience })
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Unanswered> {
        self.ask(cmd("GET").arg(key)).await
    }

    /// The health for Consul: whether any of the servers answers, and if not, why.
    pub(crate) async fn health(self: Arc<Self>) -> CheckResult {
        let answer: Result<String, _> = self.ask(&cmd("PING")).await;
        match answer {
            Ok(_pong) => CheckResult::Passing,
            Err(error) => {
                tracing::warn!(%error, "redis does not answer");
                CheckResult::Critical(error.to_string())
            }
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unanswered> {
        let mut failures = Vec::new();
        for server in &self.servers {
            match server.ask(command, self.patience).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failures.push((server.address.clone(), error)),
            }
        }
        Err(Unanswered(failures))
    }
}

impl Server {
    /// Sends a command, twice if the connection turns out to be one to a server that has gone
    /// since: we only read.
    async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        patience: Duration,
    ) -> Result<T, RedisError> {
        // No other request waits for more than the time that it takes to connect.
        let mut connection = self.connection.lock().await;
        if let Some(mut kept) = connection.clone() {
            drop(connection);
            match command.query_async(&mut kept).await {
                Err(error) if error.is_unrecoverable_error() => {}
                answer => return answer,
            }
            connection = self.connection.lock().await;
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience));
        *connection = None;
        let mut fresh = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *connection = Some(fresh.clone());
        drop(connection);
        command.query_async(&mut fresh).await
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (address, error)) in self.0.iter().enumerate() {
            write!(f, "{}redis {address}: {error}", if n > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}
