//! The host around the store, in memory: domains that exist, and who is connected.

use xenstore_core::{ConnId, DomId, Host, UniqueId, Unreachable};

/// The domain that may do everything.
pub const TOOLSTACK: DomId = DomId(0);

/// The domain that the store itself runs in.
pub const STORE: DomId = DomId(32_000);

/// Domains have lower numbers than this.
pub const DOMAINS_MAX: u16 = 32_752;

/// What is known of one domain.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    identity: Option<UniqueId>,
    conn: Option<ConnId>,
}

/// All domains. The table has its size from the start, so that it weighs nothing in a comparison.
#[derive(Debug)]
pub(crate) struct Outside {
    domains: Vec<Known>,
    next_identity: u64,
}

impl Outside {
    pub(crate) fn new() -> Self {
        Self { domains: vec![Known::default(); usize::from(DOMAINS_MAX)], next_identity: 1 }
    }

    /// Brings a domain to life.
    pub(crate) fn create(&mut self, domain: DomId) -> UniqueId {
        let identity = UniqueId(self.next_identity);
        self.next_identity += 1;
        self.known(domain).identity = Some(identity);
        identity
    }

    /// Ends a domain's life; nobody is told.
    pub(crate) fn destroy(&mut self, domain: DomId) {
        self.known(domain).identity = None;
    }

    /// The connection that the domain was introduced with.
    pub(crate) fn conn(&mut self, domain: DomId) -> Option<ConnId> {
        self.known(domain).conn
    }

    fn known(&mut self, domain: DomId) -> &mut Known {
        &mut self.domains[usize::from(domain.0)]
    }
}

impl Host for Outside {
    fn identify(&mut self, domain: DomId) -> Option<UniqueId> {
        self.known(domain).identity
    }

    fn introduce(
        &mut self,
        conn: ConnId,
        domain: DomId,
        _gfn: u64,
        _port: u32,
        _features: u32,
    ) -> Result<(), Unreachable> {
        self.known(domain).conn = Some(conn);
        Ok(())
    }

    fn reintroduce(
        &mut self,
        _conn: ConnId,
        _domain: DomId,
        _port: u32,
        _features: u32,
    ) -> Result<(), Unreachable> {
        Ok(())
    }

    fn release(&mut self, _conn: ConnId, domain: DomId) {
        self.known(domain).conn = None;
    }

    fn has_memory(&self, _bytes: usize) -> bool {
        true
    }

    fn print(&mut self, _text: &str) {}
}
