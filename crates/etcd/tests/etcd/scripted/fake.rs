//! A server with etcd's gRPC that answers by a test's script.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream::unfold};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpListener, task::JoinSet};
use tonic::Code;

/// # Drop
///
/// Ends it, and all its connections.
pub(crate) struct Fake {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    _serving: JoinSet<()>,
}

/// A message of a client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// As in `Range`, `Watch`.
    pub(crate) method: String,
    pub(crate) headers: HeaderMap,
    message: Bytes,
}

/// The answers to a message; none at all is silence.
pub(crate) type Replies = Vec<Reply>;

pub(crate) enum Reply {
    Message(Vec<u8>),
    End(Code, &'static str),
}

type Answer = dyn Fn(&Call) -> Replies + Send + Sync;

impl Fake {
    /// A server that sends `answer` to every message.
    pub(crate) async fn start(answer: impl Fn(&Call) -> Replies + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("has one");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let server = Server { answer: Arc::new(answer), calls: Arc::clone(&calls) };
        let mut serving = JoinSet::new();
        serving.spawn(server.serve(listener));
        Self { address, calls, _serving: serving }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// The calls of a method so far.
    pub(crate) fn calls(&self, method: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|call| call.method == method).cloned().collect()
    }
}

impl Call {
    pub(crate) fn decode<M: Message + Default>(&self) -> M {
        M::decode(&*self.message).expect("a message of etcd")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("is text"))
    }
}

pub(crate) fn say(message: &impl Message) -> Reply {
    Reply::Message(message.encode_to_vec())
}

#[derive(Clone)]
struct Server {
    answer: Arc<Answer>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Server {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let server = self.clone();
            let service = service_fn(move |request| {
                let response = server.clone().respond(request);
                async { Ok::<_, Infallible>(response) }
            });
            let http = http2::Builder::new(TokioExecutor::new());
            let connection = http.serve_connection(TokioIo::new(stream), service);
            // How a client leaves is its own affair.
            connections.spawn(async { drop(connection.await) });
        }
    }

    fn respond(
        self,
        request: Request<Incoming>,
    ) -> Response<StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>> {
        let (parts, incoming) = request.into_parts();
        let method = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let call = Call { method, headers: parts.headers, message: Bytes::new() };
        let talk = Talk {
            server: self,
            call,
            incoming,
            read: BytesMut::new(),
            replies: VecDeque::new(),
            over: false,
        };
        let frames = unfold(talk, async |mut talk| {
            let frame = talk.frame().await?;
            Some((Ok(frame), talk))
        });
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(StreamBody::new(frames)).expect("is complete")
    }
}

/// One call, or one stream.
struct Talk {
    server: Server,
    call: Call,
    incoming: Incoming,
    read: BytesMut,
    replies: VecDeque<Reply>,
    over: bool,
}

impl Talk {
    /// The next answer; `None` at the end.
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        let is_stream = ["Watch", "LeaseKeepAlive"].contains(&&*self.call.method);
        while !self.over {
            if let Some(reply) = self.replies.pop_front() {
                return Some(self.say(reply, is_stream));
            }
            if let Some(message) = self.message() {
                self.call.message = message;
                let calls = &self.server.calls;
                calls.lock().unwrap_or_else(PoisonError::into_inner).push(self.call.clone());
                self.replies.extend((self.server.answer)(&self.call));
                continue;
            }
            match self.incoming.frame().await {
                Some(Ok(frame)) => self.read.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) => return None,
                None if is_stream => self.replies.push_back(Reply::End(Code::Ok, "")),
                // Silence.
                None => pending().await,
            }
        }
        None
    }

    fn say(&mut self, reply: Reply, is_stream: bool) -> Frame<Bytes> {
        match reply {
            Reply::Message(message) => {
                if !is_stream {
                    self.replies.push_back(Reply::End(Code::Ok, ""));
                }
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(message.len().try_into().expect("is short"));
                frame.put_slice(&message);
                Frame::data(frame.freeze())
            }
            Reply::End(code, text) => {
                self.over = true;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", i32::from(code).into());
                trailers.insert("grpc-message", http::HeaderValue::from_static(text));
                Frame::trailers(trailers)
            }
        }
    }

    /// A message of the client, once it is complete: a flag, a length, and as many bytes.
    fn message(&mut self) -> Option<Bytes> {
        let length = self.read.get(1..5)?.get_u32();
        let end = 5 + usize::try_from(length).expect("fits");
        if self.read.len() < end {
            return None;
        }
        Some(self.read.split_to(end).freeze().slice(5..))
    }
}
