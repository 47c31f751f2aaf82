//! Who may do what: the operator's rules. What no rule allows is refused.
//!
//! One rule a line; a word that begins with `#` where no filter is expected begins a comment.
//!
//! ```text
//! allow WHO serve NAME               take blocks that are pushed to NAME
//! allow WHO push [DOMAIN/]NAME       push to NAME, in any domain or in that one
//! allow WHO publish FILTER           publish to every topic that FILTER matches
//! allow WHO subscribe FILTER         subscribe to FILTER, or to less
//! allow WHO stream NAME              have a stream with whoever else may have NAME
//! allow WHO echo                     get back what was sent
//! limit WHO channels N               channels at a time
//! limit WHO memory SIZE              bytes for rings and for what waits: 512K, 4M
//! limit WHO subscriptions N          subscriptions at a time
//! ```
//!
//! WHO and DOMAIN are `dom0`, a domain's id, its name, or `*` for any. A name with blanks, or one
//! that looks like an id, stands in double quotes. NAME may end in `*`, for any rest. FILTER has
//! levels separated by `/`; `+` stands for any one level, `#` as the last for any rest, or none.
//! Of several limits for a domain, the first counts.
//!
//! A domain bears a name here only where it is known: see [`Owner::name`].

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;

use xen_sys::ids::DomId;

use crate::frame::{is_filter, is_name};

/// Whose a channel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub domain: DomId,
    /// Its name, where Xenstore lets it be read. Rules that use names hold for no other.
    pub name: Option<Box<str>>,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act<'a> {
    /// Take blocks for this name.
    Serve(&'a str),
    /// Push to this name in this domain.
    Push(&'a Owner, &'a str),
    /// Push to this name in some domain.
    PushAnywhere(&'a str),
    /// Publish to this topic.
    Publish(&'a str),
    /// Subscribe with this filter.
    Subscribe(&'a str),
    /// Have a stream of this name.
    Stream(&'a str),
    /// Get an echo.
    Echo,
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Channels at a time.
    Channels,
    /// Bytes for rings and for what waits.
    Memory,
    /// Subscriptions at a time.
    Subscriptions,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    grants: Vec<(Who, Rc<Grant>)>,
    limits: Vec<(Who, Resource, u64)>,
}

/// The rules that hold for one domain, so that the others need not be looked at.
#[derive(Debug, Default)]
pub struct Rights(Vec<Rc<Grant>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Any,
    Id(DomId),
    Name(Box<str>),
}

#[derive(Debug)]
enum Grant {
    Serve(Pattern),
    Push(Who, Pattern),
    Publish(Box<str>),
    Subscribe(Box<str>),
    Stream(Pattern),
    Echo,
}

/// A name, or the beginning of names.
#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    open: bool,
}

/// A line that is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which, counted from 1.
    pub line: usize,
    /// What should have been there.
    pub expected: Expected,
}

/// What a line lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the sentences are below")]
pub enum Expected {
    Verb,
    Who,
    Right,
    Name,
    Destination,
    Filter,
    Stream,
    Resource,
    Number,
    Size,
    End,
}

impl Policy {
    /// Adds the rules of `text` behind those that there are.
    ///
    /// # Errors
    /// [`Error`] names the first line that is no rule. Nothing was added.
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let mut more = Self::default();
        for (number, line) in text.lines().enumerate() {
            more.add_line(line).map_err(|expected| Error { line: number + 1, expected })?;
        }
        self.grants.append(&mut more.grants);
        self.limits.append(&mut more.limits);
        Ok(())
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.grants.len() + self.limits.len()
    }

    /// Whether nothing is allowed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `owner` may do.
    #[must_use]
    pub fn rights_of(&self, owner: &Owner) -> Rights {
        let own = self.grants.iter().filter(|(who, _)| who.is(owner));
        Rights(own.map(|(_, grant)| Rc::clone(grant)).collect())
    }

    /// The limit for `owner`, if a rule sets one.
    #[must_use]
    pub fn limit(&self, owner: &Owner, resource: Resource) -> Option<u64> {
        let mut fitting =
            self.limits.iter().filter(|(who, what, _)| *what == resource && who.is(owner));
        fitting.next().map(|(_, _, limit)| *limit)
    }

    fn add_line(&mut self, line: &str) -> Result<(), Expected> {
        let mut words = Words(line);
        let Some(verb) = words.next_or_comment() else { return Ok(()) };
        let allow = match verb {
            "allow" => true,
            "limit" => false,
            _ => return Err(Expected::Verb),
        };
        let who = words.next().and_then(Who::parse).ok_or(Expected::Who)?;
        if allow {
            let grant = Grant::parse(&mut words)?;
            self.grants.push((who, Rc::new(grant)));
        } else {
            let (resource, limit) = parse_limit(&mut words)?;
            self.limits.push((who, resource, limit));
        }
        words.next_or_comment().map_or(Ok(()), |_| Err(Expected::End))
    }
}

impl Rights {
    /// Whether there is a right that needs a channel of services.
    #[must_use]
    pub fn any_service(&self) -> bool {
        self.0.iter().any(|grant| !matches!(**grant, Grant::Stream(_) | Grant::Echo))
    }

    /// Whether `act` is allowed.
    #[must_use]
    pub fn allow(&self, act: Act<'_>) -> bool {
        self.0.iter().any(|grant| match (&**grant, act) {
            (Grant::Serve(pattern), Act::Serve(name))
            | (Grant::Stream(pattern), Act::Stream(name))
            | (Grant::Push(_, pattern), Act::PushAnywhere(name)) => pattern.matches(name),
            (Grant::Push(who, pattern), Act::Push(to, name)) => who.is(to) && pattern.matches(name),
            (Grant::Publish(filter), Act::Publish(topic)) => covers(filter, topic),
            (Grant::Subscribe(wide), Act::Subscribe(filter)) => covers(wide, filter),
            (Grant::Echo, Act::Echo) => true,
            _ => false,
        })
    }
}

impl Who {
    fn parse(word: &str) -> Option<Self> {
        if let Some(quoted) = word.strip_prefix('"') {
            let name = quoted.strip_suffix('"')?;
            return if name.is_empty() { None } else { Some(Self::Name(name.into())) };
        }
        match word {
            "*" => Some(Self::Any),
            "dom0" => Some(Self::Id(DomId::DOM0)),
            _ if word.is_empty() || word.contains(['"', '*', '/', '#']) => None,
            _ if word.bytes().all(|byte| byte.is_ascii_digit()) => {
                word.parse().ok().and_then(DomId::new).map(Self::Id)
            }
            _ => Some(Self::Name(word.into())),
        }
    }

    fn is(&self, owner: &Owner) -> bool {
        match self {
            Self::Any => true,
            Self::Id(domain) => *domain == owner.domain,
            Self::Name(name) => owner.name.as_deref() == Some(name),
        }
    }
}

impl Grant {
    fn parse(words: &mut Words<'_>) -> Result<Self, Expected> {
        let right = words.next().ok_or(Expected::Right)?;
        let mut word = |expected| words.next().ok_or(expected);
        let filter =
            |word: &str| if is_filter(word) { Ok(word.into()) } else { Err(Expected::Filter) };
        match right {
            "serve" => Ok(Self::Serve(Pattern::parse(word(Expected::Name)?, Expected::Name)?)),
            "push" => {
                let word = word(Expected::Destination)?;
                let (domain, name) = word.rsplit_once('/').unwrap_or(("*", word));
                let who = Who::parse(domain).ok_or(Expected::Destination)?;
                Ok(Self::Push(who, Pattern::parse(name, Expected::Destination)?))
            }
            "publish" => filter(word(Expected::Filter)?).map(Self::Publish),
            "subscribe" => filter(word(Expected::Filter)?).map(Self::Subscribe),
            "stream" => Ok(Self::Stream(Pattern::of_stream(word(Expected::Stream)?)?)),
            "echo" => Ok(Self::Echo),
            _ => Err(Expected::Right),
        }
    }
}

impl Pattern {
    /// The beginning of a service's name, with `*` behind it, or all of it.
    fn parse(word: &str, expected: Expected) -> Result<Self, Expected> {
        let (text, open) = word.strip_suffix('*').map_or((word, false), |text| (text, true));
        let legal = is_name(text) || (open && text.is_empty());
        if legal { Ok(Self { text: text.into(), open }) } else { Err(expected) }
    }

    /// The same of a stream's name, which is any printable text without a blank.
    fn of_stream(word: &str) -> Result<Self, Expected> {
        let (text, open) = word.strip_suffix('*').map_or((word, false), |text| (text, true));
        let legal = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.starts_with('#');
        if legal { Ok(Self { text: text.into(), open }) } else { Err(Expected::Stream) }
    }

    fn matches(&self, name: &str) -> bool {
        if self.open { name.starts_with(&*self.text) } else { *name == *self.text }
    }
}

/// Whether every topic that `narrow` matches is matched by `wide`. A topic is a filter that
/// matches itself.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('/'), narrow.split('/'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(_), Some("#")) | (None, Some(_)) | (Some(_), None) => return false,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(other)) if level == other => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

fn parse_limit(words: &mut Words<'_>) -> Result<(Resource, u64), Expected> {
    let (resource, expected) = match words.next() {
        Some("channels") => (Resource::Channels, Expected::Number),
        Some("memory") => (Resource::Memory, Expected::Size),
        Some("subscriptions") => (Resource::Subscriptions, Expected::Number),
        _ => return Err(Expected::Resource),
    };
    let word = words.next().ok_or(expected)?;
    let (digits, unit) = match word.as_bytes().last() {
        Some(b'K') if resource == Resource::Memory => (&word[..word.len() - 1], 1 << 10),
        Some(b'M') if resource == Resource::Memory => (&word[..word.len() - 1], 1 << 20),
        _ => (word, 1),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| plain);
    let limit = number.and_then(|number| number.checked_mul(unit)).ok_or(expected)?;
    Ok((resource, limit))
}

/// The words of a line: separated by blanks, except between double quotes.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let line = self.0.trim_start();
        let mut quoted = false;
        let end = line.find(|c: char| {
            quoted ^= c == '"';
            c.is_whitespace() && !quoted
        });
        let (word, rest) = line.split_at(end.unwrap_or(line.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// The next word, unless a comment begins there.
    fn next_or_comment(&mut self) -> Option<&'a str> {
        self.next().filter(|word| !word.starts_with('#'))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verb => "a rule begins with `allow` or `limit`",
            Self::Who => "then comes who: `dom0`, a domain's id, its name, or `*`",
            Self::Right => "then comes `serve`, `push`, `publish`, `subscribe`, `stream` or `echo`",
            Self::Name => "here belongs a service's name, which may end in `*`",
            Self::Destination => "here belongs NAME or DOMAIN/NAME, where NAME may end in `*`",
            Self::Filter => {
                "here belongs a filter: levels separated by `/`, `+` for any one, `#` at the end"
            }
            Self::Stream => "here belongs a stream's name, which may end in `*`",
            Self::Resource => "then comes `channels`, `memory` or `subscriptions`",
            Self::Number => "here belongs a number",
            Self::Size => "here belongs a size in bytes, such as 65536, 512K or 4M",
            Self::End => "the rule is complete; a comment begins with `#`",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.expected)
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests;
