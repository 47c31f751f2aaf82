//! Xenstore as a function of bytes.
//!
//! [`Server`] is a whole Xenstore server without a ring, a clock or a hypercall: its owner hands in
//! the bytes that a ring holds and takes out the bytes that the ring should get. What only the
//! outside can do, such as mapping a guest's ring, it asks of a [`Host`]. So the same code serves a
//! Xen host, a test and a fuzzer. [`client`] is the other half of the protocol.
//!
//! # Layers
//!
//! Each knows only those before it.
//!
//! | layer | modules | what it knows |
//! | --- | --- | --- |
//! | bytes | [`wire`], `number`, `quota`, `path` | frames, numbers, limits and paths, and what is legal |
//! | containers | `children`, `slab` | a persistent ordered map, a table of reused numbers |
//! | the tree | `perms`, `tree`, `change` | nodes, who may use them, what follows from a change |
//! | the store | `domain`, `operation`, `debris`, `transaction`, `store` | who owns what and uses how much of it, operations, what is left of removals, commits |
//! | news | `watch`, `outbox`, `connection`, `announce` | who hears of a change, what waits to be sent |
//! | the server | `request`, `reply`, `counts`, `server`, `check` | messages, their rules, and the order of it all |
//!
//! # The path of one request
//!
//! [`Server::receive`] cuts a frame out of the bytes, and only `Server::dispatch` answers it: it
//! applies the rules of its type (`request::rules`), parses it into a `Request`, does it, and
//! queues one reply. An operation on a node is *judged* on the tree as it is, which gives its
//! answer and a `Change`; quotas are asked; then the tree is changed, and the accounts, the index
//! of owned nodes and the events follow from the `Change` alone. Events are queued before the reply
//! to who caused them. A transaction does the same on a snapshot, and notes what it was told; at
//! its end the notes are judged again on the tree as it is then, and the changes of that take the
//! same way.
//!
//! # What it costs
//!
//! A request costs what it touches: nothing goes through all domains, watches or nodes. A snapshot
//! is a reference; a write under one copies the nodes of its path. What a removal leaves is
//! settled and freed a part at a time. A domain's death costs the subtrees that it owned. What waits for a connection that does not read is bounded, and delays nobody
//! else.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod client;
pub mod host;
#[cfg(any(test, fuzzing))]
pub mod laws;
pub mod wire;

mod announce;
mod change;
mod check;
mod children;
mod connection;
mod counts;
mod debris;
mod domain;
mod number;
mod operation;
mod outbox;
mod path;
mod perms;
mod quota;
mod reply;
mod request;
mod server;
mod slab;
mod store;
mod trail;
mod transaction;
mod tree;
mod watch;

pub use counts::{Counts, Stats};
pub use host::{Config, ConnId, DomId, Host, UniqueId, Unreachable};
pub use server::Server;
