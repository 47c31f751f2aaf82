//! How a guest asks for a channel, and where it finds the answer.
//!
//! In its own home the domain of the channels keeps a directory in which anybody may create nodes,
//! `data/ask`. Xenstore makes whoever creates a node its owner, so the node tells who asks. Its
//! name is the channel's, and if it begins with a number and `-`, it is for the domain of that number.
//! Its value says what for:
//!
//! ```text
//! services                        blocks and topics, as the frames of this crate
//! echo                            every byte comes back
//! stream APPLICATION              every byte goes to the other who asks for the same
//! services left=12 right=20       rings of 4 KiB to here and 1 MiB back; 64 KiB each if not said
//! stream APPLICATION once         ends with its first client; others wait for the next
//! ```
//!
//! The answer is below `data/vchan/DOMAIN/NAME`, readable by that domain alone: `ring-ref` and
//! `event-channel` as a libxenvchan server writes them, or `error` with one sentence. A stock
//! client puts that path into 64 bytes together with `/event-channel`, so names are short.

use core::fmt;
use core::str::FromStr;

use crate::vchan::{Order, Sizes};

/// The directory of requests, relative to the home of the domain that has the channels.
pub const ASK: &str = "data/ask";

/// The directory of answers, relative to the same.
pub const ANSWER: &str = "data/vchan";

/// What a channel is called by who asks for it: 1 to 12 letters, digits, `-` or `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelName(heapless::String<{ Self::MAX }>);

impl ChannelName {
    /// The longest: with it and two domain ids of five digits a path has the 49 bytes that
    /// libxenvchan can take.
    pub const MAX: usize = 12;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChannelName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let name = heapless::String::try_from(text).map_err(|_| Malformed::Name)?;
        if name.is_empty() || !name.bytes().all(legal) {
            Err(Malformed::Name)
        } else {
            Ok(Self(name))
        }
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of an application that serves blocks, or of a stream: 1 to 64 printable characters of
/// ASCII, no blank among them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Application(heapless::String<{ Self::MAX }>);

impl Application {
    /// The most bytes.
    pub const MAX: usize = 64;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Application {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let name = heapless::String::try_from(text).map_err(|_| Malformed::Application)?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Malformed::Application);
        }
        Ok(Self(name))
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a channel is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Blocks and topics, as frames.
    Services,
    /// Every byte comes back.
    Echo,
    /// Every byte goes to the other channel of that name.
    Stream(Application),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services => f.write_str("services"),
            Self::Echo => f.write_str("echo"),
            Self::Stream(application) => write!(f, "stream {application}"),
        }
    }
}

/// The value of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What for.
    pub kind: Kind,
    /// How large the rings shall be.
    pub sizes: Sizes,
    /// Whether the channel ends with its first client, and waits for no other.
    pub once: bool,
}

impl FromStr for Ask {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut words = text.split_ascii_whitespace();
        let kind = match words.next() {
            Some("services") => Kind::Services,
            Some("echo") => Kind::Echo,
            Some("stream") => Kind::Stream(words.next().unwrap_or_default().parse()?),
            _ => return Err(Malformed::Kind),
        };
        let (mut left, mut right) = (Order::DEFAULT, Order::DEFAULT);
        // Each connection has services of its own.
        let mut once = kind == Kind::Services;
        for word in words {
            if word == "once" {
                once = true;
                continue;
            }
            let (ring, order) = word.split_once('=').ok_or(Malformed::Word)?;
            let order = order.parse().ok().and_then(Order::new).ok_or(Malformed::Order)?;
            match ring {
                "left" => left = order,
                "right" => right = order,
                _ => return Err(Malformed::Word),
            }
        }
        Ok(Self { kind, sizes: Sizes::new(left, right).ok_or(Malformed::Sizes)?, once })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} left={} right={}", self.kind, self.sizes.left(), self.sizes.right())?;
        if self.once && self.kind != Kind::Services { f.write_str(" once") } else { Ok(()) }
    }
}

/// Why a request cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A channel cannot have that name.
    Name,
    /// An application cannot have that name.
    Application,
    /// It begins with nothing that there is.
    Kind,
    /// Neither `left=`, `right=` nor `once`.
    Word,
    /// No ring has that order.
    Order,
    /// The two rings have no room beside each other.
    Sizes,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a channel's name is 1 to 12 letters, digits, '-' or '_'",
            Self::Application => "an application's name is 1 to 64 printable characters, no blank",
            Self::Kind => "a channel is for `services`, `echo` or `stream APPLICATION`",
            Self::Word => {
                "after what it is for come left=ORDER, right=ORDER and once, nothing else"
            }
            Self::Order => "the order of a ring is a number from 10 (1 KiB) to 20 (1 MiB)",
            Self::Sizes => "rings of these two orders have no room beside each other",
        })
    }
}

impl core::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(left: u16, right: u16) -> Sizes {
        Sizes::new(Order::new(left).unwrap(), Order::new(right).unwrap()).unwrap()
    }

    #[test]
    fn a_request_says_what_for_and_how_large() {
        let ask = |text: &str| text.parse::<Ask>().unwrap();
        assert_eq!(ask("echo"), Ask { kind: Kind::Echo, sizes: sizes(16, 16), once: false });
        assert_eq!(
            ask("services right=20"),
            Ask { kind: Kind::Services, sizes: sizes(16, 20), once: true }
        );
        let stream = Kind::Stream("video".parse().unwrap());
        assert_eq!(
            ask("stream video left=10 right=11\n"),
            Ask { kind: stream, sizes: sizes(10, 11), once: false }
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "services left=16 right=16",
            "stream a/b left=20 right=12 once",
            "echo left=11 right=10",
        ] {
            assert_eq!(text.parse::<Ask>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_told_apart() {
        for (text, why) in [
            ("", Malformed::Kind),
            ("shout", Malformed::Kind),
            ("stream", Malformed::Application),
            ("echo twice", Malformed::Word),
            ("echo up=12", Malformed::Word),
            ("echo left=", Malformed::Order),
            ("echo left=9", Malformed::Order),
            ("echo left=99999999999", Malformed::Order),
            ("echo left=10 right=10", Malformed::Sizes),
        ] {
            assert_eq!(text.parse::<Ask>(), Err(why), "{text:?}");
        }
        assert_eq!(
            format!("stream {}", "x".repeat(65)).parse::<Ask>(),
            Err(Malformed::Application)
        );
    }

    #[test]
    fn the_longest_path_is_one_that_a_stock_client_takes() {
        let name: ChannelName = "twelve-bytes".parse().unwrap();
        assert_eq!(format!("/local/domain/32751/{ANSWER}/32751/{name}").len(), 49);
        for wrong in ["", "thirteen-byte", "a/b", "a b", "a.b", "\u{e9}"] {
            assert_eq!(wrong.parse::<ChannelName>(), Err(Malformed::Name), "{wrong:?}");
        }
    }
}
