//! A blocking HTTP/1.1 client with one keep-alive connection, cheap enough for a load generator.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Largest response body that is read; anything longer is an error, not an allocation.
pub const BODY_BYTES_MAX: usize = 1 << 30;
const HEADER_LINES_MAX: usize = 200;

/// One answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, transfer encoding removed, content encoding untouched.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that (lower-case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text, invalid UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the status is 2xx.
    #[must_use]
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A client of one address. A broken connection is dropped and opened anew by the next request; nothing is retried.
#[derive(Debug)]
pub struct Client {
    addr: SocketAddr,
    timeout: Duration,
    conn: Option<BufReader<TcpStream>>,
    request: Vec<u8>,
}

impl Client {
    /// A client for `addr`; no connection is made yet. `timeout` bounds each connect, write and read.
    #[must_use]
    pub fn new(addr: SocketAddr, timeout: Duration) -> Self {
        Self { addr, timeout, conn: None, request: Vec::new() }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// Connection failures, timeouts, malformed answers, bodies above [`BODY_BYTES_MAX`].
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut conn = match self.conn.take() {
            Some(c) => c,
            None => self.connect()?,
        };
        self.request.clear();
        write!(self.request, "{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.addr)?;
        for (name, value) in headers {
            write!(self.request, "{name}: {value}\r\n")?;
        }
        if !body.is_empty() || method == "POST" {
            write!(self.request, "Content-Length: {}\r\n", body.len())?;
        }
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body);
        if let Err(e) = conn.get_mut().write_all(&self.request) {
            // A server that refuses a body answers before it has read all of it; that answer is worth having.
            return match read_response(&mut conn, method) {
                Ok((response, _)) => Ok(response),
                Err(_) => Err(e),
            };
        }
        let (response, keep) = read_response(&mut conn, method)?;
        if keep {
            self.conn = Some(conn);
        }
        Ok(response)
    }

    /// `GET target`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn get(&mut self, target: &str) -> io::Result<Response> {
        self.send("GET", target, &[], &[])
    }

    /// `POST target` with a form body.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn post_form(&mut self, target: &str, form: &[(&str, &str)]) -> io::Result<Response> {
        let body = encode_form(form);
        self.send("POST", target, &[("Content-Type", "application/x-www-form-urlencoded")], body.as_bytes())
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.addr, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(BufReader::with_capacity(64 * 1024, stream))
    }
}

/// Name-value pairs as `application/x-www-form-urlencoded`.
#[must_use]
pub fn encode_form(form: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in form {
        if !out.is_empty() {
            out.push('&');
        }
        encode_component(&mut out, name);
        out.push('=');
        encode_component(&mut out, value);
    }
    out
}

fn encode_component(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            _ => write!(out, "%{b:02X}").expect("writing to a String cannot fail"),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read_line(conn: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if conn.by_ref().take(64 * 1024).read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed inside a response"));
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

fn read_response(conn: &mut BufReader<TcpStream>, method: &str) -> io::Result<(Response, bool)> {
    let (status, headers) = loop {
        let line = read_line(conn)?;
        let status: u16 = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| invalid(&format!("malformed status line {line:?}")))?;
        let headers = read_headers(conn)?;
        if status != 100 {
            break (status, headers);
        }
    };
    let mut response = Response { status, headers, body: Vec::new() };
    let keep = response.header("connection") != Some("close");
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok((response, keep));
    }
    if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        read_chunked(conn, &mut response.body)?;
    } else if let Some(length) = response.header("content-length") {
        let length: usize = length.parse().map_err(|_| invalid("malformed content-length"))?;
        if length > BODY_BYTES_MAX {
            return Err(invalid("response body too long"));
        }
        response.body.resize(length, 0);
        conn.read_exact(&mut response.body)?;
    } else {
        conn.by_ref().take(BODY_BYTES_MAX as u64).read_to_end(&mut response.body)?;
        return Ok((response, false));
    }
    Ok((response, keep))
}

fn read_headers(conn: &mut BufReader<TcpStream>) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(conn)?;
        if line.is_empty() {
            return Ok(headers);
        }
        if headers.len() == HEADER_LINES_MAX {
            return Err(invalid("too many response headers"));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("malformed header line"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_chunked(conn: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(conn)?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| invalid("malformed chunk size"))?;
        if size == 0 {
            read_headers(conn)?;
            return Ok(());
        }
        let start = body.len();
        if start + size > BODY_BYTES_MAX {
            return Err(invalid("response body too long"));
        }
        body.resize(start + size, 0);
        conn.read_exact(&mut body[start..])?;
        read_line(conn)?;
    }
}
