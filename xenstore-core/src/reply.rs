//! Replies: what a request is answered with, and its bytes.

use alloc::string::String;
use alloc::vec::Vec;

use crate::domain::Domains;
use crate::host::DomId;
use crate::operation::{Answer, Seen, listed};
use crate::path::{extend_decimal, extend_home};
use crate::perms::Perms;
use crate::tree::Node;
use crate::watch::WatchId;
use crate::wire::PAYLOAD_MAX;

/// What a request is answered with when it succeeds.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Done,
    Seen(Seen<'a>),
    /// The same, or that it was done, in a transaction, which remembers it.
    Answer(Answer),
    /// The first event of this watch, for its own path, follows.
    Watching(WatchId, &'a [u8]),
    Number(u64),
    /// The path of a domain's home.
    Home(DomId),
    Flag(bool),
    Text(String),
}

impl Reply<'_> {
    /// Returns the payload where it need not be made.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Seen(Seen::Value(node)) => Some(node.value()),
            Reply::Answer(Answer::Value(node)) => Some(node.value()),
            Reply::Done | Reply::Watching(..) | Reply::Answer(Answer::Done) => Some(b"OK\0"),
            Reply::Flag(flag) => Some(if *flag { b"T\0" } else { b"F\0" }),
            _ => None,
        }
    }

    /// Appends the payload, or more than a frame holds where it is too long.
    pub(crate) fn extend(&self, out: &mut Vec<u8>, domains: &Domains) {
        match self {
            Reply::Seen(seen) => extend_seen(out, *seen, domains),
            Reply::Answer(answer) => {
                if let Some(seen) = answer.seen() {
                    extend_seen(out, seen, domains);
                }
            }
            Reply::Number(number) => {
                extend_decimal(out, *number);
                out.push(0);
            }
            Reply::Home(domain) => {
                extend_home(out, *domain);
                out.push(0);
            }
            Reply::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Reply::Done | Reply::Watching(..) | Reply::Flag(_) => {
                out.extend_from_slice(self.bytes().unwrap_or_default());
            }
        }
    }
}

fn extend_seen(out: &mut Vec<u8>, seen: Seen<'_>, domains: &Domains) {
    match seen {
        Seen::Value(node) => out.extend_from_slice(node.value()),
        Seen::Names(node) => extend_names(out, node),
        Seen::Part(node, from) => extend_part(out, node, from),
        Seen::Perms(perms) => extend_perms(out, perms, domains),
    }
}

#[inline(never)]
fn extend_names(out: &mut Vec<u8>, node: &Node) {
    if node.names_len() > PAYLOAD_MAX {
        // Whatever the names are, there is no frame for them.
        out.resize(out.len() + PAYLOAD_MAX + 1, 0);
        return;
    }
    for place in 0..node.children_len() {
        if let Some((key, child)) = node.nth_child(place) {
            key.extend(out);
            out.extend_from_slice(child.tail());
            out.push(0);
        }
    }
}

/// Appends the generation and as many whole names as fit, the first from the byte on that was
/// asked for; the last part ends with an empty name.
#[inline(never)]
fn extend_part(out: &mut Vec<u8>, node: &Node, from: i32) {
    let start = out.len();
    extend_decimal(out, node.generation());
    out.push(0);
    let seek = usize::try_from(from).ok().and_then(|from| node.seek_child(from));
    let Some((first, within)) = seek else {
        out.push(0);
        return;
    };
    let mut name = Vec::new();
    for place in first..node.children_len() {
        let Some((key, child)) = node.nth_child(place) else { return };
        name.clear();
        key.extend(&mut name);
        name.extend_from_slice(child.tail());
        name.push(0);
        let rest = if place == first { name.get(within..).unwrap_or_default() } else { &name };
        // One byte stays free for the empty name.
        if out.len() - start + rest.len() >= PAYLOAD_MAX {
            return;
        }
        out.extend_from_slice(rest);
    }
    out.push(0);
}

#[inline(never)]
fn extend_perms(out: &mut Vec<u8>, perms: &Perms, domains: &Domains) {
    for entry in listed(perms, domains) {
        out.push(entry.access.letter());
        extend_decimal(out, entry.domain.0.into());
        out.push(0);
    }
}
