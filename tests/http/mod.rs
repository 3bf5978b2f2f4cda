//! As much of HTTP as the servers of the tests need: one request and one response a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Head and body of the next request.
pub fn read_request(stream: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, body)
}

/// Answer with `text`; `headers` are further lines, each with its end. Whoever has gone gets nothing.
pub fn respond(mut stream: &TcpStream, status: u16, headers: &str, text: &str) {
    let _ = write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{text}",
        text.len()
    );
}
