//! What goes on, as text for a human.

use core::fmt::{self, Write};

use xen_sys::ids::DomId;
use xen_sys::page::Shared;

use super::Broker;

impl<M: Shared> Broker<M> {
    /// Writes what goes on: all of it for dom0 and for the owner of the broker, else what `domain`
    /// has.
    pub(super) fn write_status(&self, out: &mut impl Write, domain: Option<DomId>) -> fmt::Result {
        let all = domain.is_none_or(|domain| domain == DomId::DOM0);
        if all {
            writeln!(
                out,
                "channels {}, services {}, pushes {}, subscriptions {}, kept {}, memory {} of {}",
                self.channels.len(),
                self.services.len(),
                self.pushes.len(),
                self.subscriptions.len(),
                self.kept.len(),
                self.accounts.memory,
                self.limits.total_memory
            )?;
            writeln!(out, "violations {}", self.violations)?;
        }
        for account in self.accounts.iter() {
            if !all && domain != Some(account.owner.domain) {
                continue;
            }
            write!(out, "{}", account.owner.domain)?;
            if let Some(name) = &account.owner.name {
                write!(out, " {name:?}")?;
            }
            let counts = account.counts;
            writeln!(
                out,
                ": channels {}, subscriptions {}, memory {}, pushed {} blocks {} bytes, published {}, refused {}",
                account.channels,
                account.subscriptions,
                account.memory,
                counts.pushes,
                counts.bytes,
                counts.published,
                counts.refused
            )?;
        }
        Ok(())
    }
}
