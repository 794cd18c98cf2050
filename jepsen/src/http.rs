//! A minimal GET for the nodes' admin pages.
//!
//! Invariant: an answer larger than [`LARGEST`] is an error and is not held in memory.
//!
//! Deliberately absent: the rest of HTTP (chunked bodies, redirects, keep-alive).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::within;

/// Largest answer read, in bytes.
const LARGEST: u64 = 16 << 20;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// Gets `path` from `address`.
///
/// # Errors
/// If no process listens, or the answer isn't HTTP, is too large, or takes too long.
pub async fn get(address: SocketAddr, path: &str) -> Result<Response> {
    within(&format!("GET http://{address}{path}"), LIMIT, async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(LARGEST + 1).read_to_end(&mut bytes).await?;
        ensure!(bytes.len() as u64 <= LARGEST, "the answer is larger than {LARGEST} bytes");
        parse(&String::from_utf8(bytes)?)
    })
    .await
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the HTTP header")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    ensure!(!chunked, "chunked answers are not read here");
    Ok(Response { status: status.parse()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn serve(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn reads_status_and_body() {
        let address = serve("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nno leader").await;
        let expected = Response { status: 503, body: "no leader".to_owned() };
        assert_eq!(get(address, "/readyz").await.unwrap(), expected);
    }

    #[tokio::test]
    async fn refuses_what_is_not_http() {
        for answer in ["", "hello", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert!(get(serve(answer).await, "/").await.is_err(), "{answer:?}");
        }
    }
}
