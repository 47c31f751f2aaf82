//! Where the policy comes from: a boot module, and nodes that only dom0 can write.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use databack::policy::Policy;
use embedded_io::{Read, Write};
use stubdom::nodes::none_if_refused;
use stubdom::platform::Platform;
use xen_pvh_boot::BootInfo;
use xen_sys::page::PAGE_SIZE;
use xenstore_core::client::{Client, Failure, Nodes};

/// Below it each node is a piece of the policy.
const POLICY: &str = "data/policy";
/// What is wrong with the policy, if something is.
const POLICY_ERROR: &str = "data/policy-error";

/// The sources of the policy.
pub(super) struct Rules {
    module: Option<&'static [u8]>,
    /// What was read last, each text with its place.
    last: Option<Vec<(String, Vec<u8>)>>,
}

impl Rules {
    /// The token of the watch that [`begin`](Self::begin) sets.
    pub(super) const TOKEN: &'static str = "policy";

    /// Finds the boot module, and watches the nodes.
    pub(super) fn begin<T: Read + Write>(
        store: &mut Client<T>,
        boot: &'static BootInfo,
        platform: &Platform,
    ) -> Result<Self, Failure<T::Error>> {
        let module = boot.module(0, platform.memory / PAGE_SIZE as u64);
        store.mkdir(POLICY)?;
        store.watch(POLICY, Self::TOKEN)?;
        Ok(Self { module, last: None })
    }

    /// Reads all of it anew. With anything wrong in it, which is told in the log and in a node of
    /// its own, there is no new policy; nor is there if it is what it was, however often a guest makes
    /// this domain look again.
    pub(super) fn read<T: Read + Write>(
        &mut self,
        store: &mut Client<T>,
    ) -> Result<Option<Policy>, Failure<T::Error>> {
        let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
        texts.extend(self.module.map(|text| (String::from("boot module"), text.to_vec())));
        let mut names = store.directory(POLICY).or_else(none_if_refused)?;
        names.sort_unstable();
        for name in names {
            let path = format!("{POLICY}/{name}");
            texts.push((path.clone(), store.read(&path).or_else(none_if_refused)?));
        }
        if self.last.as_ref() == Some(&texts) {
            return Ok(None);
        }
        let parsed = policy_of(&texts);
        self.last = Some(texts);
        match &parsed {
            Ok(policy) => {
                log::info!("the policy has {} rules", policy.len());
                store.rm(POLICY_ERROR).or_else(none_if_refused)?;
            }
            Err(wrong) => {
                log::error!("the policy stays as it was: {wrong}");
                store.write(POLICY_ERROR, wrong.as_bytes()).or_else(none_if_refused)?;
            }
        }
        Ok(parsed.ok())
    }
}

/// All texts as one policy, or what is wrong in which of them.
fn policy_of(texts: &[(String, Vec<u8>)]) -> Result<Policy, String> {
    let mut policy = Policy::default();
    for (place, text) in texts {
        let text = str::from_utf8(text).map_err(|_| format!("{place}: this is not text"))?;
        policy.add(text).map_err(|error| format!("{place}:{error}"))?;
    }
    Ok(policy)
}
