//! Requests: payloads parsed once into what they ask for, and the rules of who may ask it.

use alloc::vec::Vec;
use core::iter;

use crate::host::DomId;
use crate::number;
use crate::operation::{Edit, Look, PathOp};
use crate::path::{Namer, Place, WatchPath, find_nul};
use crate::perms::Spelled;
use crate::quota::{Denial, Quota};
use crate::wire::{Error, Features, Op};

/// What holds of a message type before its payload is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) op: Op,
    pub(crate) caller: CallerRule,
    pub(crate) transaction: TransactionRule,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallerRule {
    Anyone,
    Privileged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionRule {
    /// A transaction that is named must be open, even where the request is not part of it.
    Checked,
    Ignored,
}

/// The ways of requests through the server; the first two are most of all requests, and short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A [`Look`].
    Look,
    /// An [`Edit`] that its payload tells alone.
    Edit,
    Other,
}

impl Rules {
    /// The rules of every message type by its number; `None` where no client may send it.
    const ALL: [Option<Self>; Op::ALL.len()] = {
        let mut table = [None; Op::ALL.len()];
        let mut number = 0;
        while number < table.len() {
            table[number] = Self::decide(Op::ALL[number]);
            number += 1;
        }
        table
    };

    /// Returns the rules of the message type with that number, if a client may send it.
    #[inline]
    pub(crate) fn of(number: u32) -> Option<Self> {
        *Self::ALL.get(usize::try_from(number).ok()?)?
    }

    /// Every type stands here, so that a new one does not compile before somebody decides.
    const fn decide(op: Op) -> Option<Self> {
        let kind = match op {
            Op::Directory | Op::Read | Op::GetPerms | Op::DirectoryPart => Kind::Look,
            Op::Write | Op::Mkdir | Op::Rm => Kind::Edit,
            _ => Kind::Other,
        };
        let (caller, transaction) = match op {
            Op::Directory
            | Op::Read
            | Op::GetPerms
            | Op::TransactionStart
            | Op::TransactionEnd
            | Op::GetDomainPath
            | Op::Write
            | Op::Mkdir
            | Op::Rm
            | Op::SetPerms
            | Op::ResetWatches
            | Op::DirectoryPart
            | Op::GetFeature => (CallerRule::Anyone, TransactionRule::Checked),
            Op::Watch | Op::Unwatch => (CallerRule::Anyone, TransactionRule::Ignored),
            Op::Control
            | Op::Introduce
            | Op::Release
            | Op::IsDomainIntroduced
            | Op::Resume
            | Op::SetTarget
            | Op::SetFeature
            | Op::GetQuota
            | Op::SetQuota => (CallerRule::Privileged, TransactionRule::Checked),
            Op::WatchEvent | Op::Error | Op::Restrict => return None,
        };
        Some(Self { op, caller, transaction, kind })
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request<'a> {
    Path(PathOp<'a>),
    /// An edit, once its permissions are known to name living domains. A bad path is reported
    /// only after they were judged, as clients know it.
    SetPerms {
        place: Result<Place<'a>, Denial>,
        perms: Vec<Spelled>,
    },
    Watch {
        path: WatchPath<'a>,
        token: &'a [u8],
        depth: Option<u32>,
    },
    /// Its path is only judged if nothing is watched there: what is watched is well-formed.
    Unwatch {
        path: WatchPath<'a>,
        token: &'a [u8],
    },
    ResetWatches,
    TransactionStart,
    TransactionEnd {
        commit: bool,
    },
    Introduce {
        domain: DomId,
        gfn: u64,
        port: u32,
    },
    Release(DomId),
    Resume(DomId),
    GetDomainPath(DomId),
    IsDomainIntroduced(DomId),
    SetTarget {
        domain: DomId,
        target: DomId,
    },
    GetFeature(Option<DomId>),
    SetFeature {
        domain: DomId,
        features: i32,
    },
    /// Without a name, the names.
    GetQuota {
        domain: Option<DomId>,
        name: Option<&'a [u8]>,
    },
    SetQuota {
        domain: Option<DomId>,
        name: &'a [u8],
        limit: i32,
    },
    Control(Strings<'a>),
}

/// What parsing must know of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client<'h> {
    pub(crate) namer: Namer<'h>,
    /// What is offered to it.
    pub(crate) features: Features,
}

impl<'a> Request<'a> {
    /// Parses a payload; `scratch` holds its path where that was relative.
    ///
    /// # Errors
    /// [`Error::Einval`] for a malformed payload, and what the quotas on paths and permissions say.
    pub(crate) fn parse(
        op: Op,
        payload: &'a [u8],
        client: Client<'_>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Self, Denial> {
        let strings = || Strings::of(payload);
        match op {
            Op::Read | Op::Directory | Op::DirectoryPart | Op::GetPerms => {
                let look = Look::parse(op, payload, client.namer, Some(scratch))?;
                Ok(Self::Path(PathOp::Look(look)))
            }
            Op::Write | Op::Mkdir | Op::Rm => {
                let edit = Edit::parse(op, payload, client.namer, scratch)?;
                Ok(Self::Path(PathOp::Edit(edit)))
            }
            Op::SetPerms => client.set_perms(strings(), scratch),
            Op::Watch => client.watch(strings(), scratch),
            Op::Unwatch => {
                let [path, token] = strings().exactly()?;
                Ok(Self::Unwatch { path: client.namer.complete(path, scratch)?, token })
            }
            Op::ResetWatches => Ok(Self::ResetWatches),
            Op::TransactionStart => Ok(Self::TransactionStart),
            Op::TransactionEnd => match only(payload)? {
                b"T" => Ok(Self::TransactionEnd { commit: true }),
                b"F" => Ok(Self::TransactionEnd { commit: false }),
                _ => Err(Error::Einval.into()),
            },
            Op::Introduce => introduce(strings()),
            Op::Release => Ok(Self::Release(domain(only(payload)?)?)),
            Op::Resume => Ok(Self::Resume(domain(only(payload)?)?)),
            Op::GetDomainPath => Ok(Self::GetDomainPath(domain(only(payload)?)?)),
            Op::IsDomainIntroduced => Ok(Self::IsDomainIntroduced(domain(only(payload)?)?)),
            Op::SetTarget => {
                let [of, target] = strings().at_least()?;
                Ok(Self::SetTarget { domain: domain(of)?, target: domain(target)? })
            }
            Op::GetFeature | Op::SetFeature | Op::GetQuota | Op::SetQuota => setting(op, strings()),
            Op::Control if payload.contains(&0) => Ok(Self::Control(strings())),
            Op::Control => Err(Error::Einval.into()),
            Op::WatchEvent | Op::Error | Op::Restrict => Err(Error::Enosys.into()),
        }
    }
}

impl<'a> Look<'a> {
    /// Parses the payload of a message that only looks; `scratch` holds its path where that was
    /// relative, and is only needed if the path is to be kept.
    ///
    /// # Errors
    /// As [`Request::parse`].
    #[inline]
    pub(crate) fn parse(
        op: Op,
        payload: &'a [u8],
        namer: Namer<'_>,
        scratch: Option<&'a mut Vec<u8>>,
    ) -> Result<Self, Denial> {
        match op {
            Op::Directory => Ok(Self::Names(namer.node(path_of(payload)?, scratch)?)),
            Op::DirectoryPart => {
                let [path, offset] = Strings::of(payload).exactly()?;
                Ok(Self::Part(namer.node(path, scratch)?, number::leading(offset)))
            }
            Op::GetPerms => Ok(Self::Perms(namer.place(only(payload)?, scratch)?)),
            _ => Ok(Self::Value(namer.node(path_of(payload)?, scratch)?)),
        }
    }
}

impl<'a> Edit<'a> {
    /// Parses the payload of a message that edits; `scratch` holds its path where that was
    /// relative.
    ///
    /// # Errors
    /// As [`Request::parse`].
    #[inline]
    pub(crate) fn parse(
        op: Op,
        payload: &'a [u8],
        namer: Namer<'_>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Self, Denial> {
        if op == Op::Write {
            let end = find_nul(payload).ok_or(Error::Einval)?;
            let (path, value) = (&payload[..end], &payload[end + 1..]);
            return Ok(Self::Write(namer.node(path, Some(scratch))?, value));
        }
        let path = namer.node(path_of(payload)?, Some(scratch))?;
        Ok(if op == Op::Mkdir { Self::Mkdir(path) } else { Self::Rm(path) })
    }
}

impl Client<'_> {
    fn set_perms<'a>(
        self,
        strings: Strings<'a>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Request<'a>, Denial> {
        let mut each = strings.iter();
        let (Some(path), 2..) = (each.next(), strings.len()) else {
            return Err(Error::Einval.into());
        };
        let count = strings.len() - 1;
        if self.namer.limits.is_some_and(|limits| !limits.allow(Quota::NodePermissions, count)) {
            return Err(Quota::NodePermissions.into());
        }
        let perms: Option<Vec<_>> = each.map(Spelled::parse).collect();
        let perms = perms.ok_or(Error::Einval)?;
        Ok(Request::SetPerms { place: self.namer.place(path, Some(scratch)), perms })
    }

    fn watch<'a>(
        self,
        strings: Strings<'a>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Request<'a>, Denial> {
        let (path, token, depth) = match strings.exactly() {
            Ok([path, token]) => (path, token, None),
            Err(_) if self.features.contains(Features::WATCH_DEPTH) => {
                let [path, token, depth] = strings.exactly()?;
                let depth = u32::try_from(number::leading(depth)).map_err(|_| Error::Einval)?;
                (path, token, Some(depth))
            }
            Err(denial) => return Err(denial),
        };
        let path = self.namer.complete(path, scratch)?;
        path.judge()?;
        Ok(Request::Watch { path, token, depth })
    }
}

fn introduce(strings: Strings<'_>) -> Result<Request<'_>, Denial> {
    let [id, gfn, port] = strings.at_least()?;
    let port = u32::try_from(number::leading(port)).ok().filter(|&port| port != 0);
    Ok(Request::Introduce {
        domain: domain(id)?,
        gfn: number::leading_u64(gfn),
        port: port.ok_or(Error::Einval)?,
    })
}

fn setting(op: Op, strings: Strings<'_>) -> Result<Request<'_>, Denial> {
    let mut each = strings.iter();
    let mut next = || each.next().unwrap_or_default();
    match (op, strings.len()) {
        (Op::GetFeature, 0) => Ok(Request::GetFeature(None)),
        (Op::GetFeature, 1) => Ok(Request::GetFeature(Some(domain(next())?))),
        (Op::SetFeature, 2) => {
            let domain = domain(next())?;
            Ok(Request::SetFeature { domain, features: number::leading(next()) })
        }
        (Op::GetQuota, 0) => Ok(Request::GetQuota { domain: None, name: None }),
        (Op::GetQuota, 1) => Ok(Request::GetQuota { domain: None, name: Some(next()) }),
        (Op::GetQuota, 2) => {
            let domain = Some(domain(next())?);
            Ok(Request::GetQuota { domain, name: Some(next()) })
        }
        (Op::SetQuota, count @ (2 | 3)) => {
            let domain = if count == 3 { Some(domain(next())?) } else { None };
            let (name, limit) = (next(), number::leading(next()));
            Ok(Request::SetQuota { domain, name, limit })
        }
        _ => Err(Error::Einval.into()),
    }
}

/// Returns the path that is all of a payload, with a NUL at the end.
#[inline]
fn path_of(payload: &[u8]) -> Result<&[u8], Denial> {
    // A NUL before the last is no legal character, and is found out with the others.
    match payload {
        [path @ .., 0] => Ok(path),
        _ => Err(Error::Einval.into()),
    }
}

/// Returns the string that is all of a payload: one NUL, at the end.
fn only(payload: &[u8]) -> Result<&[u8], Denial> {
    match find_nul(payload) {
        Some(end) if end + 1 == payload.len() => Ok(&payload[..end]),
        _ => Err(Error::Einval.into()),
    }
}

fn domain(text: &[u8]) -> Result<DomId, Denial> {
    let number = number::unsigned(text, u16::MAX.into()).ok_or(Error::Einval)?;
    Ok(DomId(u16::try_from(number).unwrap_or(u16::MAX)))
}

/// The NUL-terminated strings of a payload; bytes after the last NUL do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    fn of(payload: &'a [u8]) -> Self {
        let end = payload.iter().rposition(|&byte| byte == 0).map_or(0, |last| last + 1);
        Self(&payload[..end])
    }

    pub(crate) fn len(self) -> usize {
        self.0.iter().filter(|&&byte| byte == 0).count()
    }

    pub(crate) fn iter(mut self) -> impl Iterator<Item = &'a [u8]> {
        iter::from_fn(move || self.take())
    }

    fn exactly<const N: usize>(mut self) -> Result<[&'a [u8]; N], Denial> {
        let strings = self.take_some()?;
        if self.0.is_empty() { Ok(strings) } else { Err(Error::Einval.into()) }
    }

    fn at_least<const N: usize>(mut self) -> Result<[&'a [u8]; N], Denial> {
        self.take_some()
    }

    fn take_some<const N: usize>(&mut self) -> Result<[&'a [u8]; N], Denial> {
        let mut strings = [&b""[..]; N];
        for string in &mut strings {
            *string = self.take().ok_or(Error::Einval)?;
        }
        Ok(strings)
    }

    #[inline]
    fn take(&mut self) -> Option<&'a [u8]> {
        let end = find_nul(self.0)?;
        let string = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Limits;

    const CLIENT: Client<'_> = Client {
        namer: Namer { home: b"/local/domain/1/", limits: Some(&Limits::DEFAULT) },
        features: Features::all(),
    };

    fn judge(place: Place<'_>) -> Result<(), Denial> {
        if let Place::Node(path) = place { path.judge() } else { Ok(()) }
    }

    /// Returns what refuses a payload, in the request or in its path.
    fn error(op: Op, payload: &[u8]) -> Option<Error> {
        let mut scratch = Vec::new();
        let judged = match Request::parse(op, payload, CLIENT, &mut scratch) {
            Ok(Request::Path(op)) => judge(op.place()),
            other => other.map(|_| ()),
        };
        judged.err().map(|denial| denial.error)
    }

    #[test]
    fn one_argument_is_one_string_to_the_end() {
        let ops =
            [Op::Read, Op::Directory, Op::GetPerms, Op::Mkdir, Op::Rm, Op::Release, Op::Resume];
        for op in ops {
            for payload in [&b""[..], b"/a", b"/a\0\0", b"/a\0/b\0", b"/a\0b"] {
                assert_eq!(error(op, payload), Some(Error::Einval), "{op:?} {payload:?}");
            }
        }
        assert_eq!(error(Op::Read, b"/a\0"), None);
    }

    #[test]
    fn what_follows_the_last_nul_does_not_count() {
        let mut scratch = Vec::new();
        let request = Request::parse(Op::Watch, b"/w\0t\0junk", CLIENT, &mut scratch);
        let Ok(Request::Watch { path, token: b"t", depth: None }) = request else {
            panic!("got {request:?}");
        };
        assert_eq!(path.full, b"/w");
    }

    #[test]
    fn the_number_of_strings_is_checked() {
        let cases: [(Op, &[u8]); 10] = [
            (Op::Watch, b"/w\0"),
            (Op::Watch, b"/w\0t\0one\0two\0"),
            (Op::Watch, b"/w\0t\0-1\0"),
            (Op::Unwatch, b"/w\0t\0one\0"),
            (Op::SetPerms, b"/w\0"),
            (Op::Introduce, b"1\0 2\0"),
            (Op::Introduce, b"1\0 2\0 0\0"),
            (Op::SetTarget, b"1\0"),
            (Op::GetQuota, b"1\0nodes\0x\0"),
            (Op::TransactionEnd, b"X\0"),
        ];
        for (op, payload) in cases {
            assert_eq!(error(op, payload), Some(Error::Einval), "{op:?} {payload:?}");
        }
        let flat = Client { features: Features::empty(), ..CLIENT };
        let deep = Request::parse(Op::Watch, b"/w\0t\0 1\0", flat, &mut Vec::new()).map(|_| ());
        assert_eq!(deep, Err(Error::Einval.into()), "a depth without the feature");
    }

    #[test]
    fn permissions_are_counted_before_they_are_read() {
        let six = b"/a\0n0\0n0\0n0\0n0\0n0\0x\0";
        assert_eq!(error(Op::SetPerms, six), Some(Error::Enospc));
        for perm in [&b"/a\0\0"[..], b"/a\0x1\0", b"/a\0n\0", b"/a\0n1x\0"] {
            assert_eq!(error(Op::SetPerms, perm), Some(Error::Einval), "{perm:?}");
        }
        let mut scratch = Vec::new();
        let request = Request::parse(Op::SetPerms, b"@a/\0n0\0", CLIENT, &mut scratch);
        assert!(
            matches!(request, Ok(Request::SetPerms { place: Err(_), .. })),
            "a bad path waits for the owner to be judged: {request:?}"
        );
    }

    #[test]
    fn a_value_is_all_that_follows_the_path() {
        let mut scratch = Vec::new();
        let request = Request::parse(Op::Write, b"/a\0b\0c", CLIENT, &mut scratch);
        let Ok(Request::Path(PathOp::Edit(Edit::Write(_, value)))) = request else {
            panic!("got {request:?}");
        };
        assert_eq!(value, b"b\0c");
        assert_eq!(error(Op::Write, b"/a"), Some(Error::Einval));
    }
}
