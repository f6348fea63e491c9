use std::{fmt, io};

#[cfg(unix)]
use tokio::signal::unix;
#[cfg(windows)]
use tokio::signal::windows;

/// A signal that stops a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// Ctrl-c, SIGINT: from a terminal.
    Interrupt,
    /// SIGTERM: from a supervisor.
    Terminate,
}

/// Receives the signals that stop a process: SIGTERM and ctrl-c, on Windows ctrl-c.
///
/// From the first one on, for the rest of the process's life, these signals no longer end it by
/// themselves: the program must stop when one comes.
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
    /// Begins to receive: a signal before [`recv`](Self::recv) is not lost.
    ///
    /// # Errors
    ///
    /// The system's.
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

    /// Waits for the next signal.
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
