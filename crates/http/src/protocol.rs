/// Which HTTP is spoken to an instance.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1: a connection carries one request at a time.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3): a connection carries as many requests as the server grants. A server
    /// that does not answer in HTTP/2 counts as one that refused the connection.
    Http2,
}
