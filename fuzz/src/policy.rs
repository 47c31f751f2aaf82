//! The target `policy`: text as the operator's rules.

use databack::policy::{Act, Owner, Policy, Resource};
use xen_sys::ids::DomId;

/// Reads the text as rules, and panics where that or what follows from them is absurd.
pub fn run(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let mut policy = Policy::default();
    if let Err(wrong) = policy.add(text) {
        let line = text.lines().nth(wrong.line - 1).expect("the line is there");
        assert!(policy.is_empty(), "nothing of a text with an error is added");
        let mut alone = Policy::default();
        let again = alone.add(line).expect_err("the line is wrong by itself");
        assert_eq!((again.line, again.expected), (1, wrong.expected));
        return;
    }
    for line in text.lines() {
        let mut alone = Policy::default();
        alone.add(line).expect("each line is right by itself");
        assert!(alone.len() <= 1);
    }
    let five = Owner { domain: DomId::new(5).expect("an id"), name: Some("guest".into()) };
    let rights = policy.rights_of(&five);
    let acts = [
        Act::Serve("jobs"),
        Act::Push(&five, "jobs"),
        Act::Publish("a/b"),
        Act::Subscribe("a/+"),
        Act::Stream("video"),
        Act::Echo,
    ];
    for act in acts {
        assert!(!rights.allow(act) || text.contains("allow"), "{act:?} by no rule");
    }
    if rights.allow(Act::Push(&five, "jobs")) {
        assert!(rights.allow(Act::PushAnywhere("jobs")));
    }
    if policy.limit(&five, Resource::Channels).is_some() {
        assert!(text.contains("limit"));
    }
}
