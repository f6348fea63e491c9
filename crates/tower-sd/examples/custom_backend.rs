//! A backend of one's own: a JSON file lists the addresses of each service.
//!
//! ```json
//! {"orders": ["10.0.0.7:8081", "10.0.0.8:8081"]}
//! ```
//!
//! The wire is all there is to write. Backoff, staleness, the loss guard and bounds come from the
//! following loop. A registry that can be written has [`Backend::announcer`], too.

use std::{collections::BTreeMap, env, fs, path::PathBuf, time::Duration};

use tower_sd::{
    BoxError, Instancer, Registry,
    backend::{
        Backend, Error, ErrorKind, Instance, ReadRequest, ReadResult, Result, Source, async_trait,
    },
};

/// The registry.
struct JsonFile(PathBuf);

/// The reading half of one service. A file cannot be waited for, so this is a polled source.
struct JsonSource {
    path: PathBuf,
    service: String,
}

impl Backend for JsonFile {
    fn name(&self) -> &'static str {
        "json"
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(JsonSource { path: self.0.clone(), service: service.to_owned() }))
    }
}

#[async_trait]
impl Source for JsonSource {
    type Item = Instance;

    async fn read(&mut self, _request: ReadRequest) -> Result<ReadResult> {
        let text = fs::read(&self.path).map_err(|cause| failed(ErrorKind::Unavailable, cause))?;
        let services = serde_json::from_slice::<BTreeMap<String, Vec<String>>>(&text);
        let mut services = services.map_err(|cause| failed(ErrorKind::Protocol, cause))?;
        // A service that is not listed has no instances, which is no error.
        let addresses = services.remove(&self.service).unwrap_or_default();
        // One element per entry: the loop skips and counts those that are malformed.
        let instances = addresses.iter().map(|address| address.parse()).collect();
        Ok(ReadResult::set(instances).refresh_in(Duration::from_secs(5)))
    }
}

fn failed(kind: ErrorKind, cause: impl Into<BoxError>) -> Error {
    Error::new(kind, "json", "follow").with_source(cause)
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the output of the example")]
async fn main() -> std::result::Result<(), BoxError> {
    let path = env::args().nth(1).ok_or("usage: custom_backend FILE")?;
    let registry = Registry::new(JsonFile(path.into()));
    let mut orders = registry.instancer("orders")?.subscribe();
    println!("{:?}", orders.ready(Duration::from_secs(5)).await?.instances());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn file_is_a_registry() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = r#"{"orders": ["10.0.0.7:8081", "[::1]:8082", "nowhere"]}"#;
        fs::write(file.path(), text).expect("a writable file");
        let registry = Registry::new(JsonFile(file.path().into()));
        let mut orders = registry.instancer("orders").expect("any name").subscribe();
        let snapshot = orders.ready(Duration::from_secs(5)).await.expect("a readable file");
        let shown: Vec<_> = snapshot.instances().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.7:8081", "[::1]:8082"]);
    }
}
