//! Quotas: what a domain may use of the store, what it uses, and what it was refused.
//!
//! Names, order and defaults are those of docs/misc/xenstore.txt and of the reference server's
//! reports, because tools read them. A limit allows exactly its value; 0 means no limit.

use crate::wire::Error;

/// Something that a domain may use only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    /// Nodes that the domain owns.
    Nodes,
    /// Watches of its connection.
    Watches,
    /// Replies that it has not yet taken; at the limit its requests wait.
    Outstanding,
    /// Bytes of nodes it owns, of its watches, and of its transactions.
    Memory,
    /// Bytes as above at which the log is told.
    SoftMemory,
    /// Transactions that are open at once.
    Transactions,
    /// Different paths that one transaction touches.
    TransactionNodes,
    /// Permissions of one node.
    NodePermissions,
    /// Bytes of a path.
    PathMax,
    /// Bytes of one node: its value, permissions and names of children.
    NodeSize,
}

impl Quota {
    /// How many quotas there are.
    pub(crate) const COUNT: usize = 10;

    /// Every quota, in the order of the reports.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Nodes,
        Self::Watches,
        Self::Outstanding,
        Self::Memory,
        Self::SoftMemory,
        Self::Transactions,
        Self::TransactionNodes,
        Self::NodePermissions,
        Self::PathMax,
        Self::NodeSize,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Watches => "watches",
            Self::Outstanding => "outstanding",
            Self::Memory => "memory",
            Self::SoftMemory => "soft-memory",
            Self::Transactions => "transactions",
            Self::TransactionNodes => "transaction-nodes",
            Self::NodePermissions => "node-permissions",
            Self::PathMax => "path-max",
            Self::NodeSize => "node-size",
        }
    }

    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|quota| quota.name().as_bytes() == name)
    }

    /// One line on what the quota limits, as the reference server's report has it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Nodes => "Nodes per domain",
            Self::Watches => "Watches per domain",
            Self::Outstanding => "Outstanding requests per domain",
            Self::Memory | Self::SoftMemory => "Total Xenstore memory per domain",
            Self::Transactions => "Active transactions per domain",
            Self::TransactionNodes => "Max. number of accessed nodes per transaction",
            Self::NodePermissions => "Max. number of permissions per node",
            Self::PathMax => "Max. length of a node path",
            Self::NodeSize => "Max. size of a node",
        }
    }
}

/// Why a request is not done: the error that answers it, and the quota that is at fault, if one is.
///
/// Whoever answers the request counts the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) error: Error,
    pub(crate) quota: Option<Quota>,
    pub(crate) hope: Hope,
}

/// What may still let a request be done that would be refused as things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hope {
    None,
    /// That nodes which were removed do not count for their owners any more.
    Settling,
    /// That their memory is free.
    Memory,
}

impl Denial {
    /// There is no memory for it.
    pub(crate) const NO_MEMORY: Self =
        Self { error: Error::Enomem, quota: None, hope: Hope::Memory };
}

impl From<Error> for Denial {
    fn from(error: Error) -> Self {
        Self { error, quota: None, hope: Hope::None }
    }
}

impl From<Quota> for Denial {
    /// Answers with the error that a quota's refusal usually has.
    fn from(quota: Quota) -> Self {
        let error = match quota {
            Quota::PathMax => Error::Einval,
            Quota::Memory | Quota::SoftMemory => Error::Enomem,
            Quota::Nodes
            | Quota::Watches
            | Quota::Outstanding
            | Quota::Transactions
            | Quota::TransactionNodes
            | Quota::NodePermissions
            | Quota::NodeSize => Error::Enospc,
        };
        let hope = match quota {
            Quota::Nodes | Quota::Memory => Hope::Settling,
            _ => Hope::None,
        };
        Self { error, quota: Some(quota), hope }
    }
}

/// The limits of one domain, or those that the next domain gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits([u32; Quota::COUNT]);

impl Limits {
    /// What the first domain gets.
    pub(crate) const DEFAULT: Self =
        Self([1000, 128, 20, 2_621_440, 2_097_152, 10, 1024, 5, 2048, 2048]);

    pub(crate) fn of(&self, quota: Quota) -> u32 {
        self.0[quota as usize]
    }

    pub(crate) fn set(&mut self, quota: Quota, limit: u32) {
        self.0[quota as usize] = limit;
    }

    /// Whether the limit allows this much.
    pub(crate) fn allow(&self, quota: Quota, value: usize) -> bool {
        let limit = self.of(quota);
        limit == 0 || value <= limit as usize
    }
}

/// One number for each quota: the largest seen, or how often one was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks([u32; Quota::COUNT]);

impl Marks {
    pub(crate) fn of(&self, quota: Quota) -> u32 {
        self.0[quota as usize]
    }

    /// Raises the mark to the value where it is lower.
    pub(crate) fn raise(&mut self, quota: Quota, value: usize) {
        let mark = &mut self.0[quota as usize];
        *mark = (*mark).max(u32::try_from(value).unwrap_or(u32::MAX));
    }

    /// Raises every mark to the other's where it is lower.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mark, other) in self.0.iter_mut().zip(other.0) {
            *mark = (*mark).max(other);
        }
    }

    /// Counts one more, and returns the count.
    pub(crate) fn count(&mut self, quota: Quota) -> u32 {
        let mark = &mut self.0[quota as usize];
        *mark = mark.saturating_add(1);
        *mark
    }
}

/// What a domain uses of the store, apart from replies, which its outbox counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Nodes that it owns.
    pub(crate) nodes: usize,
    /// Watches of its connection.
    pub(crate) watches: usize,
    /// Open transactions of its connection.
    pub(crate) transactions: usize,
    /// Bytes of its nodes, watches and transactions.
    pub(crate) memory: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_allows_exactly_its_value_and_zero_allows_all() {
        let mut limits = Limits::DEFAULT;
        assert!(limits.allow(Quota::Nodes, 1000));
        assert!(!limits.allow(Quota::Nodes, 1001));
        limits.set(Quota::Nodes, 0);
        assert!(limits.allow(Quota::Nodes, usize::MAX));
    }

    #[test]
    fn names_and_places_agree() {
        for (place, quota) in Quota::ALL.into_iter().enumerate() {
            assert_eq!(quota as usize, place, "{quota:?} stands at the wrong place");
            assert_eq!(Quota::from_name(quota.name().as_bytes()), Some(quota));
        }
        assert_eq!(Quota::from_name(b"permissions"), None);
    }
}
