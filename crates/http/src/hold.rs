use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tower_sd::{Hold, Lease};

use crate::pool::Upload;

/// The request ends with the body of its response: read to its end, failed, or dropped; and not before its own body
/// has been sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum ToBody {}

/// A response body that keeps its endpoint busy until it has ended.
#[pin_project]
#[derive(Debug)]
pub struct Leased<B> {
    #[pin]
    body: B,
    lease: Option<Lease>,
    upload: Option<Upload>,
}

impl<B: Body> Hold<Response<B>> for ToBody {
    type Held = Response<Leased<B>>;

    fn hold(response: Response<B>, lease: Lease) -> Self::Held {
        let upload = response.extensions().get::<Upload>().cloned();
        response.map(|body| {
            let is_over = body.is_end_stream();
            let mut leased = Leased { body, lease: Some(lease), upload };
            if is_over {
                end(&mut leased.lease, &mut leased.upload);
            }
            leased
        })
    }
}

/// An answer may come before the end of the request.
fn end(lease: &mut Option<Lease>, upload: &mut Option<Upload>) {
    let Some(lease) = lease.take() else {
        return;
    };
    match upload.take() {
        Some(upload) => upload.park(lease),
        None => drop(lease),
    }
}

impl<B: Body> Body for Leased<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Err(_)) => {
                if let Some(lease) = this.lease.take() {
                    lease.failed();
                }
            }
            Some(Ok(_)) | None => end(this.lease, this.upload),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default> Default for Leased<B> {
    /// A body that holds nothing; generated gRPC clients ask for it.
    fn default() -> Self {
        Self { body: B::default(), lease: None, upload: None }
    }
}
