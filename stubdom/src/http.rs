//! HTTP/1.1 as far as one page needs it (RFC 9112): a request a connection, then its end.
//!
//! It knows bytes and neither sockets nor the clock: whoever has a connection hands in what came,
//! and sends what there is to send.

use alloc::string::String;
use core::fmt::Write;

use heapless::Vec;

/// The most bytes of a request's head: the line, the fields, and the empty line.
pub const HEAD_MAX: usize = 2048;
/// The most fields of a request's head.
const FIELDS_MAX: usize = 32;
/// The most bytes of an answer's head.
const ANSWER_MAX: usize = 256;

/// The path of the page.
const PATH: &str = "/metrics";

/// What the answer is, by its number and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Here is the page.
    Ok,
    /// This is no request of HTTP/1.0 or 1.1.
    BadRequest,
    /// There is no such page.
    NotFound,
    /// The page can only be read.
    MethodNotAllowed,
    /// The head has no end within what is read of it.
    HeadTooLarge,
    /// There is no memory to make the page.
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// A page to be shown.
#[derive(Debug)]
pub struct Page {
    /// Its media type.
    pub kind: &'static str,
    /// Its text.
    pub text: String,
}

/// A request and its answer.
#[derive(Debug, Default)]
pub struct Exchange {
    request: Vec<u8, HEAD_MAX>,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    head: heapless::String<ANSWER_MAX>,
    body: Body,
    /// How many bytes of both were sent.
    sent: usize,
}

#[derive(Debug)]
enum Body {
    /// Only its length was asked for.
    None,
    /// What went wrong, in words.
    Words(&'static str),
    Page(String),
}

impl Body {
    const fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Words(words) => words.as_bytes(),
            Self::Page(text) => text.as_bytes(),
        }
    }
}

/// A request that is to be answered.
struct Wanted {
    status: Status,
    with_body: bool,
}

impl Exchange {
    /// Takes bytes of the request, any part of it. `page` makes the page when it is asked for,
    /// unless there is no memory for it. What follows after the head means nothing.
    pub fn receive(&mut self, bytes: &[u8], page: impl FnOnce() -> Option<Page>) {
        if self.answer.is_some() {
            return;
        }
        let room = HEAD_MAX - self.request.len();
        let (part, beyond) = bytes.split_at(bytes.len().min(room));
        // There is room for it.
        let _ = self.request.extend_from_slice(part);
        // A head ends with a line.
        let wanted = if part.contains(&b'\n') { read(&self.request) } else { None };
        let too_large = || Wanted { status: Status::HeadTooLarge, with_body: true };
        let wanted = wanted.or_else(|| (!beyond.is_empty()).then(too_large));
        self.answer = wanted.map(|wanted| Answer::new(&wanted, page));
    }

    /// Whether there is an answer, so that nothing is read any more.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// The bytes of the answer that are next; none while there is no answer, or when all of it was
    /// sent.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        let Some(Answer { head, body, sent }) = &self.answer else { return &[] };
        match head.as_bytes().get(*sent..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => body.bytes().get(sent - head.len()..).unwrap_or_default(),
        }
    }

    /// So many bytes of what [`transmit`](Self::transmit) gave were sent.
    pub fn sent(&mut self, count: usize) {
        if let Some(answer) = &mut self.answer {
            answer.sent += count;
        }
    }

    /// Whether all of the answer was sent.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_answered() && self.transmit().is_empty()
    }
}

impl Answer {
    fn new(wanted: &Wanted, page: impl FnOnce() -> Option<Page>) -> Self {
        let page = if wanted.status == Status::Ok { page() } else { None };
        let status = match (wanted.status, &page) {
            (Status::Ok, None) => Status::Unavailable,
            (status, _) => status,
        };
        let (kind, body) = match page {
            Some(Page { kind, text }) => (kind, Body::Page(text)),
            None => ("text/plain; charset=utf-8", Body::Words(status.line())),
        };
        let allow = if status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        let mut head = heapless::String::new();
        let len = body.bytes().len();
        write!(
            head,
            "HTTP/1.1 {}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{allow}\
             Connection: close\r\n\r\n",
            status.line()
        )
        .expect("room for the longest head");
        Self { head, body: if wanted.with_body { body } else { Body::None }, sent: 0 }
    }
}

/// Reads a request's head; `None` if it has not ended.
fn read(bytes: &[u8]) -> Option<Wanted> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let status = match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => judge(&request),
        Err(httparse::Error::TooManyHeaders) => Status::HeadTooLarge,
        Err(_) => Status::BadRequest,
    };
    Some(Wanted { status, with_body: request.method != Some("HEAD") })
}

fn judge(request: &httparse::Request<'_, '_>) -> Status {
    let httparse::Request { method: Some(method), path: Some(target), version, headers } = request
    else {
        return Status::BadRequest;
    };
    let hosts = headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count();
    if hosts > 1 || (hosts == 0 && *version != Some(0)) {
        return Status::BadRequest;
    }
    match (path_of(target), *method) {
        (PATH, "GET" | "HEAD") => Status::Ok,
        (PATH, _) => Status::MethodNotAllowed,
        _ => Status::NotFound,
    }
}

/// The path of a request's target, which may be a whole address.
fn path_of(target: &str) -> &str {
    let whole =
        target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    let path = whole.unwrap_or(target);
    path.split_once('?').map_or(path, |(path, _)| path)
}

#[cfg(test)]
mod tests;
