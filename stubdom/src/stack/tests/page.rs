//! The page, to readers that behave and to others.

use super::*;
use crate::stack::connection::{TO_ANSWER, TO_ASK};

#[test]
fn the_page_is_shown_over_ipv4_and_ipv6() {
    let mut link = Link::new(fixed());
    link.page = "stubdom_info 1\n".repeat(5000);
    for to in [IpAddress::Ipv4(FOUR), IpAddress::Ipv6(link_local(STUB))] {
        let answer = link.fetch(to);
        let (head, page) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "from {to}: {head}");
        assert!(head.contains("Content-Length: 75000"), "from {to}: {head}");
        assert!(page == link.page, "from {to}: {} bytes", page.len());
    }
}

#[test]
fn places_are_free_again_at_once() {
    let mut link = Link::new(fixed());
    for number in 0..4 * CONNECTIONS {
        let answer = link.fetch(FOUR.into());
        assert!(answer.starts_with("HTTP/1.1 200 "), "connection {number}: {answer:?}");
    }
    assert!(link.now < Duration::from_secs(8), "they took {:?}", link.now);
}

#[test]
fn who_reads_slowly_keeps_nobody_waiting_and_is_let_go() {
    let mut link = Link::new(fixed());
    link.page = "stubdom_info 1\n".repeat(5000);
    let slow = link.connect(FOUR.into(), 512);
    link.settle();
    link.socket(slow).send_slice(GET).unwrap();
    link.pass(Duration::from_secs(1));
    assert!(link.socket(slow).can_recv());
    assert!(link.fetch(FOUR.into()).ends_with(&link.page), "while another does not read");
    link.pass(TO_ANSWER);
    assert!(!link.socket(slow).is_open(), "it was reset");
    link.page = "a page".into();
    for _ in 0..CONNECTIONS {
        link.connect(FOUR.into(), 512);
    }
    link.settle();
    let established = link.sockets.iter().filter(
        |(_, socket)| matches!(socket, smoltcp::socket::Socket::Tcp(socket) if socket.may_send()),
    );
    assert_eq!(established.count(), CONNECTIONS, "all places are free again");
}

#[test]
fn who_says_nothing_is_let_go_and_one_too_many_is_refused() {
    let mut link = Link::new(fixed());
    let silent: Vec<_> = (0..CONNECTIONS).map(|_| link.connect(FOUR.into(), 512)).collect();
    link.settle();
    assert!(silent.iter().all(|&socket| link.socket(socket).may_send()), "all are connected");
    link.socket(silent[0]).send_slice(b"GET /metr").unwrap();
    let refused = link.connect(FOUR.into(), 512);
    link.settle();
    assert!(!link.socket(refused).is_open(), "there is no place");
    link.pass(TO_ASK / 2);
    assert_eq!(link.due, Some(TO_ASK), "then it looks after them");
    link.pass(TO_ASK / 2);
    assert!(silent.iter().all(|&socket| !link.socket(socket).is_open()), "they were reset");
    assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_asks_a_byte_at_a_time_is_let_go() {
    let mut link = Link::new(fixed());
    let slow = link.connect(FOUR.into(), 512);
    link.settle();
    let mut asked = GET.iter().cycle();
    while link.now < TO_ASK + Duration::from_secs(1) {
        if link.socket(slow).can_send() {
            let byte = *asked.next().unwrap();
            // The request never ends.
            let byte = if byte == b'\n' || byte == b'\r' { b'x' } else { byte };
            link.socket(slow).send_slice(&[byte]).unwrap();
        }
        link.pass(Duration::from_millis(500));
        assert!(link.read(slow).is_empty(), "answered before the request's end");
    }
    assert!(!link.socket(slow).is_open(), "bytes that come give it no more time");
    assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "));
}

#[test]
fn of_a_hundred_connections_some_are_served_and_the_others_refused_at_once() {
    let mut link = Link::new(fixed());
    let all: Vec<_> = (0..100).map(|_| link.connect(FOUR.into(), 65_535)).collect();
    link.pass(Duration::from_secs(1));
    let is_here = |link: &mut Link, socket| link.socket(socket).may_send();
    let here: Vec<_> = all.iter().copied().filter(|&one| is_here(&mut link, one)).collect();
    assert_eq!(here.len(), CONNECTIONS);
    let refused = all.iter().filter(|&&one| !link.socket(one).is_open()).count();
    assert_eq!(refused, 100 - CONNECTIONS, "nobody waits for a place");
    for &one in &here {
        link.socket(one).send_slice(GET).unwrap();
    }
    link.pass(Duration::from_secs(1));
    for &one in &here {
        let answer = link.read(one);
        assert!(answer.ends_with(&link.page), "{answer:?}");
        link.socket(one).close();
    }
    link.settle();
    assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_head_without_an_end_is_answered_and_the_rest_of_it_not_kept() {
    let mut link = Link::new(fixed());
    let endless = link.connect(FOUR.into(), 65_535);
    link.settle();
    link.socket(endless).send_slice(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let mut answer = String::new();
    for _ in 0..200 {
        if link.socket(endless).can_send() {
            link.socket(endless).send_slice(&b"Field: value of a field\r\n".repeat(10)).unwrap();
        }
        link.pass(Duration::from_millis(100));
        answer += &link.read(endless);
    }
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer");
    assert!(link.fetch(FOUR.into()).starts_with("HTTP/1.1 200 "), "while it goes on");
    link.pass(TO_ANSWER);
    assert!(!link.socket(endless).is_open(), "and then it was reset");
}

#[test]
fn who_closes_without_a_word_leaves_its_place() {
    let mut link = Link::new(fixed());
    for _ in 0..2 * CONNECTIONS {
        let socket = link.connect(FOUR.into(), 512);
        link.settle();
        assert!(link.socket(socket).may_send());
        link.socket(socket).close();
        link.settle();
        assert_eq!(link.socket(socket).state(), tcp::State::TimeWait, "the stub closed, too");
    }
}
