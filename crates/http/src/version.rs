/// The version of HTTP for an instance.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HttpVersion {
    /// Over TLS what the server chooses, of HTTP/2 and HTTP/1.1 (ALPN, RFC 7301); without TLS
    /// HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1: a connection carries one request at a time.
    Http1,
    /// HTTP/2: a connection carries as many requests as the server grants. Without TLS with prior
    /// knowledge (RFC 9113 §3.3). A server that does not answer in HTTP/2 counts as one that
    /// refused the connection.
    Http2,
}
