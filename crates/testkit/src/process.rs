//! Programs that a test starts, signals and always ends.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::time::{Instant, sleep};

/// A running program, its output in a file.
///
/// # Drop
///
/// Killed, and waited for. When the thread is panicking, the end of its output is printed.
pub struct Process {
    child: Mutex<Child>,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output appended to the file `log`.
    ///
    /// # Errors
    ///
    /// The program cannot be started, or the file not written.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child =
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Self {
            child: Mutex::new(child),
            name: command.get_program().to_string_lossy().into_owned(),
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// How it has ended; `None` while it runs.
    ///
    /// # Errors
    ///
    /// The system does not report it.
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        self.child().try_wait()
    }

    /// STOP: it does nothing until [`resume`](Self::resume), its connections stay open.
    ///
    /// Returns when all of its threads have stopped, which is a matter of the machine's load.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn suspend(&self) -> io::Result<()> {
        let pid = self.signal(Signal::STOP)?;
        // The thread that receives it stops the others, when it is scheduled.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), stopped)?;
        Ok(())
    }

    /// CONT.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT).map(drop)
    }

    /// TERM, and KILL when it has not ended within `bound`; returns when it has ended.
    ///
    /// # Errors
    ///
    /// The system does not report how it ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, it has got its TERM.
    pub async fn stop(&self, bound: Duration) -> io::Result<ExitStatus> {
        // It may have ended by itself.
        let _gone = self.signal(Signal::TERM);
        let deadline = Instant::now() + bound;
        loop {
            match self.ended()? {
                Some(status) => return Ok(status),
                None if Instant::now() >= deadline => return self.kill(),
                None => sleep(POLL).await,
            }
        }
    }

    /// KILL; returns when it has ended, which is immediately.
    ///
    /// # Errors
    ///
    /// The system does not report how it ended.
    pub fn kill(&self) -> io::Result<ExitStatus> {
        let mut child = self.child();
        child.kill()?;
        child.wait()
    }

    /// The last lines of its output.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!("--- output of {}:\n{}", self.name, tail.join("\n"))
    }

    /// By the id of a child that has not been waited for, which no other process can have got.
    fn signal(&self, signal: Signal) -> io::Result<Pid> {
        let mut child = self.child();
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("{}: {status}", self.name)));
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("not a process id"))?;
        kill_process(pid, signal)?;
        Ok(pid)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about one that cannot be killed.
        let _status = self.kill();
        if std::thread::panicking() {
            show(&self.output());
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("id", &self.id())
            .field("log", &self.log)
            .finish()
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows the output of its server")]
fn show(text: &str) {
    eprintln!("{text}");
}

const POLL: Duration = Duration::from_millis(5);
/// Lines of output that are shown.
const TAIL: usize = 60;
