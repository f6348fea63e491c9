use std::convert::Infallible;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};

use super::*;

type Chunk = Result<Frame<Bytes>, Infallible>;
type Chunks = StreamBody<stream::Iter<std::vec::IntoIter<Chunk>>>;

fn chunks(chunks: &[&'static str]) -> Chunks {
    let data = |chunk: &&'static str| Ok(Frame::data(Bytes::from_static(chunk.as_bytes())));
    StreamBody::new(stream::iter(chunks.iter().map(data).collect::<Vec<_>>()))
}

async fn whole(body: ReplayBody<Chunks>) -> Result<Bytes, BoxError> {
    Ok(body.collect().await?.to_bytes())
}

async fn next(body: &mut ReplayBody<Chunks>) -> Bytes {
    let frame = body.frame().await.expect("a frame").expect("no error");
    frame.into_data().expect("data")
}

#[tokio::test]
async fn copy_begins_anew_and_reads_on_where_the_first_stopped() {
    let mut first = ReplayBody::new(chunks(&["a", "b", "c"]));
    let copy = first.repeat().expect("nothing has passed");
    assert_eq!(next(&mut first).await, "a");
    drop(first);
    let last = copy.repeat().expect("little has passed");
    assert_eq!(whole(copy).await.expect("whole"), "abc");
    assert_eq!(whole(last).await.expect("whole"), "abc");
}

#[tokio::test]
async fn trailers_are_sent_again_too() {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )]);
    let frames: Vec<Chunk> =
        vec![Ok(Frame::data(Bytes::from_static(b"a"))), Ok(Frame::trailers(trailers.clone()))];
    let first = ReplayBody::new(StreamBody::new(stream::iter(frames)));
    let copy = first.repeat().expect("nothing has passed");
    for body in [first, copy] {
        let collected = body.collect().await.expect("whole");
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "a");
    }
}

#[tokio::test]
async fn beyond_the_bound_the_body_streams_and_cannot_be_had_again() {
    let first = ReplayBody::with_limit(chunks(&["aa", "bb", "cc"]), 4);
    let copy = first.repeat().expect("nothing has passed");
    assert_eq!(whole(first).await.expect("whole"), "aabbcc");
    assert!(copy.repeat().is_none());
    let error = whole(copy).await.expect_err("its beginning is gone");
    assert!(error.is::<NotRepeatable>());
}

#[tokio::test]
async fn body_of_exactly_the_bound_can_be_had_again() {
    let first = ReplayBody::with_limit(chunks(&["aa", "bb"]), 4);
    let copy = first.repeat().expect("nothing has passed");
    assert_eq!(whole(first).await.expect("whole"), "aabb");
    assert_eq!(whole(copy).await.expect("whole"), "aabb");
}

#[tokio::test]
async fn copy_that_passes_the_bound_reads_on() {
    let mut first = ReplayBody::with_limit(chunks(&["aa", "bb", "cc"]), 4);
    let copy = first.repeat().expect("nothing has passed");
    assert_eq!(next(&mut first).await, "aa");
    assert_eq!(whole(copy).await.expect("whole"), "aabbcc");
}

/// The connection of an attempt that timed out may poll its body once more.
#[tokio::test]
async fn attempt_that_was_given_up_takes_nothing_from_the_next() {
    let mut first = ReplayBody::new(chunks(&["a", "b", "c"]));
    let mut copy = first.repeat().expect("nothing has passed");
    assert_eq!(next(&mut first).await, "a");
    assert_eq!(next(&mut copy).await, "a");
    first.frame().await.expect("an answer").map(drop).expect_err("given up");
    assert_eq!(next(&mut copy).await, "b");
    assert_eq!(next(&mut copy).await, "c");
}

#[tokio::test]
async fn every_copy_has_its_length() {
    let first = ReplayBody::new(Full::<Bytes>::from("abc"));
    let copy = first.repeat().expect("nothing has passed");
    assert_eq!(first.size_hint().exact(), Some(3));
    assert!(!first.is_end_stream());
    first.collect().await.expect("whole");
    assert_eq!(copy.size_hint().exact(), Some(3));
    assert!(!copy.is_end_stream());
    let empty = ReplayBody::new(Empty::<Bytes>::new());
    assert!(empty.is_end_stream());
}

#[tokio::test]
async fn last_copy_keeps_nothing() {
    let mut first = ReplayBody::new(chunks(&["a", "b", "c"]));
    let mut last = first.repeat().expect("nothing has passed");
    assert_eq!(next(&mut first).await, "a");
    assert_eq!(last.lock().kept.len(), 1);
    drop(first);
    assert_eq!(next(&mut last).await, "a");
    assert_eq!(next(&mut last).await, "b");
    assert_eq!(last.lock().kept.len(), 0);
    assert!(last.repeat().is_none());
    assert_eq!(whole(last).await.expect("whole"), "c");
}

/// As hyper's own: it reports its end when the last part has been read.
struct Ending(Vec<&'static str>);

impl Body for Ending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Chunk>> {
        Poll::Ready(self.0.pop().map(|chunk| Ok(Frame::data(Bytes::from(chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.is_empty() { SizeHint::with_exact(0) } else { SizeHint::new() }
    }
}

/// hyper would send it as a request with no content.
#[tokio::test]
async fn copy_whose_beginning_is_gone_does_not_look_empty() {
    let first = ReplayBody::with_limit(Ending(vec!["bb", "aa"]), 2);
    let copy = first.repeat().expect("nothing has passed");
    assert_eq!(first.collect().await.expect("whole").to_bytes(), "aabb");
    assert!(!copy.is_repeatable());
    assert!(!copy.is_end_stream());
    assert_eq!(copy.size_hint().exact(), None);
    assert!(copy.collect().await.expect_err("its beginning is gone").is::<NotRepeatable>());
}

#[tokio::test]
async fn attempt_that_was_given_up_does_not_look_complete() {
    let mut first = ReplayBody::new(Ending(vec!["b", "a"]));
    let copy = first.repeat().expect("nothing has passed");
    first.frame().await.expect("a part").expect("no error");
    assert_eq!(copy.collect().await.expect("whole").to_bytes(), "ab");
    assert!(!first.is_end_stream());
    assert_eq!(first.size_hint().exact(), Some(1));
}

/// A hedge sends it beside the first attempt.
#[tokio::test]
async fn body_that_was_read_whole_is_read_by_all_copies() {
    let mut first = ReplayBody::new(chunks(&["a", "b"]));
    let copy = first.repeat().expect("nothing has passed");
    assert_eq!(next(&mut first).await, "a");
    assert!(copy.is_repeatable() && !copy.is_shareable());
    assert_eq!(next(&mut first).await, "b");
    assert!(first.frame().await.is_none());
    assert!(copy.is_shareable());
    let later = copy.repeat().expect("all is kept");
    assert_eq!(whole(copy).await.expect("whole"), "ab");
    assert!(first.frame().await.is_none(), "its end is no error");
    assert_eq!(whole(later).await.expect("whole"), "ab");
    assert!(ReplayBody::new(Empty::<Bytes>::new()).is_shareable());
}

#[tokio::test]
async fn bound_counts_the_parts_too() {
    for n in [PARTS, PARTS + 1] {
        let mut body = ReplayBody::new(chunks(&vec![""; n]));
        let copy = body.repeat().expect("its beginning");
        while body.frame().await.is_some() {}
        assert_eq!(copy.is_repeatable(), n == PARTS);
    }
}
