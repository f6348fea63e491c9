//! One HTTP request by hand, beside a backend.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The answer to a [`request`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends one request on a new connection, and reads the answer to its end.
///
/// The arguments are as in `"PUT"`, `"/v1/agent/…"`. HTTP/1.0:
/// no keep-alive, no chunks.
///
/// # Errors
///
/// The server cannot be reached, or does not use HTTP.
///
/// # Cancel safety
///
/// Dropped early, the connection is closed.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    body: &str,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> io::Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    match status {
        Some(status) if head.starts_with("HTTP/") => {
            Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
        }
        _ => Err(io::Error::other(format!("not an HTTP answer: {head:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_taken_apart() {
        let answer = parse("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nnothing\r\n\r\nhere");
        let answer = answer.expect("well formed");
        assert_eq!((answer.status, answer.body.as_str()), (404, "nothing\r\n\r\nhere"));
        assert_eq!(answer.head, "HTTP/1.1 404 Not Found\r\nA: b");
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for text in ["", "SSH-2.0-x 200\r\n\r\n", "HTTP/1.1 ok\r\n\r\n"] {
            parse(text).expect_err(text);
        }
    }
}
