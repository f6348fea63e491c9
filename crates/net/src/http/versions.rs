/// The HTTP versions that are offered over TLS; in the clear HTTP/1.1 is used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum HttpVersions {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, and HTTP/1.1 for servers without it.
    #[default]
    Http2OrHttp1,
}

impl HttpVersions {
    pub(super) fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[HTTP_1],
            Self::Http2OrHttp1 => &[HTTP_2, HTTP_1],
        }
    }
}

// Their names in ALPN (RFC 7301).
const HTTP_1: &[u8] = b"http/1.1";
pub(super) const HTTP_2: &[u8] = b"h2";
