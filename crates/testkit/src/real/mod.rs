//! Real servers: each with its own folder and ports, ended with the test.

mod bind;
mod consul;
mod consul_cluster;
mod etcd;
mod eureka;
mod kubernetes;
mod zookeeper;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

pub use self::{
    bind::Bind,
    consul::{Consul, ConsulConfig},
    consul_cluster::ConsulCluster,
    etcd::{Etcd, EtcdConfig},
    eureka::{Eureka, EurekaConfig, EurekaPair, SpringClient},
    kubernetes::{Authority, Kubernetes, KubernetesApi, KubernetesConfig},
    zookeeper::{ZooKeeper, ZooKeeperConfig, ZooKeeperEnsemble},
};
use crate::process::Process;

/// A server that a test can stop, kill, suspend and start again.
///
/// It starts with or without its data.
///
/// The parts that differ between servers are how its command line is made and how one sees that it
/// is ready; see [`Consul`] and [`Etcd`] for two.
///
/// # Drop
///
/// Killed, its folder removed.
pub struct Server {
    command: Box<dyn Fn(&Path) -> Command + Send + Sync>,
    ready: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
    // It prints the end of its output, which is in the folder, when it is dropped by a panic.
    process: Mutex<Option<Process>>,
    folder: TempDir,
}

impl Server {
    /// Starts a server and waits until it is ready.
    ///
    /// `command` makes the command line; it is given the data folder, which is empty or has what
    /// the last run left. `ready` probes once; it is called until it returns true, at most for 3
    /// min.
    ///
    /// # Errors
    ///
    /// It does not start, ends early, or is not ready in time; with its output.
    pub async fn start(
        command: impl Fn(&Path) -> Command + Send + Sync + 'static,
        ready: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let server = Self {
            folder: TempDir::with_prefix("tower-sd-")?,
            command: Box::new(command),
            ready: Box::new(ready),
            process: Mutex::new(None),
        };
        server.restart().await?;
        Ok(server)
    }

    /// Kills it if it runs, and starts it on the data that it has.
    ///
    /// Returns when it is ready.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn restart(&self) -> io::Result<()> {
        self.kill();
        let data = self.data();
        fs::create_dir_all(&data)?;
        let log = self.folder.path().join("output");
        let process = Process::start(&mut (self.command)(&data), &log)?;
        *self.process() = Some(process);
        self.wait_until_ready().await
    }

    /// Kills it if it runs, and starts it without any data.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn restart_empty(&self) -> io::Result<()> {
        self.kill();
        fs::remove_dir_all(self.data())?;
        self.restart().await
    }

    /// Stops it, keeps a copy of its data, and starts it again.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn save(&self) -> io::Result<()> {
        self.stop().await?;
        copy(&self.data(), &self.saved())?;
        self.restart().await
    }

    /// Kills it if it runs, and starts it on the saved data.
    ///
    /// [`save`](Self::save) has copied it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); none were saved.
    pub async fn restart_saved(&self) -> io::Result<()> {
        self.kill();
        fs::remove_dir_all(self.data())?;
        copy(&self.saved(), &self.data())?;
        self.restart().await
    }

    /// KILL, as a crash; returns when it has ended.
    pub fn kill(&self) {
        self.process().take();
    }

    /// TERM, and KILL after 10 s; returns when it has ended.
    ///
    /// # Errors
    ///
    /// The system does not report how it ended.
    pub async fn stop(&self) -> io::Result<()> {
        let process = self.process().take();
        if let Some(process) = process {
            process.stop(STOP_BOUND).await?;
        }
        Ok(())
    }

    /// STOP: it accepts connections (the system does) and answers nothing.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn suspend(&self) -> io::Result<()> {
        self.running(Process::suspend)
    }

    /// CONT, after [`suspend`](Self::suspend).
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.running(Process::resume)
    }

    /// Whether it has been started and has not ended.
    pub fn is_running(&self) -> bool {
        self.running(Process::ended).is_ok_and(|ended| ended.is_none())
    }

    /// Waits until it is ready, at most 3 min.
    ///
    /// # Errors
    ///
    /// It has ended, or is not ready in time; with its output.
    pub async fn wait_until_ready(&self) -> io::Result<()> {
        let ready = timeout(READY_BOUND, async {
            loop {
                if let Some(status) = self.running(Process::ended)? {
                    return Err(io::Error::other(status.to_string()));
                }
                if timeout(PROBE_BOUND, (self.ready)()).await == Ok(true) {
                    return Ok(());
                }
                sleep(PROBE_AGAIN).await;
            }
        });
        let error = match ready.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("not ready within {READY_BOUND:?}"),
        };
        Err(io::Error::other(format!("{error}\n{}", self.output())))
    }

    /// The last lines that it has printed.
    pub fn output(&self) -> String {
        let output = self.running(|process| Ok(process.output()));
        output.unwrap_or_else(|error| error.to_string())
    }

    fn running<T>(&self, act: impl FnOnce(&Process) -> io::Result<T>) -> io::Result<T> {
        match &*self.process() {
            Some(process) => act(process),
            None => Err(io::Error::other("the server does not run")),
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn saved(&self) -> PathBuf {
        self.folder.path().join("saved")
    }
}

/// A folder with all that is in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("folder", &self.folder.path())
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Twice what the slowest (Eureka, 9 s of CPU) takes on a very busy machine.
const READY_BOUND: Duration = Duration::from_secs(180);
const PROBE_BOUND: Duration = Duration::from_secs(2);
const PROBE_AGAIN: Duration = Duration::from_millis(20);
const STOP_BOUND: Duration = Duration::from_secs(10);
