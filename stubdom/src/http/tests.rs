use super::*;

const TEXT: &str = "one 1\ntwo 2\n";

fn page() -> Option<Page> {
    Some(Page { kind: "text/plain; version=0.0.4", text: TEXT.into() })
}

/// The whole answer, if there is one, sent `part` bytes at a time.
fn answer_by(exchange: &mut Exchange, part: usize) -> String {
    let mut answer = std::vec::Vec::new();
    while !exchange.transmit().is_empty() {
        let next = &exchange.transmit()[..part.min(exchange.transmit().len())];
        answer.extend_from_slice(next);
        let count = next.len();
        exchange.sent(count);
    }
    String::from_utf8(answer).unwrap()
}

fn answer(request: &str) -> String {
    let mut exchange = Exchange::default();
    exchange.receive(request.as_bytes(), page);
    assert_eq!(exchange.is_answered(), !exchange.transmit().is_empty());
    answer_by(&mut exchange, usize::MAX)
}

fn status(request: &str) -> String {
    let answer = answer(request);
    let line = answer.lines().next().unwrap_or("none");
    line.strip_prefix("HTTP/1.1 ").unwrap_or(line).into()
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: 10.0.0.2\r\nAccept: */*\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                  Content-Length: 12\r\nConnection: close\r\n\r\none 1\ntwo 2\n";

#[test]
fn the_page_is_given_however_its_request_comes_and_the_answer_goes() {
    assert_eq!(answer(GET), OK);
    for part in [1, 7, 40] {
        let mut exchange = Exchange::default();
        for bytes in GET.as_bytes().chunks(part) {
            assert!(!exchange.is_answered(), "answered before the request's end");
            exchange.receive(bytes, page);
        }
        assert!(!exchange.is_done());
        assert_eq!(answer_by(&mut exchange, part), OK, "by {part}");
        assert!(exchange.is_done());
    }
}

#[test]
fn head_is_get_without_the_page() {
    let head = answer(&GET.replace("GET", "HEAD"));
    assert_eq!(head, OK.strip_suffix(TEXT).unwrap());
    let head = answer("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 404 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn other_requests_are_told_what_is_wrong() {
    let host = "Host: a\r\n\r\n";
    for (request, wanted) in [
        ("GET / HTTP/1.1\r\n", "404 Not Found"),
        ("GET /metrics/ HTTP/1.1\r\n", "404 Not Found"),
        ("POST /none HTTP/1.1\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n", "405 Method Not Allowed"),
        ("GET /metrics?a=b HTTP/1.1\r\n", "200 OK"),
        ("GET http://10.0.0.2/metrics HTTP/1.1\r\n", "200 OK"),
        ("GET http://10.0.0.2 HTTP/1.1\r\n", "404 Not Found"),
        ("OPTIONS * HTTP/1.1\r\n", "404 Not Found"),
        ("GET /metrics HTTP/1.0\r\n", "200 OK"),
        ("GET /metrics HTTP/2.0\r\n", "400 Bad Request"),
        ("GET /metrics\r\n", "400 Bad Request"),
        ("\u{1}\u{3}binary\r\n", "400 Bad Request"),
        ("GET /metrics HTTP/1.1\r\nHost: b\r\n", "400 Bad Request"),
        ("GET /metrics HTTP/1.1\r\nno field\r\n", "400 Bad Request"),
    ] {
        assert_eq!(status(&format!("{request}{host}")), wanted, "{request:?}");
    }
    assert_eq!(status("GET /metrics HTTP/1.1\r\n\r\n"), "400 Bad Request", "it names no host");
    assert_eq!(status("GET /metrics HTTP/1.0\r\n\r\n"), "200 OK", "it need not, once");
    let refused = answer("PUT /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
    assert!(refused.ends_with("\r\n\r\n405 Method Not Allowed"), "{refused}");
}

#[test]
fn a_head_has_an_end() {
    let fields = |count: usize| "A: b\r\n".repeat(count);
    let request = |count| format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count));
    assert_eq!(status(&request(31)), "200 OK");
    assert_eq!(status(&request(32)), "431 Request Header Fields Too Large");
    let long = |len: usize| {
        let empty = "GET /metrics HTTP/1.1\r\nHost: a\r\nB: \r\n\r\n";
        empty.replace("B: ", &format!("B: {}", "x".repeat(len - empty.len())))
    };
    assert_eq!(status(&long(HEAD_MAX)), "200 OK");
    assert_eq!(status(&long(HEAD_MAX + 1)), "431 Request Header Fields Too Large");
    let mut exchange = Exchange::default();
    for _ in 0..HEAD_MAX {
        exchange.receive(b"x", page);
        assert!(!exchange.is_answered());
    }
    exchange.receive(b"x", page);
    assert!(answer_by(&mut exchange, 50).contains("431"));
}

#[test]
fn what_comes_after_the_head_means_nothing() {
    let mut exchange = Exchange::default();
    exchange.receive(format!("{GET}{GET}and more").as_bytes(), page);
    exchange.receive(&[b'x'; 5000], || panic!("the page was asked for once"));
    assert_eq!(answer_by(&mut exchange, usize::MAX), OK);
}

#[test]
fn without_memory_there_is_still_an_answer() {
    let mut exchange = Exchange::default();
    exchange.receive(GET.as_bytes(), || None);
    assert!(answer_by(&mut exchange, usize::MAX).starts_with("HTTP/1.1 503 "));
}
