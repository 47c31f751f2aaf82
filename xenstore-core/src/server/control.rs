//! CONTROL: administration of the server itself.
//!
//! The forms of the answers are those of the reference server, because tools read them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use super::Server;
use crate::domain::Domain;
use crate::host::{DomId, Host};
use crate::number;
use crate::quota::{Denial, Marks, Quota};
use crate::reply::Reply;
use crate::request::Strings;
use crate::wire::{Error, PAYLOAD_MAX};

/// What the log can be told to note, and whether it was.
#[derive(Debug, Default)]
pub(super) struct Switches([bool; SWITCHES.len()]);

const SWITCHES: [&str; 5] = ["obj", "io", "wrl", "acc", "tdb"];

/// Room for the line that says where a list goes on, and for the NUL that ends it.
const MORE_LEN: usize = "more: domains 65535\n\0".len();

const COMMANDS: [(&str, &str); 10] = [
    ("check", ""),
    ("counters", ""),
    ("domains", "[<first domid>]"),
    ("log", "[on|off|+<switch>|-<switch>]"),
    ("live-update", "[-c <cmdline>] [-F] [-t <timeout>] [-v <version>] <file>"),
    ("memreport", ""),
    ("print", "<string>"),
    ("quota", "[set <name> <val>|<domid>|max [-r]|refused <domid>]"),
    ("quota-soft", "[set <name> <val>]"),
    ("help", ""),
];

impl Server {
    pub(super) fn control(
        &mut self,
        strings: Strings<'_>,
        host: &mut dyn Host,
    ) -> Result<Reply<'static>, Denial> {
        let words: Vec<_> = strings.iter().collect();
        let (command, arguments) = words.split_first().ok_or(Error::Einval)?;
        match (*command, arguments) {
            (b"check", []) => {
                if let Err(difference) = self.check() {
                    host.print(&difference);
                }
                Ok(Reply::Done)
            }
            (b"counters", []) => Ok(Reply::Text(host.counters(&self.counts, self.stats()))),
            (b"domains", []) => Ok(self.domains_from(DomId(0))),
            (b"domains", [first]) => Ok(self.domains_from(domain_of(first)?)),
            (b"log", arguments) => self.control_log(arguments),
            (b"live-update", [option, ..]) => Ok(Reply::Text(live_update(option).to_string())),
            (b"memreport", []) => {
                host.print(&self.report());
                Ok(Reply::Done)
            }
            (b"print", [text]) => {
                host.print(&format!("control: {}", String::from_utf8_lossy(text)));
                Ok(Reply::Done)
            }
            (b"quota", arguments) => self.control_quota(arguments),
            (b"quota-soft", []) => Ok(self.settings(&[Quota::SoftMemory])),
            (b"quota-soft", [b"set", b"memory", limit]) => {
                self.set_default(Quota::SoftMemory, limit)
            }
            (b"help", []) => Ok(Reply::Text(help())),
            _ => Err(Error::Einval.into()),
        }
    }

    fn control_log(&mut self, arguments: &[&[u8]]) -> Result<Reply<'static>, Denial> {
        let switches = &mut self.log_switches.0;
        match arguments {
            [] => {
                let mut text = String::from("Log switch settings:\n");
                for (name, on) in SWITCHES.iter().zip(switches) {
                    line(&mut text, format_args!("{name:<8}: {}", if *on { "on" } else { "off" }));
                }
                Ok(Reply::Text(text))
            }
            [b"on" | b"off"] => Ok(Reply::Done),
            [[sign @ (b'+' | b'-'), name @ ..]] => {
                let place = SWITCHES.iter().position(|switch| switch.as_bytes() == name);
                switches[place.ok_or(Error::Einval)?] = *sign == b'+';
                Ok(Reply::Done)
            }
            _ => Err(Error::Einval.into()),
        }
    }

    fn control_quota(&mut self, arguments: &[&[u8]]) -> Result<Reply<'static>, Denial> {
        match arguments {
            [] => Ok(self.settings(&hard())),
            [b"set", name, limit] => {
                let quota = Quota::from_name(name).filter(|quota| *quota != Quota::SoftMemory);
                self.set_default(quota.ok_or(Error::Einval)?, limit)
            }
            [b"max"] => Ok(self.highest()),
            [b"max", b"-r"] => {
                self.store.forget_highest();
                self.audience.connections.forget_highest();
                Ok(self.highest())
            }
            [b"refused", domain] => self.refusals(domain_of(domain)?),
            [b"set" | b"max" | b"refused", ..] => Err(Error::Einval.into()),
            [domain] => self.uses(domain_of(domain)?),
            _ => Err(Error::Einval.into()),
        }
    }

    fn settings(&self, quotas: &[Quota]) -> Reply<'static> {
        let mut text = String::from("Quota settings:\n");
        for &quota in quotas {
            // Both reports know the one memory by the same name.
            let name = if quota == Quota::SoftMemory { "memory" } else { quota.name() };
            let (limit, description) = (self.store.limits.of(quota), quota.description());
            line(&mut text, format_args!("{name:<17}: {limit:>8} {description}"));
        }
        Reply::Text(text)
    }

    fn set_default(&mut self, quota: Quota, limit: &[u8]) -> Result<Reply<'static>, Denial> {
        match u32::try_from(number::leading(limit)) {
            Ok(limit @ 1..) => {
                self.store.limits.set(quota, limit);
                Ok(Reply::Done)
            }
            _ => Err(Error::Einval.into()),
        }
    }

    fn uses(&self, domain: DomId) -> Result<Reply<'static>, Denial> {
        let known = self.store.domains.find(domain).ok_or(Error::Enoent)?;
        let connection = known.conn.and_then(|conn| self.audience.connections.find(conn));
        let outstanding = connection.map_or(0, |connection| connection.outbox.replies());
        let mut text = format!("Domain {domain}:\n");
        for quota in hard() {
            let value = match quota {
                Quota::Nodes => known.usage.nodes,
                Quota::Watches => known.usage.watches,
                Quota::Outstanding => outstanding,
                Quota::Memory => known.usage.memory,
                Quota::Transactions => known.usage.transactions,
                // These bound single requests: nothing is in use between them.
                Quota::SoftMemory
                | Quota::TransactionNodes
                | Quota::NodePermissions
                | Quota::PathMax
                | Quota::NodeSize => 0,
            };
            let name = quota.name();
            let highest = match quota {
                Quota::Outstanding => connection.map_or(0, |conn| conn.outbox.most_replies()),
                _ => known.highest.of(quota) as usize,
            };
            line(&mut text, format_args!("{name:<17}: {value:>8} (max {highest:>8})"));
        }
        Ok(Reply::Text(text))
    }

    fn refusals(&self, domain: DomId) -> Result<Reply<'static>, Denial> {
        let known = self.store.domains.find(domain).ok_or(Error::Enoent)?;
        Ok(marks(format!("Refused to domain {domain}:\n"), &known.refusals()))
    }

    /// Lists what each domain has, a line a domain, from one on and as many as fit into a reply.
    fn domains_from(&self, first: DomId) -> Reply<'static> {
        let mut text = String::from("Domains:\n");
        for domain in self.store.domains.iter().filter(|domain| domain.id >= first) {
            let start = text.len();
            self.state_of(domain, &mut text);
            if text.len() + MORE_LEN > PAYLOAD_MAX {
                text.truncate(start);
                line(&mut text, format_args!("more: domains {}", domain.id));
                break;
            }
        }
        Reply::Text(text)
    }

    fn state_of(&self, domain: &Domain, text: &mut String) {
        let connection = domain.conn.and_then(|conn| self.audience.connections.find(conn));
        let (state, replies, bytes) = match connection {
            None => ("absent", 0, 0),
            Some(conn) if conn.ignored => ("ignored", 0, 0),
            Some(conn) => {
                let state = if conn.stalled { "waiting" } else { "connected" };
                (state, conn.outbox.replies(), conn.outbox.len())
            }
        };
        let (id, usage) = (domain.id.0, &domain.usage);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{id:<5}: {state:<9} nodes {} watches {} transactions {} memory {} replies {replies} \
             bytes {bytes}",
            usage.nodes, usage.watches, usage.transactions, usage.memory
        );
        for quota in Quota::ALL {
            let count = domain.refusals().of(quota);
            if count > 0 {
                let _ = write!(text, " refused {} {count}", quota.name());
            }
        }
        text.push('\n');
    }

    fn highest(&self) -> Reply<'static> {
        let mut highest = self.store.departed;
        for domain in
            self.store.domains.iter().filter(|domain| !self.store.is_privileged(domain.id))
        {
            highest.merge(&domain.highest);
            let connection = domain.conn.and_then(|conn| self.audience.connections.find(conn));
            let most_replies = connection.map_or(0, |conn| conn.outbox.most_replies());
            highest.raise(Quota::Outstanding, most_replies);
        }
        marks(String::from("Max. seen accounting values:\n"), &highest)
    }

    fn report(&self) -> String {
        let (stats, version) = (self.stats(), self.config.version);
        format!(
            "{version}: {} nodes, {} permission lists, {} watches, {} transactions, \
             {} connections, {} domains, {} requests",
            stats.nodes,
            stats.permission_lists,
            stats.watches,
            stats.transactions,
            stats.connections,
            stats.domains,
            stats.requests
        )
    }
}

/// The quotas of the main report, which leaves the soft one to its own.
fn hard() -> Vec<Quota> {
    Quota::ALL.into_iter().filter(|quota| *quota != Quota::SoftMemory).collect()
}

fn marks(mut text: String, marks: &Marks) -> Reply<'static> {
    for quota in hard() {
        let (name, mark) = (quota.name(), marks.of(quota));
        line(&mut text, format_args!("{name:<17}: {mark:>8}"));
    }
    Reply::Text(text)
}

fn help() -> String {
    let mut text = String::new();
    for (command, arguments) in COMMANDS {
        line(&mut text, format_args!("{command:<15} {arguments}"));
    }
    text
}

/// Says that no live update goes on, in the words that the tool passes on: no session was begun,
/// and none can be.
fn live_update(option: &[u8]) -> &'static str {
    match option {
        b"-a" => "No live-update session active.",
        b"-c" | b"-s" | b"-d" => "Not in live-update session.",
        _ => "Live update is not supported.",
    }
}

/// Appends a line; writing to a string cannot fail.
fn line(text: &mut String, what: core::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
    text.push('\n');
}

fn domain_of(text: &[u8]) -> Result<DomId, Denial> {
    let domain = u16::try_from(number::leading(text)).map_err(|_| Error::Enoent)?;
    Ok(DomId(domain))
}
