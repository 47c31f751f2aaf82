//! Laws of the parsers, which hold for any bytes: for this crate's tests and for fuzzers.
//!
//! Built for tests and under `--cfg fuzzing` only. A law that does not hold panics.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::host::DomId;
use crate::operation::{Edit, Look, PathOp};
use crate::path::{Name, Namer, Path, Place, WatchPath};
use crate::perms::Spelled;
use crate::quota::{Denial, Limits};
use crate::request::{Client, Request};
use crate::wire::{Features, Op, PAYLOAD_MAX};

const HOME: &[u8] = b"/local/domain/7/";

/// A client that is bound by the usual limits.
const GUEST: Client<'_> = Client {
    namer: Namer { home: HOME, limits: Some(&Limits::DEFAULT) },
    features: Features::all(),
};

/// One that no limit binds, and that has not got the feature.
const TOOLSTACK: Client<'_> = Client {
    namer: Namer { home: b"/local/domain/0/", limits: None },
    features: Features::empty(),
};

/// What is understood can be said in one canonical way, and is understood the same again.
///
/// # Panics
/// If it is not.
pub fn hold_of_request(kind: u32, payload: &[u8]) {
    let Some(op) = Op::from_wire(kind) else { return };
    let payload = &payload[..payload.len().min(PAYLOAD_MAX)];
    for client in [GUEST, TOOLSTACK] {
        let (mut scratch, mut again) = (Vec::new(), Vec::new());
        let Ok(request) = Request::parse(op, payload, client, &mut scratch) else { continue };
        let Some(said) = spell(&request) else { continue };
        let heard = Request::parse(op, &said, client, &mut again);
        let heard = heard.as_ref().ok().and_then(spell);
        assert_eq!(
            heard.as_deref().map(|heard| heard.escape_ascii().to_string()),
            Some(said.escape_ascii().to_string()),
            "{op:?} {request:?} is understood otherwise when it is said canonically"
        );
    }
}

/// Both spellings of a path are one path, and its parts are what the slashes say.
///
/// # Panics
/// If they are not.
pub fn hold_of_path(raw: &[u8]) {
    let mut scratch = Vec::new();
    let Ok(place) = GUEST.namer.place(raw, Some(&mut scratch)) else {
        // What is refused as an ordinary path is refused as one to watch.
        if raw.first() == Some(&b'@') {
            assert!(watched(raw).is_err(), "{}", raw.escape_ascii());
        }
        return;
    };
    let watch = watched(raw);
    let Place::Node(path) = place else {
        assert_eq!(watch.as_deref(), Ok(place.as_bytes()), "a special name to watch is itself");
        return;
    };
    let bytes = path.as_bytes();
    let shown = bytes.escape_ascii();
    assert_eq!(path.judge().is_ok(), is_path(bytes), "{shown}: is it a path?");
    assert_eq!(watch.ok(), path.judge().ok().map(|()| bytes.to_vec()), "{shown}: a path to watch");
    let absolute = Vec::from(bytes);
    let mut unused = Vec::new();
    let again = GUEST.namer.node(&absolute, Some(&mut unused)).map(Path::as_bytes);
    assert_eq!(again, Ok(&absolute[..]), "{shown} said absolutely");
    hold_of_names(Path::trusted(&absolute));
}

/// The names of a path, by all the ways to come by them.
fn hold_of_names(path: Path<'_>) {
    let shown = path.as_bytes().escape_ascii();
    let split: Vec<&[u8]> = match path.as_bytes() {
        b"/" => Vec::new(),
        bytes => bytes[1..].split(|&byte| byte == b'/').collect(),
    };
    let names: Vec<Name<'_>> = path.names().collect();
    let naive: Vec<Name<'_>> = split.iter().map(|name| Name::new(name)).collect();
    assert_eq!(names, naive, "{shown}: the names");
    assert_eq!(path.depth(), split.len(), "{shown}: how many names");
    if path.judge().is_err() {
        return;
    }
    assert_eq!(path.last(), names.last().copied(), "{shown}: the last name");
    for (name, bytes) in names.iter().zip(&split) {
        let mut spelled = Vec::new();
        name.key.extend(&mut spelled);
        spelled.extend_from_slice(name.tail);
        assert_eq!((&spelled[..], name.len()), (*bytes, bytes.len()), "{shown}: a name");
    }
    for pair in names.windows(2).zip(split.windows(2)) {
        let ([one, other], [left, right]) = pair else { continue };
        let order = one.key.cmp(&other.key).then_with(|| one.tail.cmp(other.tail));
        assert_eq!(order, left.cmp(right), "{shown}: the order of two names");
    }
    let mut above = path;
    for (level, name) in names.iter().enumerate().rev().take(20) {
        assert_eq!((above.depth(), above.last()), (level + 1, Some(*name)), "{shown}: ancestors");
        above = above.ancestor(1);
        assert_eq!(path.ancestor(names.len() - level), above, "{shown}: one by one or at once");
    }
}

/// Whether bytes are a path, as docs/misc/xenstore.txt has it, character by character.
fn is_path(bytes: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
    let slashes_part_names =
        bytes == b"/" || bytes[1..].split(|&byte| byte == b'/').all(|name| !name.is_empty());
    bytes.first() == Some(&b'/') && bytes.iter().all(legal) && slashes_part_names
}

/// A request as a client says it that knows only one way to; `None` for one whose path is bad.
fn spell(request: &Request<'_>) -> Option<Vec<u8>> {
    let said = match request {
        Request::Path(PathOp::Look(Look::Part(path, from))) => {
            strings(&[place_of(Place::Node(*path))?, from.to_string().as_bytes()])
        }
        // Parsing leaves this to who knows the domains.
        Request::Path(PathOp::Edit(Edit::Perms(..))) => unreachable!("parsed as SET_PERMS"),
        Request::Path(PathOp::Edit(Edit::Write(path, value))) => {
            [&strings(&[place_of(Place::Node(*path))?]), *value].concat()
        }
        Request::Path(op) => strings(&[place_of(op.place())?]),
        Request::SetPerms { place, perms } => {
            let place = place.as_ref().ok().and_then(|place| place_of(*place))?;
            let mut said = strings(&[place]);
            perms.iter().for_each(|perm| said.extend(strings(&[&spelled(*perm)])));
            said
        }
        Request::Watch { path, token, depth: None } | Request::Unwatch { path, token } => {
            strings(&[own(*path), token])
        }
        Request::Watch { path, token, depth: Some(depth) } => {
            strings(&[own(*path), token, depth.to_string().as_bytes()])
        }
        Request::ResetWatches | Request::TransactionStart => Vec::new(),
        Request::TransactionEnd { commit } => strings(&[if *commit { b"T" } else { b"F" }]),
        Request::Introduce { domain, gfn, port } => {
            strings(&[&number(*domain), gfn.to_string().as_bytes(), port.to_string().as_bytes()])
        }
        Request::Release(domain)
        | Request::Resume(domain)
        | Request::GetDomainPath(domain)
        | Request::IsDomainIntroduced(domain) => strings(&[&number(*domain)]),
        Request::SetTarget { domain, target } => strings(&[&number(*domain), &number(*target)]),
        Request::GetFeature(domain) => domain.map_or(Vec::new(), |id| strings(&[&number(id)])),
        Request::SetFeature { domain, features } => {
            strings(&[&number(*domain), features.to_string().as_bytes()])
        }
        Request::GetQuota { domain, name } => {
            let domain = domain.map_or(Vec::new(), |id| strings(&[&number(id)]));
            [domain, name.map_or(Vec::new(), |name| strings(&[name]))].concat()
        }
        Request::SetQuota { domain, name, limit } => {
            let domain = domain.map_or(Vec::new(), |id| strings(&[&number(id)]));
            [domain, strings(&[name, limit.to_string().as_bytes()])].concat()
        }
        Request::Control(words) => strings(&words.iter().collect::<Vec<_>>()),
    };
    Some(said)
}

fn place_of(place: Place<'_>) -> Option<&[u8]> {
    if let Place::Node(path) = place {
        path.judge().ok()?;
    }
    Some(place.as_bytes())
}

/// A path to watch as its owner says it: events depend on how that was.
/// Returns the path to watch that bytes spell.
fn watched(raw: &[u8]) -> Result<Vec<u8>, Denial> {
    let mut scratch = Vec::new();
    let path = GUEST.namer.complete(raw, &mut scratch)?;
    path.judge().map(|()| path.full.to_vec())
}

fn own(path: WatchPath<'_>) -> &[u8] {
    &path.full[path.implied.into()..]
}

fn spelled(perm: Spelled) -> Vec<u8> {
    let letter = char::from(perm.access.letter());
    format!("{letter}{}", perm.domain).into_bytes()
}

fn number(domain: DomId) -> Vec<u8> {
    String::into_bytes(domain.to_string())
}

fn strings(each: &[&[u8]]) -> Vec<u8> {
    each.iter().flat_map(|string| string.iter().copied().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Pieces of payloads, to get past the first checks.
    const PIECES: [&[u8]; 24] = [
        b"\0",
        b"/",
        b"@",
        b"a",
        b"-",
        b"_",
        b"/a",
        b"/abcdefg",
        b"abcdefgh/",
        b"data",
        b"T\0",
        b"F\0",
        b"0",
        b"1",
        b"-1",
        b" 7",
        b"0x1f",
        b"99999",
        b"n",
        b"b",
        b"nodes",
        b"@releaseDomain",
        b"/local/domain/1/",
        b"\xff",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn requests_keep_their_laws(kind in 0_u32..28, pieces in vec(select(&PIECES[..]), 0..12), more in vec(any::<u8>(), 0..4)) {
            let payload = [pieces.concat(), more].concat();
            hold_of_request(kind, &payload);
            hold_of_path(&payload);
        }
    }

    #[test]
    fn a_limit_is_the_same_for_both_spellings() {
        for len in 2030..2060 {
            let name = "x".repeat(len);
            let relative = GUEST.namer.node(name.as_bytes(), Some(&mut Vec::new())).is_ok();
            let absolute = [HOME, name.as_bytes()].concat();
            assert_eq!(GUEST.namer.node(&absolute, None).is_ok(), relative, "{len} bytes");
        }
    }
}
