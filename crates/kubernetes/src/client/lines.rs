//! The lines of a response that goes on.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use bytes::{Bytes, BytesMut};
use tokio::task::yield_now;
use tower_sd_net::{HttpBody, HttpClientError};

/// The body of a watch, line by line.
#[derive(Debug)]
pub(super) struct Lines {
    body: HttpBody,
    buffer: BytesMut,
    /// How much of the buffer has no end of line.
    n_scanned: usize,
    max_line: usize,
}

/// The end of a watch.
#[derive(Debug)]
pub(super) enum Ended {
    /// The response is complete, or broke off between or in lines.
    Closed(Option<HttpClientError>),
    /// A line is longer than the bound.
    TooLong,
}

impl Lines {
    pub(super) fn new(body: HttpBody, max_line: usize) -> Self {
        Self { body, buffer: BytesMut::new(), n_scanned: 0, max_line }
    }

    /// Waits for the next line, without its end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Bytes, Ended> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(line);
            }
            if self.buffer.len() > self.max_line {
                return Err(Ended::TooLong);
            }
            match self.body.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Err(Ended::Closed(None)),
                Err(error) => return Err(Ended::Closed(Some(error))),
            }
        }
    }

    /// The next line, or the end, if it has arrived already.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn ready(&mut self) -> Option<Result<Bytes, Ended>> {
        let mut next = pin!(self.next());
        for _ in 0..2 {
            let polled = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
            if let Poll::Ready(line) = polled {
                return Some(line);
            }
            // The connection's task has to move what the socket has.
            yield_now().await;
        }
        None
    }

    fn buffered(&mut self) -> Option<Bytes> {
        loop {
            let found = self.buffer[self.n_scanned..].iter().position(|byte| *byte == b'\n');
            let Some(length) = found.map(|at| at + self.n_scanned) else {
                self.n_scanned = self.buffer.len();
                return None;
            };
            let mut line = self.buffer.split_to(length + 1);
            self.n_scanned = 0;
            line.truncate(length);
            if !line.trim_ascii().is_empty() {
                return Some(line.freeze());
            }
        }
    }
}
