use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{error::ClientError, jute::LENGTH};

/// Cuts what a connection reads into frames.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: BytesMut,
    limit: usize,
}

impl Frames {
    /// Refuses frames of more than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// Reads the next frame.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Bytes, ClientError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ClientError::Closed);
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let n_bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if n_bytes > self.limit {
            return Err(ClientError::ReplyTooLarge { n_bytes, limit: self.limit });
        }
        if self.buffer.len() < LENGTH + n_bytes {
            self.buffer.reserve(LENGTH + n_bytes - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(LENGTH);
        Ok(Some(self.buffer.split_to(n_bytes).freeze()))
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
            assert_eq!(frames.next(&mut pieces).await.expect("a frame"), expected);
        }
        let end = frames.next(&mut pieces).await;
        assert!(matches!(end, Err(ClientError::Closed)), "{end:?}");
    }

    #[tokio::test]
    async fn frame_above_the_limit_is_refused_before_it_is_read() {
        for length in [[0, 0, 0, 3], [255, 255, 255, 255]] {
            let mut pieces = stream(&[&length]);
            let refused = Frames::new(2).next(&mut pieces).await;
            assert!(matches!(refused, Err(ClientError::ReplyTooLarge { limit: 2, .. })));
        }
    }

    fn stream(pieces: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        let mut stream = tokio_test::io::Builder::new();
        for piece in pieces {
            stream.read(piece);
        }
        stream.build()
    }
}
