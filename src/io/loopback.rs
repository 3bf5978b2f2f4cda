//! Serves one page to browsers on this machine: HTTP on the loopback interface alone.
//!
//! A web site may give its own name the address 127.0.0.1 and so ask this server from a visitor's browser (DNS rebinding). So a request is
//! answered only if its `Host` names the loopback interface.

use crate::{Error, Result};
use httparse::{EMPTY_HEADER, Request, Status};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest head of a request, in bytes, and most headers in it.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks for a connection.
const LOOK: Duration = Duration::from_millis(50);
/// What the page may do: its own styles, scripts and pictures, and asking this server again.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; frame-ancestors 'none'";

/// A page and its version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Changes with the text; no quotes in it.
    pub etag: String,
    /// The text.
    pub html: String,
}

/// Makes the page at each request.
pub type MakePage = dyn Fn() -> Arc<Page> + Send + Sync;

/// Listen on `port` of 127.0.0.1; 0 is any free port.
///
/// # Errors
/// An input error that names the port if it is in use or not allowed.
pub fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| {
        let why = match e.kind() {
            ErrorKind::AddrInUse => "the port is in use".to_string(),
            _ => format!("cannot listen on the port: {e}"),
        };
        Error::input(format!("--port {port}: {why}; give another, or --port 0 for a free one"))
    })
}

/// Answer requests until `stop` is set. Each connection has a thread and gets one answer.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(listener: &TcpListener, stop: &AtomicBool, page: &Arc<MakePage>) -> Result<()> {
    let failed = |e: std::io::Error| Error::failed(format!("cannot wait for requests: {e}"));
    listener.set_nonblocking(true).map_err(failed)?;
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let page = page.clone();
                // A client that is gone, or a thread that cannot be started, is no reason to end.
                let _ = std::thread::Builder::new().name("request".into()).spawn(move || answer(stream, &*page));
            }
            // Nobody asks, or a connection has failed before it was accepted.
            Err(_) => std::thread::sleep(LOOK),
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream, page: &MakePage) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..n]);
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = Request::new(&mut headers);
        match request.parse(&head) {
            Ok(Status::Partial) if head.len() < MAX_HEAD => {}
            Ok(Status::Complete(_)) => return respond(&mut stream, &request, page),
            _ => return send(&mut stream, "400 Bad Request", "", "this is no HTTP request", true),
        }
    }
}

fn respond(stream: &mut TcpStream, request: &Request<'_, '_>, page: &MakePage) -> std::io::Result<()> {
    let values = |name: &'static str| {
        request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    let hosts: Vec<&[u8]> = values("host").collect();
    if !matches!(hosts[..], [host] if is_loopback(host)) {
        let why = "refused: the Host of the request must be 127.0.0.1, localhost or [::1]";
        return send(stream, "403 Forbidden", "", why, true);
    }
    let with_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return send(stream, "405 Method Not Allowed", "Allow: GET, HEAD\r\n", "only GET and HEAD", true),
    };
    if request.path.and_then(|path| path.split('?').next()) != Some("/") {
        return send(stream, "404 Not Found", "", "the page is at /", with_body);
    }
    let page = page();
    let tag = format!("\"{}\"", page.etag);
    let headers = format!("ETag: {tag}\r\nContent-Security-Policy: {POLICY}\r\n");
    if values("if-none-match").any(|known| known == tag.as_bytes()) {
        return send(stream, "304 Not Modified", &headers, "", false);
    }
    send(stream, "200 OK", &headers, &page.html, with_body)
}

/// Whether a `Host` header names the loopback interface, whatever the port: a tunnel may have another.
fn is_loopback(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &str, with_body: bool) -> std::io::Result<()> {
    let kind = if status.starts_with("200") { "text/html" } else { "text/plain" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if with_body {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_interface_is_a_host() {
        for host in ["127.0.0.1", "127.0.0.1:7860", "localhost", "LocalHost:80", "[::1]", "[::1]:7860", "127.9.9.9"] {
            assert!(is_loopback(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7860",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "0.0.0.0",
            "::1:x",
            "[::1",
            "192.168.0.1:7860",
            "127.0.0.1:x",
        ] {
            assert!(!is_loopback(host.as_bytes()), "{host}");
        }
        assert!(!is_loopback(b"\xff"));
    }

    #[test]
    fn a_request_gets_the_page_and_what_is_none_is_refused() {
        let listener = listen(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = listen(port).unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains(&format!("--port {port}: the port is in use")),
            "{error}"
        );
        let stop = Arc::new(AtomicBool::new(false));
        let page: Arc<MakePage> = Arc::new(|| Arc::new(Page { etag: "one".into(), html: "<p>here</p>".into() }));
        let serving = {
            let stop = stop.clone();
            std::thread::spawn(move || serve(&listener, &stop, &page))
        };
        let ask = |request: &str| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let host = "Host: localhost\r\n";
        let got = ask(&format!("GET / HTTP/1.1\r\n{host}\r\n"));
        assert!(
            got.starts_with("HTTP/1.1 200 OK\r\n")
                && got.contains("ETag: \"one\"\r\n")
                && got.ends_with("\r\n\r\n<p>here</p>"),
            "{got}"
        );
        let head = ask(&format!("HEAD /?again HTTP/1.1\r\n{host}\r\n"));
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains("Content-Length: 11\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        for (request, status) in [
            (format!("GET / HTTP/1.1\r\n{host}If-None-Match: \"one\"\r\n\r\n"), 304),
            (format!("GET / HTTP/1.1\r\n{host}If-None-Match: \"two\"\r\n\r\n"), 200),
            ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), 403),
            (format!("GET / HTTP/1.1\r\n{host}Host: evil.example\r\n\r\n"), 403),
            ("GET / HTTP/1.0\r\n\r\n".into(), 403),
            (format!("POST / HTTP/1.1\r\n{host}\r\n"), 405),
            (format!("GET /../etc/passwd HTTP/1.1\r\n{host}\r\n"), 404),
            (format!("GET http://evil.example/ HTTP/1.1\r\n{host}\r\n"), 404),
            ("what is this?\r\n\r\n".into(), 400),
        ] {
            let got = ask(&request);
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {got}");
        }
        stop.store(true, Ordering::SeqCst);
        serving.join().unwrap().unwrap();
    }
}
