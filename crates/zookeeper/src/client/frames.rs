use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    error::ClientError,
    jute::{LENGTH, Malformed},
    wire::HEADER,
};

/// Cuts what a connection reads into frames.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: BytesMut,
    limit: usize,
    /// To drop: the rest of a frame above the limit.
    n_dropped: usize,
}

/// What a connection reads.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Read {
    Frame(Bytes),
    /// The beginning of a frame above the limit, whose rest is dropped.
    TooLarge {
        beginning: Bytes,
        n_bytes: usize,
    },
}

impl Frames {
    /// Drops frames of more than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit, n_dropped: 0 }
    }

    /// Reads the next frame.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Read, ClientError> {
        loop {
            if let Some(read) = self.buffered()? {
                return Ok(read);
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ClientError::Closed);
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Read>, ClientError> {
        let n_here = self.n_dropped.min(self.buffer.len());
        self.buffer.advance(n_here);
        self.n_dropped -= n_here;
        let Some(length) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let n_bytes =
            usize::try_from(i32::from_be_bytes(*length)).map_err(|_negative| Malformed)?;
        let is_too_large = n_bytes > self.limit.max(HEADER);
        let n_kept = if is_too_large { HEADER } else { n_bytes };
        if self.buffer.len() < LENGTH + n_kept {
            self.buffer.reserve(LENGTH + n_kept - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(LENGTH);
        let frame = self.buffer.split_to(n_kept).freeze();
        self.n_dropped = n_bytes - n_kept;
        Ok(Some(match is_too_large {
            true => Read::TooLarge { beginning: frame, n_bytes },
            false => Read::Frame(frame),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_cut_wherever_reads_end() {
        let mut pieces = stream(&[&[0, 0], &[0, 2, 7], &[8, 0, 0, 0, 0, 0, 0, 0, 1, 9]]);
        let mut frames = Frames::new(2);
        for expected in [&[7_u8, 8][..], &[], &[9]] {
            let frame = Read::Frame(Bytes::from_static(expected));
            assert_eq!(frames.next(&mut pieces).await.expect("a frame"), frame);
        }
        let end = frames.next(&mut pieces).await;
        assert!(matches!(end, Err(ClientError::Closed)), "{end:?}");
    }

    #[tokio::test]
    async fn rest_of_a_frame_above_the_limit_is_dropped() {
        let large = [&[0, 0, 0, 40][..], &[7; HEADER]].concat();
        let rest = [&[8; 40 - HEADER - 5][..], &[0, 0, 0, 1, 9]].concat();
        let mut pieces = stream(&[&large[..9], &large[9..], &[8; 5], &rest]);
        let mut frames = Frames::new(20);
        let read = frames.next(&mut pieces).await.expect("a beginning");
        let beginning = Bytes::from_static(&[7; HEADER]);
        assert_eq!(read, Read::TooLarge { beginning, n_bytes: 40 });
        let read = frames.next(&mut pieces).await.expect("a frame");
        assert_eq!(read, Read::Frame(Bytes::from_static(&[9])));
    }

    #[tokio::test]
    async fn negative_length_is_malformed() {
        let mut pieces = stream(&[&[255; LENGTH]]);
        let read = Frames::new(20).next(&mut pieces).await;
        assert!(matches!(read, Err(ClientError::Malformed(_))), "{read:?}");
    }

    fn stream(pieces: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        let mut stream = tokio_test::io::Builder::new();
        for piece in pieces {
            stream.read(piece);
        }
        stream.build()
    }
}
