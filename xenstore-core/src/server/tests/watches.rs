//! Who hears of what, and when.

use super::*;

#[test]
fn an_own_change_is_told_before_it_is_acknowledged() {
    let mut lab = Lab::new(&[1]);
    assert_eq!(lab.ask(1, Op::Watch, 0, "data|t|"), ["OK|", "!data t"]);
    assert_eq!(lab.ask(1, Op::Write, 0, "data/a/b|x"), ["!data/a/b t", "OK|"]);
    assert_eq!(lab.ask(1, Op::Unwatch, 0, "/local/domain/1/data|t|"), ["OK|"]);
    assert_eq!(lab.ask(1, Op::Write, 0, "data/a/b|x"), ["OK|"]);
}

#[test]
fn a_removal_is_told_from_below_and_only_where_nodes_were() {
    let mut lab = Lab::new(&[]);
    lab.ok(0, Op::Write, 0, "/t/a/b/c|");
    for path in ["/t", "/t/a", "/t/a/b", "/t/a/b/c", "/t/a/b/c/none", "/t/a/nope", "/"] {
        lab.ok(0, Op::Watch, 0, &format!("{path}|{path}|"));
    }
    let events =
        ["!/t/a/b/c /t/a/b/c", "!/t/a/b /t/a/b", "!/t/a /t", "!/t/a /t/a", "!/t/a /", "OK|"];
    assert_eq!(lab.ask(0, Op::Rm, 0, "/t/a|"), events);
}

#[test]
fn a_depth_limited_watch_hears_of_new_parents() {
    let mut lab = Lab::new(&[]);
    lab.ok(0, Op::Mkdir, 0, "/a|");
    lab.ok(0, Op::Watch, 0, "/a|one|1|");
    assert_eq!(lab.ask(0, Op::Write, 0, "/a/b/c/d|x"), ["!/a/b one", "OK|"]);
    assert_eq!(lab.ask(0, Op::Write, 0, "/a/b/c/d|x"), ["OK|"]);
    assert_eq!(lab.ask(0, Op::Write, 0, "/a/b|x"), ["!/a/b one", "OK|"]);
}

#[test]
fn watches_with_one_token_are_told_as_one() {
    let mut lab = Lab::new(&[1]);
    for path in ["data", "/local", "/local/domain/1/data/a"] {
        lab.ok(1, Op::Watch, 0, &format!("{path}|t|"));
    }
    let events = ["!data/a t", "!/local/domain/1/data/a t", "OK|"];
    assert_eq!(lab.ask(1, Op::Write, 0, "data/a|"), events, "one for each spelling of the path");
}

#[test]
fn long_tokens_are_told_apart_by_their_bytes() {
    let mut lab = Lab::new(&[1]);
    // FNV-1a, by which long tokens are compared first, has one value for two of these.
    let mark = |token: &str| {
        token
            .bytes()
            .fold(0x811c_9dc5_u32, |mark, byte| (mark ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    };
    let mut seen = BTreeMap::new();
    let (one, other) = (0..1_000_000)
        .map(|number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .map(|number| format!("a token that is rather long: {number:016x}"))
        .find_map(|token| seen.insert(mark(&token), token.clone()).map(|first| (first, token)))
        .expect("a million tokens have at least two marks that agree");
    for (path, token) in [("data/a", &one), ("data/a", &other), ("data", &one), ("data", &other)] {
        lab.ask(1, Op::Watch, 0, &format!("{path}|{token}|"));
    }
    lab.read(1);
    lab.ok(0, Op::Write, 0, "/local/domain/1/data/a|v");
    let told = [format!("!data/a {one}"), format!("!data/a {other}")];
    assert_eq!(lab.read(1), told, "each once, though two watches of each hear of it");
}

#[test]
fn who_may_not_read_is_not_told() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert_eq!(lab.ask(1, Op::Watch, 0, "/secret|t|"), ["OK|", "!/secret t"]);
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert!(lab.read(1).is_empty());
    lab.ok(0, Op::SetPerms, 0, "/secret|n0|r1|");
    assert_eq!(lab.read(1), ["!/secret t"]);
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert_eq!(lab.read(1), ["!/secret/a t"], "the parent is readable");
    lab.ok(0, Op::SetPerms, 0, "/secret|n0|");
    assert_eq!(lab.read(1), ["!/secret t"], "who could read before is told of the change");
    lab.ok(0, Op::Write, 0, "/secret/a|");
    assert!(lab.read(1).is_empty());
}

#[test]
fn events_that_wait_are_small_however_long_their_tokens() {
    let mut lab = Lab::new(&[1]);
    lab.ok(0, Op::SetQuota, 0, "1|memory|0|");
    let token = "t".repeat(3900);
    for number in 0..128 {
        lab.ok(1, Op::Watch, 0, &format!("data|{number}{token}|"));
    }
    for number in 0..40 {
        lab.ok(0, Op::Write, 0, &format!("/local/domain/1/data/{number}|x"));
    }
    let connection = lab.server.audience.connections.find(lab.clients[&1]).expect("it lives");
    let (held, waiting) = (connection.outbox.held(), connection.outbox.len());
    assert!(waiting > 128 * 4000, "every watch was told: {waiting} bytes");
    assert!(held < 48 << 10, "{held} bytes are held for {waiting}");
    let events = lab.read(1);
    assert!(events.len() >= 128, "{} events", events.len());
}
