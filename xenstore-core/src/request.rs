//! Requests: payloads parsed once into what they ask for, and the rules of who may ask it.

use alloc::vec::Vec;

use crate::host::DomId;
use crate::number;
use crate::operation::{Edit, Look};
use crate::path::{Namer, Path, Place, WatchPath};
use crate::perms::Spelled;
use crate::quota::{Denial, Quota};
use crate::wire::{Error, Features, Op};

/// Who may send a message, and whether its transaction is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) caller: CallerRule,
    pub(crate) transaction: TransactionRule,
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

/// Returns the rules of a message type; `None` for one that no client may send.
///
/// Every type stands here, so that a new one does not compile before somebody decides.
pub(crate) fn rules(op: Op) -> Option<Rules> {
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
    Some(Rules { caller, transaction })
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request<'a> {
    Look(Look<'a>),
    Edit(Edit<'a>),
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
            Op::Read => Ok(Self::Look(Look::Value(client.node(payload, scratch)?))),
            Op::Directory => Ok(Self::Look(Look::Names(client.node(payload, scratch)?))),
            Op::Mkdir => Ok(Self::Edit(Edit::Mkdir(client.node(payload, scratch)?))),
            Op::Rm => Ok(Self::Edit(Edit::Rm(client.node(payload, scratch)?))),
            Op::Write => {
                let end = payload.iter().position(|&byte| byte == 0).ok_or(Error::Einval)?;
                let path = client.namer.node(&payload[..end], scratch)?;
                Ok(Self::Edit(Edit::Write(path, &payload[end + 1..])))
            }
            Op::DirectoryPart => {
                let [path, offset] = strings().exactly()?;
                let path = client.namer.node(path, scratch)?;
                Ok(Self::Look(Look::Part(path, number::leading(offset))))
            }
            Op::GetPerms => {
                let place = client.namer.place(only(payload)?, scratch)?;
                Ok(Self::Look(Look::Perms(place)))
            }
            Op::SetPerms => client.set_perms(strings(), scratch),
            Op::Watch => client.watch(strings(), scratch),
            Op::Unwatch => {
                let [path, token] = strings().exactly()?;
                Ok(Self::Unwatch { path: client.namer.watch(path, scratch)?, token })
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

impl Client<'_> {
    fn node<'a>(self, payload: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Path<'a>, Denial> {
        // A NUL before the last is no legal character, and is found out with the others.
        let [path @ .., 0] = payload else { return Err(Error::Einval.into()) };
        self.namer.node(path, scratch)
    }

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
        Ok(Request::SetPerms { place: self.namer.place(path, scratch), perms })
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
        Ok(Request::Watch { path: self.namer.watch(path, scratch)?, token, depth })
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

/// Returns the string that is all of a payload: one NUL, at the end.
fn only(payload: &[u8]) -> Result<&[u8], Denial> {
    match payload.iter().position(|&byte| byte == 0) {
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

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split_inclusive(|&byte| byte == 0).map(|string| &string[..string.len() - 1])
    }

    fn exactly<const N: usize>(self) -> Result<[&'a [u8]; N], Denial> {
        let strings = self.at_least()?;
        let len: usize = strings.iter().map(|string| string.len() + 1).sum();
        if len == self.0.len() { Ok(strings) } else { Err(Error::Einval.into()) }
    }

    fn at_least<const N: usize>(self) -> Result<[&'a [u8]; N], Denial> {
        let mut strings = [&b""[..]; N];
        let mut each = self.iter();
        for string in &mut strings {
            *string = each.next().ok_or(Error::Einval)?;
        }
        Ok(strings)
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
            Ok(Request::Look(look)) => judge(look.place()),
            Ok(Request::Edit(edit)) => judge(edit.place()),
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
        let Ok(Request::Edit(Edit::Write(_, value))) = request else {
            panic!("got {request:?}");
        };
        assert_eq!(value, b"b\0c");
        assert_eq!(error(Op::Write, b"/a"), Some(Error::Einval));
    }
}
