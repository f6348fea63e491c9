//! Jute, ZooKeeper's encoding.
//!
//! Numbers are big-endian; texts, byte strings and lists begin with their length.

use std::{error::Error, fmt};

/// An answer that is none of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// Writes one frame.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

/// Reads a frame to its end.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl Writer {
    /// Begins a frame, with room for its length.
    pub(super) fn new() -> Self {
        Self(vec![0; LENGTH])
    }

    pub(super) fn int(mut self, number: i32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, number: i64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn flag(mut self, flag: bool) -> Self {
        self.0.push(u8::from(flag));
        self
    }

    pub(super) fn buffer(self, bytes: &[u8]) -> Self {
        let mut writer = self.int(length(bytes.len()));
        writer.0.extend(bytes);
        writer
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.buffer(text.as_bytes())
    }

    pub(super) fn texts(self, texts: &[String]) -> Self {
        let writer = self.int(length(texts.len()));
        texts.iter().fold(writer, |writer, text| writer.text(text))
    }

    /// Returns the frame.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let n_bytes = length(self.0.len() - LENGTH);
        self.0[..LENGTH].copy_from_slice(&n_bytes.to_be_bytes());
        self.0
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(frame: &'a [u8]) -> Self {
        Self(frame)
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        self.array().map(|[byte]: [u8; 1]| byte != 0)
    }

    /// A byte string; that of length -1, which stands for none, is empty.
    pub(super) fn buffer(&mut self) -> Result<&'a [u8], Malformed> {
        match self.int()? {
            -1 => Ok(&[]),
            n_bytes => self.take(usize::try_from(n_bytes).map_err(|_negative| Malformed)?),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.buffer()?).map_err(|_other| Malformed)
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let n_texts = usize::try_from(self.int()?.max(0)).map_err(|_negative| Malformed)?;
        // Each has a length of its own: a larger number cannot be true.
        if n_texts > self.0.len() / LENGTH {
            return Err(Malformed);
        }
        (0..n_texts).map(|_| self.text().map(str::to_owned)).collect()
    }

    /// What was not read yet.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, n_bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n_bytes).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

// Without `thiserror`: tests of other packages include this file.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed answer")
    }
}

impl Error for Malformed {}

/// A length on the wire; requests are bounded far below its maximum.
fn length(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The size of a length.
pub(super) const LENGTH: usize = 4;
