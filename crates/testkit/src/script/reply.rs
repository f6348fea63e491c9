use std::{collections::VecDeque, fmt, future::pending, io, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use tokio::{task::yield_now, time::sleep};

pub(super) type Response = http::Response<BoxBody<Bytes, io::Error>>;

/// What a [`Script`](super::Script) answers.
///
/// A body given by [`body`](Self::body) has a Content-Length; one given in steps
/// ([`chunk`](Self::chunk), [`pause`](Self::pause), [`cut`](Self::cut), [`hang`](Self::hang)) is
/// sent so, chunked unless a Content-Length is among the headers.
///
/// ```
/// use std::time::Duration;
/// use tower_sd_testkit::script::Reply;
///
/// let reply = Reply::new(200)
///     .after(Duration::from_millis(20))
///     .header("content-length", "100")
///     .chunk(r#"[{"ID":"#)
///     .pause(Duration::from_millis(20))
///     .cut();
/// # drop(reply);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Reply {
    head: Option<(StatusCode, HeaderMap)>,
    after: Duration,
    steps: VecDeque<Step>,
    whole: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Chunk(Bytes),
    Pause(Duration),
    Cut,
    Hang,
}

impl Reply {
    /// An answer with this status and no body.
    ///
    /// # Panics
    ///
    /// If it is no HTTP status.
    pub fn new(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status of three digits");
        Self {
            head: Some((status, HeaderMap::new())),
            after: Duration::ZERO,
            steps: VecDeque::new(),
            whole: true,
        }
    }

    /// No answer at all: the connection stays open and silent.
    pub fn never() -> Self {
        Self { after: Duration::MAX, ..Self::new(200) }
    }

    /// No answer at all: the connection is closed.
    pub fn closed() -> Self {
        Self { head: None, ..Self::new(200) }
    }

    /// Waits before the status line.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// Adds a header.
    ///
    /// # Panics
    ///
    /// If HTTP does not allow it.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header's name");
        let value: HeaderValue = value.parse().expect("a header's value");
        if let Some((_, headers)) = &mut self.head {
            headers.append(name, value);
        }
        self
    }

    /// The whole body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        let whole = true;
        let steps = [Step::Chunk(body.into())].into();
        Self { steps, whole, ..self }
    }

    /// A piece of the body.
    pub fn chunk(self, chunk: impl Into<Bytes>) -> Self {
        self.step(Step::Chunk(chunk.into()))
    }

    /// Waits between two pieces.
    pub fn pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// Closes the connection in the middle of the body.
    pub fn cut(self) -> Self {
        self.step(Step::Cut)
    }

    /// Leaves the body without an end.
    pub fn hang(self) -> Self {
        self.step(Step::Hang)
    }

    /// Waits, and answers. `Err` closes the connection.
    pub(super) async fn send(self) -> io::Result<Response> {
        match self.after {
            Duration::MAX => pending().await,
            after => sleep(after).await,
        }
        let (status, headers) = self.head.ok_or_else(cut_off)?;
        let body = match (self.whole, self.steps.front()) {
            (true, Some(Step::Chunk(chunk))) => whole(chunk.clone()),
            (true, _) => whole(Bytes::new()),
            (false, _) => StreamBody::new(stream::unfold(self.steps, next_frame)).boxed(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn step(mut self, step: Step) -> Self {
        self.whole = false;
        self.steps.push_back(step);
        self
    }
}

fn whole(bytes: Bytes) -> BoxBody<Bytes, io::Error> {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

async fn next_frame(
    mut steps: VecDeque<Step>,
) -> Option<(io::Result<Frame<Bytes>>, VecDeque<Step>)> {
    loop {
        match steps.pop_front()? {
            Step::Chunk(chunk) => return Some((Ok(Frame::data(chunk)), steps)),
            Step::Pause(pause) => sleep(pause).await,
            Step::Cut => {
                // hyper sends what it has when the body has nothing for it.
                yield_now().await;
                return Some((Err(cut_off()), steps));
            }
            Step::Hang => pending().await,
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::other("cut off by the script")
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("head", &self.head)
            .field("after", &self.after)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
