use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

/// Receives the signals that stop a process.
///
/// From the first one on, for the rest of the process's life, they no longer end it by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(windows)]
    interrupt: (CtrlC, CtrlBreak),
    #[cfg(windows)]
    terminate: (CtrlClose, CtrlShutdown),
}

impl Signals {
    /// Begins to receive: a signal before [`recv`](Self::recv) is not lost.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(windows)]
            interrupt: (ctrl_c()?, ctrl_break()?),
            #[cfg(windows)]
            terminate: (ctrl_close()?, ctrl_shutdown()?),
        })
    }

    /// Waits for the next signal, and returns its name. Cancel safe.
    pub(crate) async fn recv(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "ctrl-c",
        }
        #[cfg(windows)]
        tokio::select! {
            _ = self.interrupt.0.recv() => "ctrl-c",
            _ = self.interrupt.1.recv() => "ctrl-break",
            _ = self.terminate.0.recv() => "ctrl-close",
            _ = self.terminate.1.recv() => "shutdown",
        }
    }
}
