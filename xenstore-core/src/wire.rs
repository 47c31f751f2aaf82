//! What crosses the wire: the frame header, the message types and the error names.
//!
//! Source of every number and name here: `xen/include/public/io/xs_wire.h`.

use core::fmt;

use bitflags::bitflags;
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most payload bytes that one frame may carry, in either direction (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;

/// The size of a frame's header, in bytes.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// The head of every frame (`struct xsd_sockmsg`): four little-endian words, then `len` bytes of payload.
///
/// Holding one says nothing about its fields; a server judges `len` with [`Header::payload_len`]
/// and `kind` with [`Op::from_wire`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// The message type, see [`Op`].
    pub kind: U32,
    /// The request's number, chosen by the client and echoed in the reply; 0 in events.
    pub req_id: U32,
    /// The transaction that the request belongs to, or 0; echoed in the reply.
    pub tx_id: U32,
    /// How many bytes of payload follow.
    pub len: U32,
}

impl Header {
    /// Builds a header from host integers.
    pub fn new(kind: u32, req_id: u32, tx_id: u32, len: u32) -> Self {
        Self { kind: kind.into(), req_id: req_id.into(), tx_id: tx_id.into(), len: len.into() }
    }

    /// Returns the payload's length in bytes, or the violation of a length that no frame may have.
    pub fn payload_len(&self) -> Result<usize, Violation> {
        match usize::try_from(self.len.get()) {
            Ok(len) if len <= PAYLOAD_MAX => Ok(len),
            _ => Err(Violation::Oversize(self.len.get())),
        }
    }
}

/// A breach of the framing that ends service to its sender; it is never answered.
///
/// An index that no honest peer could reach is the other kind of violation; only the owner of the
/// ring can see that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A header announced this many payload bytes, more than [`PAYLOAD_MAX`].
    Oversize(u32),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversize(len) => {
                write!(f, "a message of {len} bytes, of {PAYLOAD_MAX} that are allowed")
            }
        }
    }
}

/// A message type (`enum xsd_sockmsg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Op {
    /// Administration of the server itself.
    Control = 0,
    /// The names of a node's children.
    Directory = 1,
    /// A node's value.
    Read = 2,
    /// A node's permissions.
    GetPerms = 3,
    /// Registers a watch.
    Watch = 4,
    /// Removes a watch.
    Unwatch = 5,
    /// Opens a transaction.
    TransactionStart = 6,
    /// Commits or drops a transaction.
    TransactionEnd = 7,
    /// Tells the server of a domain's ring and event channel.
    Introduce = 8,
    /// Makes the server forget a domain.
    Release = 9,
    /// The path of a domain's home.
    GetDomainPath = 10,
    /// Sets a node's value, and makes the node where it is missing.
    Write = 11,
    /// Makes a node.
    Mkdir = 12,
    /// Removes a node with all below it.
    Rm = 13,
    /// Sets a node's permissions.
    SetPerms = 14,
    /// An event, from the server only.
    WatchEvent = 15,
    /// An error reply, from the server only.
    Error = 16,
    /// Whether a domain was introduced.
    IsDomainIntroduced = 17,
    /// Lets a domain's next shutdown be announced again.
    Resume = 18,
    /// Gives one domain the rights of another.
    SetTarget = 19,
    /// Dead: no server implements it any more.
    Restrict = 20,
    /// Drops all watches and transactions of the connection.
    ResetWatches = 21,
    /// A part of the names of a node's children.
    DirectoryPart = 22,
    /// The features that are offered to a domain.
    GetFeature = 23,
    /// Chooses the features that are offered to a domain.
    SetFeature = 24,
    /// The quotas' names, or the value of one.
    GetQuota = 25,
    /// Sets a quota.
    SetQuota = 26,
}

impl Op {
    /// Every message type, in the order of its number.
    pub const ALL: [Self; 27] = [
        Self::Control,
        Self::Directory,
        Self::Read,
        Self::GetPerms,
        Self::Watch,
        Self::Unwatch,
        Self::TransactionStart,
        Self::TransactionEnd,
        Self::Introduce,
        Self::Release,
        Self::GetDomainPath,
        Self::Write,
        Self::Mkdir,
        Self::Rm,
        Self::SetPerms,
        Self::WatchEvent,
        Self::Error,
        Self::IsDomainIntroduced,
        Self::Resume,
        Self::SetTarget,
        Self::Restrict,
        Self::ResetWatches,
        Self::DirectoryPart,
        Self::GetFeature,
        Self::SetFeature,
        Self::GetQuota,
        Self::SetQuota,
    ];

    /// Returns the type's name in the protocol, without the `XS_` before it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "CONTROL",
            Self::Directory => "DIRECTORY",
            Self::Read => "READ",
            Self::GetPerms => "GET_PERMS",
            Self::Watch => "WATCH",
            Self::Unwatch => "UNWATCH",
            Self::TransactionStart => "TRANSACTION_START",
            Self::TransactionEnd => "TRANSACTION_END",
            Self::Introduce => "INTRODUCE",
            Self::Release => "RELEASE",
            Self::GetDomainPath => "GET_DOMAIN_PATH",
            Self::Write => "WRITE",
            Self::Mkdir => "MKDIR",
            Self::Rm => "RM",
            Self::SetPerms => "SET_PERMS",
            Self::WatchEvent => "WATCH_EVENT",
            Self::Error => "ERROR",
            Self::IsDomainIntroduced => "IS_DOMAIN_INTRODUCED",
            Self::Resume => "RESUME",
            Self::SetTarget => "SET_TARGET",
            Self::Restrict => "RESTRICT",
            Self::ResetWatches => "RESET_WATCHES",
            Self::DirectoryPart => "DIRECTORY_PART",
            Self::GetFeature => "GET_FEATURE",
            Self::SetFeature => "SET_FEATURE",
            Self::GetQuota => "GET_QUOTA",
            Self::SetQuota => "SET_QUOTA",
        }
    }

    /// Returns the type that a header's `kind` stands for, if there is one.
    pub fn from_wire(kind: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(kind).ok()?).copied()
    }

    /// Returns the number that stands for the type in a header.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }
}

/// An error that a request is answered with: exactly the names that every client knows.
///
/// In the order of `xsd_errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request is malformed.
    Einval,
    /// Permission denied.
    Eacces,
    /// It exists already.
    Eexist,
    /// Kept for clients; no operation of this server answers it.
    Eisdir,
    /// It does not exist.
    Enoent,
    /// No memory is left for it.
    Enomem,
    /// A quota is used up.
    Enospc,
    /// The memory quota forbids a new node.
    Eio,
    /// Kept for clients; no operation of this server answers it.
    Enotempty,
    /// There is no such operation.
    Enosys,
    /// Kept for clients; no operation of this server answers it.
    Erofs,
    /// It cannot be done in the present state.
    Ebusy,
    /// The transaction met a conflict; it may be tried again.
    Eagain,
    /// Kept for clients; no operation of this server answers it.
    Eisconn,
    /// The reply would not fit into a frame.
    E2big,
    /// Only the privileged domain may do this.
    Eperm,
}

impl Error {
    /// Every error, in the order of `xsd_errors`.
    pub const ALL: [Self; 16] = [
        Self::Einval,
        Self::Eacces,
        Self::Eexist,
        Self::Eisdir,
        Self::Enoent,
        Self::Enomem,
        Self::Enospc,
        Self::Eio,
        Self::Enotempty,
        Self::Enosys,
        Self::Erofs,
        Self::Ebusy,
        Self::Eagain,
        Self::Eisconn,
        Self::E2big,
        Self::Eperm,
    ];

    /// Returns the name that stands for the error in a reply; on the wire a NUL follows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Einval => "EINVAL",
            Self::Eacces => "EACCES",
            Self::Eexist => "EEXIST",
            Self::Eisdir => "EISDIR",
            Self::Enoent => "ENOENT",
            Self::Enomem => "ENOMEM",
            Self::Enospc => "ENOSPC",
            Self::Eio => "EIO",
            Self::Enotempty => "ENOTEMPTY",
            Self::Enosys => "ENOSYS",
            Self::Erofs => "EROFS",
            Self::Ebusy => "EBUSY",
            Self::Eagain => "EAGAIN",
            Self::Eisconn => "EISCONN",
            Self::E2big => "E2BIG",
            Self::Eperm => "EPERM",
        }
    }

    /// Returns the error of that name (without the NUL), if there is one.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.name().as_bytes() == name)
    }
}

bitflags! {
    /// What a server offers beyond the first protocol (`XENSTORE_SERVER_FEATURE_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// The guest may ask for the ring to be reset.
        const RECONNECTION = 1;
        /// The ring's error field is set when service ends.
        const ERROR = 2;
        /// A watch may be limited in depth.
        const WATCH_DEPTH = 4;
        /// A permission may name every domain at once.
        const DOMID_ANY = 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_four_little_endian_words() {
        let bytes = [11, 0, 0, 0, 1, 2, 3, 4, 0xff, 0, 0, 0, 0, 0x10, 0, 0];
        let header = Header::read_from_bytes(&bytes).expect("16 bytes are a header");
        assert_eq!(header, Header::new(Op::Write.to_wire(), 0x0403_0201, 0xff, 4096));
        assert_eq!(header.as_bytes(), bytes, "emitting gives the parsed bytes back");
        assert_eq!(header.payload_len(), Ok(4096), "the largest payload is legal");
    }

    #[test]
    fn a_longer_payload_is_a_violation() {
        for len in [4097, u32::MAX] {
            let header = Header::new(2, 0, 0, len);
            assert_eq!(header.payload_len(), Err(Violation::Oversize(len)));
        }
    }

    #[test]
    fn a_violation_says_what_was_wrong() {
        let said = format!("{}", Violation::Oversize(5000));
        assert_eq!(said, "a message of 5000 bytes, of 4096 that are allowed");
    }

    #[test]
    fn types_and_numbers_agree() {
        for number in 0..27 {
            let op = Op::from_wire(number).expect("0 to 26 are types");
            assert_eq!(op.to_wire(), number, "{op:?} stands at the wrong place");
        }
        for number in [27, 0xffff, u32::MAX] {
            assert_eq!(Op::from_wire(number), None, "{number} is no type");
        }
    }

    #[test]
    fn errors_and_names_agree() {
        for error in Error::ALL {
            assert_eq!(Error::from_name(error.name().as_bytes()), Some(error));
        }
        assert_eq!(Error::from_name(b"EQUOTA"), None, "a name no client knows");
    }
}
