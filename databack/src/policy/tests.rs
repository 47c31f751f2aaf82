use super::*;
use proptest::prelude::*;

fn owner(id: u16, name: Option<&str>) -> Owner {
    Owner { domain: DomId::new(id).unwrap(), name: name.map(Into::into) }
}

fn policy(text: &str) -> Policy {
    let mut policy = Policy::default();
    policy.add(text).unwrap();
    policy
}

#[test]
fn what_no_rule_allows_is_refused() {
    let rights = Policy::default().rights_of(&owner(0, None));
    let to = owner(1, None);
    for act in [
        Act::Serve("jobs"),
        Act::Push(&to, "jobs"),
        Act::Publish("a"),
        Act::Subscribe("#"),
        Act::Stream("video"),
        Act::Echo,
    ] {
        assert!(!rights.allow(act), "{act:?} even for dom0");
    }
}

#[test]
fn rules_hold_for_whom_they_name() {
    let policy = policy(
        "# builders\n\
         allow dom0 push *          # to anybody\n\
         allow 5 serve jobs\n\
         allow builder serve build.*\n\
         allow \"my guest\" echo\n\
         \n\
         allow * stream video\n",
    );
    assert_eq!(policy.len(), 5);
    let (five, builder) = (owner(5, None), owner(6, Some("builder")));
    let may = |who: &Owner, act: Act<'_>| policy.rights_of(who).allow(act);
    assert!(may(&owner(0, None), Act::Push(&five, "jobs")));
    assert!(!may(&five, Act::Push(&five, "jobs")));
    assert!(may(&five, Act::Serve("jobs")) && !may(&five, Act::Serve("jobs2")));
    assert!(may(&builder, Act::Serve("build.")) && may(&builder, Act::Serve("build.x")));
    assert!(!may(&builder, Act::Serve("build")) && !may(&owner(6, None), Act::Serve("build.x")));
    assert!(may(&owner(9, Some("my guest")), Act::Echo) && !may(&builder, Act::Echo));
    assert!(may(&builder, Act::Stream("video")) && !may(&builder, Act::Stream("videos")));
}

#[test]
fn a_push_is_allowed_by_destination() {
    let policy = policy(
        "allow 1 push 5/jobs\n\
         allow 2 push builder/*\n\
         allow 3 push \"7\"/jobs\n\
         allow 4 push \"a b/c\"/jobs",
    );
    let may =
        |who: u16, to: &Owner, name| policy.rights_of(&owner(who, None)).allow(Act::Push(to, name));
    assert!(may(1, &owner(5, None), "jobs"));
    assert!(!may(1, &owner(6, None), "jobs") && !may(1, &owner(5, None), "mail"));
    assert!(may(2, &owner(9, Some("builder")), "mail") && !may(2, &owner(9, None), "mail"));
    assert!(may(3, &owner(9, Some("7")), "jobs") && !may(3, &owner(7, None), "jobs"));
    assert!(may(4, &owner(9, Some("a b/c")), "jobs"), "a name may have a slash of its own");
}

#[test]
fn a_filter_covers_what_is_not_wider() {
    for (wide, narrow) in [
        ("#", "#"),
        ("#", "a/+/b"),
        ("a/#", "a"),
        ("a/#", "a/b/#"),
        ("a/+", "a/b"),
        ("a/+", "a/+"),
        ("+/b/+", "a/b/+"),
        ("a/+/#", "a/b"),
    ] {
        assert!(covers(wide, narrow), "{wide} covers {narrow}");
    }
    for (wide, narrow) in [
        ("a", "b"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a", "+"),
        ("+", "#"),
        ("a/+", "a/#"),
        ("a/+", "a"),
        ("a/b", "a/+"),
        ("a/#", "#"),
    ] {
        assert!(!covers(wide, narrow), "{wide} does not cover {narrow}");
    }
}

#[test]
fn topics_are_allowed_by_filter() {
    let policy = policy(
        "allow 1 publish sensors/+/temperature\nallow 1 subscribe alarms/#\n\
         allow 2 publish # # everything",
    );
    let one = policy.rights_of(&owner(1, None));
    assert!(one.allow(Act::Publish("sensors/7/temperature")));
    assert!(!one.allow(Act::Publish("sensors/7/humidity")) && !one.allow(Act::Publish("alarms")));
    assert!(one.allow(Act::Subscribe("alarms/+/fire")) && !one.allow(Act::Subscribe("#")));
    assert!(policy.rights_of(&owner(2, None)).allow(Act::Publish("a/b/c")));
}

#[test]
fn the_first_limit_counts() {
    let policy = policy(
        "limit 5 channels 2\nlimit * channels 8\nlimit * memory 512K\nlimit 5 memory 4M\n\
         limit big memory 70000\nlimit big subscriptions 0",
    );
    let (five, big) = (owner(5, None), owner(6, Some("big")));
    assert_eq!(policy.limit(&five, Resource::Channels), Some(2));
    assert_eq!(policy.limit(&big, Resource::Channels), Some(8));
    assert_eq!(policy.limit(&five, Resource::Memory), Some(512 << 10));
    assert_eq!(policy.limit(&five, Resource::Subscriptions), None);
    assert_eq!(policy.limit(&big, Resource::Subscriptions), Some(0));
}

#[test]
fn a_line_that_is_no_rule_is_named_and_nothing_is_added() {
    for (line, expected) in [
        ("permit * echo", Expected::Verb),
        ("allow", Expected::Who),
        ("allow 40000 echo", Expected::Who),
        ("allow \"open echo", Expected::Who),
        ("allow \"\" echo", Expected::Who),
        ("allow a/b echo", Expected::Who),
        ("allow *", Expected::Right),
        ("allow * shout", Expected::Right),
        ("allow * serve", Expected::Name),
        ("allow * serve a*b", Expected::Name),
        ("allow * serve a/b", Expected::Name),
        ("allow * serve # nothing", Expected::Name),
        ("allow * push", Expected::Destination),
        ("allow * push 5/", Expected::Destination),
        ("allow * push /jobs", Expected::Destination),
        ("allow * publish a/#/b", Expected::Filter),
        ("allow * subscribe", Expected::Filter),
        ("allow * stream", Expected::Stream),
        ("allow * echo twice", Expected::End),
        ("allow * publish # everything", Expected::End),
        ("limit * rings 5", Expected::Resource),
        ("limit * channels", Expected::Number),
        ("limit * channels 5K", Expected::Number),
        ("limit * channels -1", Expected::Number),
        ("limit * memory +5", Expected::Size),
        ("limit * memory 5G", Expected::Size),
        ("limit * memory K", Expected::Size),
        ("limit * memory 99999999999999999M", Expected::Size),
    ] {
        let mut policy = policy("allow 1 echo");
        let text = format!("# first\nallow * echo\n  {line}\nnor this");
        let wrong = Error { line: 3, expected };
        assert_eq!(policy.add(&text), Err(wrong), "{line}");
        assert_eq!(policy.len(), 1, "{line}");
        assert!(wrong.to_string().starts_with("3: "));
    }
}

/// Filters and topics of few levels and names, so that they meet.
fn levels(last: &'static str) -> impl Strategy<Value = String> {
    (prop::collection::vec(prop::sample::select(vec!["a", "b", "+"]), 1..4), any::<bool>())
        .prop_map(move |(mut levels, open)| {
            if open && !last.is_empty() {
                levels.push(last);
            }
            levels.join("/")
        })
}

proptest! {
    /// One filter covers another exactly if it matches all that the other matches.
    #[test]
    fn covering_is_matching_all_of_it(wide in levels("#"), narrow in levels("#")) {
        // A third name stands for any other; four levels go past both.
        let names = ["a", "b", "c"];
        let mut topics = names.map(str::to_owned).to_vec();
        let mut longest = topics.clone();
        for _ in 0..5 {
            longest = longest.iter().flat_map(|t| names.map(|n| format!("{t}/{n}"))).collect();
            topics.extend(longest.clone());
        }
        let all = topics.iter().filter(|t| covers(&narrow, t)).all(|t| covers(&wide, t));
        prop_assert_eq!(covers(&wide, &narrow), all, "{} {}", wide, narrow);
    }

    /// No text makes the parser do anything but accept it or name a line.
    #[test]
    fn any_text_is_judged(text in "(allow|limit|[a-z\"*#/ 0-9\n]){0,40}") {
        let mut policy = Policy::default();
        match policy.add(&text) {
            Ok(()) => prop_assert!(policy.len() <= text.lines().count()),
            Err(wrong) => prop_assert!((1..=text.lines().count()).contains(&wrong.line)),
        }
    }
}
