//! A whole backend in under 100 lines.
//!
//! A folder is the registry, and a JSON file in it an instance. The wire is all there is to write.
//! Backoff, staleness, the loss guard, resync, re-registration, health gating and bounds come from
//! the two loops: see the contracts of [`Source`] and [`Announcer`]. (`std::fs` blocks for
//! microseconds here; over a network the calls would be async.)

use std::{fs, io, path::PathBuf, time::Duration};

use tower_sd_core::{
    Announcement, Announcer, Backend, Error, ErrorKind, Instance, Instancer, LeaseTtl, LossReason,
    ReadRequest, ReadResult, Registration, Registry, Renewal, Result, Source, async_trait,
};

/// The reading half. A folder cannot be waited for, so this is a polled source.
struct FolderSource(PathBuf);

#[async_trait]
impl Source for FolderSource {
    type Item = Instance;

    async fn read(&mut self, _request: ReadRequest) -> Result<ReadResult> {
        let files = match fs::read_dir(&self.0) {
            Ok(files) => files.collect::<io::Result<Vec<_>>>().map_err(|e| wire("follow", e))?,
            // No instance has registered yet: an authoritative "there are none", not an error.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(wire("follow", error)),
        };
        // One element per entry: the loop skips and counts what cannot be understood.
        let entries = files.iter().map(|file| {
            let bytes = fs::read(file.path()).map_err(|e| wire("follow", e))?;
            let malformed = |e| Error::new(ErrorKind::Protocol, "folder", "decode").with_source(e);
            serde_json::from_slice(&bytes).map_err(malformed)
        });
        Ok(ReadResult::set(entries.collect()).refresh_in(Duration::from_secs(5)))
    }
}

/// The writing half: one file. Files do not expire, so the term has no TTL; renewing checks whether
/// it is still there.
struct FolderAnnouncer(PathBuf);

const RENEWED: Renewal = Renewal::Renewed(LeaseTtl::unlimited(Duration::from_secs(5)));

#[async_trait]
impl Announcer for FolderAnnouncer {
    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        let json = serde_json::to_vec(&desired.instance).expect("an instance is always valid JSON");
        let written = fs::create_dir_all(self.0.parent().expect("inside the service's folder"))
            .and_then(|()| fs::write(&self.0, json));
        written.map(|()| RENEWED).map_err(|e| wire("register", e))
    }

    async fn renew(&mut self, _: &Announcement) -> Result<Renewal> {
        Ok(if self.0.exists() { RENEWED } else { Renewal::Lost(LossReason::Gone) })
    }

    async fn withdraw(&mut self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(wire("deregister", error)),
            _gone => Ok(()),
        }
    }
}

/// The registry: a folder for each service.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Backend for Folder {
    fn name(&self) -> &'static str {
        "folder"
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(FolderSource(self.0.join(service))))
    }

    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        let file = format!("{}.json", registration.instance().id());
        Ok(Box::new(FolderAnnouncer(self.0.join(registration.service()).join(file))))
    }
}

fn wire(operation: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "folder", operation).with_source(error)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let registry = Registry::new(Folder(std::env::temp_dir().join("tower-sd-folder")));
    let handle = registry.register(Registration::new("s", Instance::new("127.0.0.1", 80))).await?;
    let snapshot = registry.instancer("s")?.subscribe().ready(Duration::from_secs(1)).await?;
    assert!(snapshot.instances().iter().any(|instance| instance.id() == handle.id()));
    handle.deregister().await
}
