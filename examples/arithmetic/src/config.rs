//! Settings of a running server: `--config URL` names a key that it follows.

use std::error::Error;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::select;
use tower_sd::config::{OnDelete, WatchOptions, WatchedConfig};
use tower_sd::{BoxError, backend::TaskGroup};
use tracing_subscriber::EnvFilter;

use crate::service::{Answer, Operation};

/// The document under the key: `{"log": "arithmetic=info", "off": ["Divide"]}`, or the same in
/// TOML.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// What is logged, in the form of `RUST_LOG`; defaults to `RUST_LOG`.
    log: Option<Directives>,
    /// The operations that are not offered.
    off: Vec<Switch>,
}

/// Directives that an `EnvFilter` understands.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "String")]
struct Directives(String);

/// The name of an operation.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "String")]
struct Switch(Operation);

/// Changes what is logged.
pub(crate) type SetLog = Box<dyn Fn(EnvFilter) -> Result<(), BoxError> + Send + Sync>;

/// The settings of a running server, and the task that applies them.
pub(crate) struct Configured {
    config: WatchedConfig<Settings>,
    tasks: TaskGroup,
}

impl Configured {
    /// Follows the key that `url` names. Until the registry answers, nothing is set.
    pub(crate) fn follow(url: &str, set_log: SetLog) -> Result<Self, BoxError> {
        let (registry, key) = split(url)?;
        let options = match key.ends_with(".toml") {
            true => WatchOptions::toml(),
            false => WatchOptions::json(),
        };
        let options = options.default_value(Settings::default()).on_delete(OnDelete::Default);
        let source = tower_sd::open(&registry)?.key_value(key)?;
        let config = WatchedConfig::new(source, options);
        let (tasks, followed) = (TaskGroup::new(), config.clone());
        tasks.spawn(|stop| async move {
            select! {
                () = stop.requested() => {}
                () = apply(followed, set_log) => {}
            }
        });
        Ok(Self { config, tasks })
    }

    /// `service`, without what is switched off at the moment of the request.
    pub(crate) fn switched(&self, service: Router) -> Router {
        service.layer(from_fn_with_state(self.config.clone(), switch))
    }

    /// Ends the task, and the reading behind it.
    pub(crate) async fn close(&self) {
        self.tasks.close().await;
        self.config.close().await;
    }
}

/// Sets the log's filter whenever it is another one.
async fn apply(mut config: WatchedConfig<Settings>, set_log: SetLog) {
    let mut set = None;
    loop {
        let log = config.value().and_then(|settings| settings.log.clone());
        if log != set {
            let filter = match &log {
                Some(directives) => EnvFilter::new(&directives.0),
                None => EnvFilter::from_default_env(),
            };
            if let Err(error) = set_log(filter) {
                tracing::error!(%error, "the log's filter cannot be changed");
            }
            set = log;
        }
        if config.changed().await.is_err() {
            return;
        }
    }
}

async fn switch(
    State(config): State<WatchedConfig<Settings>>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
    next: Next,
) -> Response {
    let named = path.iter().find(|(name, _)| name == "operation").map(|(_, value)| value);
    let settings = config.value().unwrap_or_default();
    match settings.off.iter().find(|off| named == Some(&off.0.to_string())) {
        None => next.run(request).await,
        Some(Switch(operation)) => {
            let error = Some(format!("{operation} is switched off"));
            let answer = Json(Answer { result: None, error });
            (StatusCode::SERVICE_UNAVAILABLE, answer).into_response()
        }
    }
}

/// `consul://HOST:PORT` and its options, and the key.
fn split(url: &str) -> Result<(String, &str), BoxError> {
    // Without what may be a password.
    let no_key = || format!("the URL of the settings names no key; known are {KNOWN}");
    let (scheme, rest) = url.split_once("://").ok_or_else(no_key)?;
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, key) = rest.split_once('/').ok_or_else(no_key)?;
    if key.is_empty() {
        return Err(no_key().into());
    }
    let mark = if options.is_empty() { "" } else { "?" };
    Ok((format!("{scheme}://{hosts}{mark}{options}"), key))
}

impl TryFrom<String> for Directives {
    type Error = Box<dyn Error + Send + Sync>;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        EnvFilter::builder().parse(&text)?;
        Ok(Self(text))
    }
}

impl TryFrom<String> for Switch {
    type Error = crate::service::Mistake;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse().map(Self)
    }
}

/// For the `server` command: what changes the filter that `main` has set.
pub(crate) fn set_log<E>(
    reload: impl Fn(EnvFilter) -> Result<(), E> + Send + Sync + 'static,
) -> SetLog
where
    E: Error + Send + Sync + 'static,
{
    Box::new(move |filter| reload(filter).map_err(Into::into))
}

const KNOWN: &str = "consul://HOST:PORT/KEY and, with the features etcd and zookeeper, etcd:// and zookeeper://HOST:PORT,HOST:PORT/KEY";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_a_registry_and_a_key() {
        let found = split("consul://h:8500/app/server.toml?dc=eu").expect("good");
        assert_eq!(found, ("consul://h:8500?dc=eu".to_owned(), "app/server.toml"));
        for wrong in ["consul://h:8500", "consul://h:8500/", "app/server"] {
            assert!(split(wrong).expect_err("refused").to_string().contains("names no key"));
        }
    }

    #[test]
    fn settings_name_what_is_wrong_with_them() {
        let complaint = |text| {
            let parsed: Result<Settings, _> = serde_json::from_str(text);
            parsed.expect_err("bad").to_string()
        };
        assert!(complaint(r#"{"off": ["Divid"]}"#).contains("\"Divid\" is not one of Add"));
        assert!(complaint(r#"{"of": []}"#).contains("unknown field `of`"));
        let loud = complaint(r#"{"log": "arithmetic=loud"}"#);
        assert!(loud.contains("level"), "{loud}");
    }
}
