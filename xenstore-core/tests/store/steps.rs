//! What can happen in a random conversation.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

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

/// Names that only have permissions, and only two of them.
const SPECIALS: [&str; 3] = ["@introduceDomain", "@releaseDomain", "@other"];

/// What can be watched besides nodes.
const NEWS: [&str; 4] =
    ["@introduceDomain", "@releaseDomain", "@introduceDomain/2", "@releaseDomain/1"];

/// A few of them, where domains 0 and 1 may do nearly everything.
const SHARED: [&str; 4] = [
    "/local/domain/1/data",
    "/local/domain/1/data/k",
    "/local/domain/1/data/k/l",
    "/local/domain/1/data/m",
];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// An operation in one of the caller's open transactions, or in none if there are not so many.
    Do {
        by: u16,
        within: usize,
        at: &'static str,
        deed: Deed,
    },
    Watch {
        by: u16,
        at: &'static str,
        token: &'static str,
        depth: Option<u8>,
    },
    Unwatch {
        by: u16,
        at: &'static str,
        token: &'static str,
    },
    ResetWatches {
        by: u16,
    },
    Start {
        by: u16,
    },
    End {
        by: u16,
        within: usize,
        commit: bool,
    },
    /// A guest lets its events wait, and does nothing else meanwhile.
    Pause {
        guest: u16,
    },
    Resume {
        guest: u16,
    },
    /// What becomes of a guest.
    Live {
        guest: u16,
        event: Life,
    },
    /// The toolstack gives one domain the rights of another.
    Target {
        of: u16,
        target: u16,
    },
    Features {
        of: u16,
        features: u32,
    },
    Limit {
        of: u16,
        quota: Quota,
        limit: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    /// Xen makes a domain, and the toolstack all that it needs.
    Born,
    /// Xen makes a domain.
    Created,
    Introduced,
    Released,
    Destroyed,
    /// Another domain has its number.
    Replaced,
    ShutDown,
    Resumed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Quota {
    Nodes,
    Watches,
    Transactions,
    TransactionNodes,
    NodePermissions,
    NodeSize,
}

impl Quota {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Watches => "watches",
            Self::Transactions => "transactions",
            Self::TransactionNodes => "transaction-nodes",
            Self::NodePermissions => "node-permissions",
            Self::NodeSize => "node-size",
        }
    }
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

fn entries() -> impl Strategy<Value = Vec<(char, u16)>> {
    let domain = prop_oneof![
        20 => 0_u16..4,
        3 => Just(NOBODY),
        2 => Just(crate::reference::EVERYBODY.0),
    ];
    vec((select(&['n', 'r', 'w', 'b'][..]), domain), 1..4)
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => Just(Deed::Read),
        2 => Just(Deed::Directory),
        1 => Just(Deed::GetPerms),
        4 => (0_u8..3).prop_map(Deed::Write),
        2 => Just(Deed::Mkdir),
        2 => Just(Deed::Rm),
        3 => entries().prop_map(Deed::SetPerms),
    ]
}

/// What is done to the permissions of a special name.
fn announcements() -> impl Strategy<Value = Step> {
    let deed = prop_oneof![Just(Deed::GetPerms), entries().prop_map(Deed::SetPerms)];
    (0_u16..4, 0..3_usize, select(&SPECIALS[..]), deed)
        .prop_map(|(by, within, at, deed)| Step::Do { by, within, at, deed })
}

fn lives() -> impl Strategy<Value = Step> {
    let event = prop_oneof![
        4 => Just(Life::Born),
        1 => Just(Life::Created),
        2 => Just(Life::Introduced),
        1 => Just(Life::Released),
        2 => Just(Life::Destroyed),
        1 => Just(Life::Replaced),
        1 => Just(Life::ShutDown),
        1 => Just(Life::Resumed),
    ];
    (select(&GUESTS[..]), event).prop_map(|(guest, event)| Step::Live { guest, event })
}

fn settings() -> impl Strategy<Value = Step> {
    let quota = select(
        &[
            (Quota::Nodes, 4),
            (Quota::Nodes, 2),
            (Quota::Watches, 2),
            (Quota::Transactions, 1),
            (Quota::TransactionNodes, 2),
            (Quota::NodePermissions, 1),
            (Quota::NodeSize, 30),
        ][..],
    );
    let limit = (0_u16..4, quota, any::<bool>()).prop_map(|(of, (quota, limit), is_set)| {
        Step::Limit { of, quota, limit: if is_set { limit } else { 0 } }
    });
    prop_oneof![
        3 => limit,
        1 => (0_u16..4, 0_u16..4).prop_map(|(of, target)| Step::Target { of, target }),
        1 => (0_u16..4, 0_u32..17).prop_map(|(of, features)| Step::Features { of, features }),
    ]
}

/// Everything that can happen, everywhere.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let by = || 0_u16..4;
    let within = || 0..3_usize;
    let guest = || select(&GUESTS[..]);
    let at = || select(&PLACES[..]);
    let watched = || prop_oneof![6 => at(), 1 => select(&NEWS[..])];
    let token = || prop_oneof![Just("t"), Just("")];
    let depth = prop_oneof![3 => Just(None), 1 => (0_u8..3).prop_map(Some)];
    let deed = (by(), within(), at(), deeds());
    let watch = (by(), watched(), token(), depth);
    let step = prop_oneof![
        40 => deed.prop_map(|(by, within, at, deed)| Step::Do { by, within, at, deed }),
        2 => announcements(),
        8 => watch.prop_map(|(by, at, token, depth)| Step::Watch { by, at, token, depth }),
        2 => (by(), watched(), token()).prop_map(|(by, at, token)| Step::Unwatch { by, at, token }),
        1 => by().prop_map(|by| Step::ResetWatches { by }),
        6 => by().prop_map(|by| Step::Start { by }),
        6 => (by(), within(), prop::bool::weighted(0.9))
            .prop_map(|(by, within, commit)| Step::End { by, within, commit }),
        2 => guest().prop_map(|guest| Step::Pause { guest }),
        2 => guest().prop_map(|guest| Step::Resume { guest }),
        4 => lives(),
        3 => settings(),
    ];
    vec(step, 1..60)
}

/// Two who get into each other's way: nearly all of it in transactions, in few places.
pub(crate) fn conflicts() -> impl Strategy<Value = Vec<Step>> {
    let by = || 0_u16..2;
    let at = || select(&SHARED[..]);
    let step = prop_oneof![
        20 => (by(), 0..3_usize, at(), deeds())
            .prop_map(|(by, within, at, deed)| Step::Do { by, within, at, deed }),
        1 => (by(), at()).prop_map(|(by, at)| Step::Watch { by, at, token: "t", depth: None }),
        6 => by().prop_map(|by| Step::Start { by }),
        5 => (by(), 0..2_usize).prop_map(|(by, within)| Step::End { by, within, commit: true }),
    ];
    vec(step, 1..100)
}
