use std::{fmt, io};

#[cfg(unix)]
use tokio::signal::unix;
#[cfg(windows)]
use tokio::signal::windows;

/// What tells a process to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// Ctrl-c, SIGINT: somebody at a terminal.
    Interrupt,
    /// SIGTERM: a supervisor.
    Terminate,
}

/// Listens for the signals that tell a process to stop: SIGTERM and ctrl-c, on Windows ctrl-c.
///
/// From the first one on, for the rest of the process's life, these signals no longer end it by themselves: whoever makes
/// this has to stop when one comes.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let mut signals = tower_sd_lifecycle::Signals::listen()?;
/// println!("stopping because of {}", signals.recv().await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    interrupt: unix::Signal,
    #[cfg(unix)]
    terminate: unix::Signal,
    #[cfg(windows)]
    interrupt: windows::CtrlC,
}

impl Signals {
    /// Begins to listen; a signal that comes later and before [`recv`](Self::recv) is not lost.
    ///
    /// # Errors
    ///
    /// The system refuses it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: unix::signal(unix::SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: unix::signal(unix::SignalKind::terminate())?,
            #[cfg(windows)]
            interrupt: windows::ctrl_c()?,
        })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn recv(&mut self) -> Signal {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
        #[cfg(windows)]
        {
            self.interrupt.recv().await;
            Signal::Interrupt
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "ctrl-c",
            Self::Terminate => "SIGTERM",
        })
    }
}
