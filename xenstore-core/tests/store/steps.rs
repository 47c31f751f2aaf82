//! What can happen in a random conversation.

use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) const GUESTS: [u16; 3] = [1, 2, 3];
/// A domain that never comes to be.
const NOBODY: u16 = 9;

/// Places where the domains meet.
const PLACES: [&str; 14] = [
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/a/b-c",
    "/x/y",
    "/tool",
    "data",
    "data/k",
    "data/k/l",
    "data/m",
    "/local/domain/1/data",
    "/local/domain/1/data/k",
    "/local/domain/2",
];

/// A few of them, where domains 0 and 1 may do nearly everything.
const SHARED: [&str; 4] = [
    "/local/domain/1/data",
    "/local/domain/1/data/k",
    "/local/domain/1/data/k/l",
    "/local/domain/1/data/m",
];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// An operation, in the caller's transaction if it has one open.
    Do {
        by: u16,
        at: &'static str,
        deed: Deed,
    },
    Watch {
        by: u16,
        at: &'static str,
        token: &'static str,
    },
    Unwatch {
        by: u16,
        at: &'static str,
        token: &'static str,
    },
    Start {
        by: u16,
    },
    End {
        by: u16,
        commit: bool,
    },
    /// A guest lets its events wait, and does nothing else meanwhile.
    Pause {
        guest: u16,
    },
    Resume {
        guest: u16,
    },
    /// A guest dies, and another gets its number.
    Die {
        guest: u16,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Read,
    Directory,
    GetPerms,
    Write(u8),
    Mkdir,
    Rm,
    SetPerms(Vec<(char, u16)>),
}

fn deeds() -> impl Strategy<Value = Deed> {
    let domain = prop_oneof![4 => 0_u16..4, 1 => Just(NOBODY)];
    let entry = (proptest::sample::select(&['n', 'r', 'w', 'b'][..]), domain);
    prop_oneof![
        3 => Just(Deed::Read),
        2 => Just(Deed::Directory),
        1 => Just(Deed::GetPerms),
        4 => (0_u8..3).prop_map(Deed::Write),
        2 => Just(Deed::Mkdir),
        2 => Just(Deed::Rm),
        3 => vec(entry, 1..4).prop_map(Deed::SetPerms),
    ]
}

/// Everything that can happen, everywhere.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let by = || 0_u16..4;
    let guest = || proptest::sample::select(&GUESTS[..]);
    let at = || proptest::sample::select(&PLACES[..]);
    let token = || prop_oneof![Just("t"), Just("")];
    let step = prop_oneof![
        20 => (by(), at(), deeds()).prop_map(|(by, at, deed)| Step::Do { by, at, deed }),
        4 => (by(), at(), token()).prop_map(|(by, at, token)| Step::Watch { by, at, token }),
        1 => (by(), at(), token()).prop_map(|(by, at, token)| Step::Unwatch { by, at, token }),
        3 => by().prop_map(|by| Step::Start { by }),
        3 => (by(), prop::bool::weighted(0.9)).prop_map(|(by, commit)| Step::End { by, commit }),
        1 => guest().prop_map(|guest| Step::Pause { guest }),
        1 => guest().prop_map(|guest| Step::Resume { guest }),
        1 => guest().prop_map(|guest| Step::Die { guest }),
    ];
    vec(step, 1..60)
}

/// Two who get into each other's way: nearly all of it in transactions, in few places.
pub(crate) fn conflicts() -> impl Strategy<Value = Vec<Step>> {
    let by = || 0_u16..2;
    let at = || proptest::sample::select(&SHARED[..]);
    let step = prop_oneof![
        20 => (by(), at(), deeds()).prop_map(|(by, at, deed)| Step::Do { by, at, deed }),
        1 => (by(), at()).prop_map(|(by, at)| Step::Watch { by, at, token: "t" }),
        6 => by().prop_map(|by| Step::Start { by }),
        5 => by().prop_map(|by| Step::End { by, commit: true }),
    ];
    vec(step, 1..100)
}
