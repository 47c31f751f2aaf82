//! The command line, read on the host: the image itself has no test harness.

#[path = "../src/options.rs"]
#[expect(unreachable_pub, reason = "a module of a library, read here alone")]
mod options;

use options::{EventAbi, Failure, Hypercalls, Ipv4, Malformed, Net, Options, Subnet};

/// What is understood, and the words that are not.
fn parse(line: &str) -> (Result<Options, Malformed<'_>>, Vec<&str>) {
    let mut unknown = Vec::new();
    let options = Options::parse(line, |word| unknown.push(word));
    (options, unknown)
}

#[test]
fn the_port_of_dom0_makes_a_store() {
    for line in ["--event 14", "--event=14", "  --event\t14 ", "event=14"] {
        let (options, unknown) = parse(line);
        assert_eq!(options, Ok(Options { event: Some(14), ..Options::default() }), "{line:?}");
        assert!(unknown.is_empty(), "{line:?} leaves {unknown:?}");
    }
    assert_eq!(parse("").0, Ok(Options::default()), "nothing said: the data role");
}

#[test]
fn switches_may_stand_anywhere() {
    let (options, unknown) = parse("events=2l --event 7 --hypercalls page test-fault");
    let expected = Options {
        event: Some(7),
        events: EventAbi::TwoLevel,
        hypercalls: Hypercalls::Page,
        failure: Some(Failure::Fault),
        net: Net::default(),
    };
    assert_eq!((options, unknown), (Ok(expected), vec![]));
    assert_eq!(parse("events fifo").0.map(|o| o.events), Ok(EventAbi::Fifo));
    assert_eq!(parse("test-panic").0.map(|o| o.failure), Ok(Some(Failure::Panic)));
}

#[test]
fn addresses_are_written_as_hosts_of_virtual_machines_have_them() {
    let net = |line| parse(line).0.unwrap().net;
    assert!(!net("events=2l").is_wanted(), "nothing said: no address");
    assert_eq!(net("ip=dhcp"), Net { ipv4: Some(Ipv4::Dhcp), ..Net::default() });
    let four = Subnet { address: "10.0.0.2".parse().unwrap(), prefix: 24 };
    let six = Subnet { address: "fd00::2".parse().unwrap(), prefix: 64 };
    let all = net("ip=10.0.0.2/24 gw=10.0.0.1 ip6=fd00::2/64 gw6=fe80::1");
    let expected = Net {
        ipv4: Some(Ipv4::Static(four)),
        gateway4: "10.0.0.1".parse().ok(),
        ipv6: Some(six),
        gateway6: "fe80::1".parse().ok(),
    };
    assert_eq!(all, expected);
    assert!(net("ip6=fd00::2/64").is_wanted());
}

#[test]
fn unknown_words_are_named_and_ignored() {
    let (options, unknown) = parse("--event 3 --trace-io -v quiet=1");
    assert_eq!(options.map(|o| o.event), Ok(Some(3)));
    assert_eq!(unknown, ["--trace-io", "-v", "quiet=1"]);
}

#[test]
fn a_store_has_no_addresses_and_says_so() {
    let (options, unknown) = parse("--event 3 gw=10.8.0.1 ip=10.9.0.2/24 events=2l");
    let expected = Options { event: Some(3), events: EventAbi::TwoLevel, ..Options::default() };
    assert_eq!((options, unknown), (Ok(expected), vec!["gw", "ip"]));
}

#[test]
fn a_bad_value_is_named_with_what_is_wanted() {
    for (line, text) in [
        ("--event", "command line: event wants a port number, and nothing follows it"),
        ("--event x", "command line: event wants a port number, not \"x\""),
        ("--event 0", "command line: event wants a port number, not \"0\""),
        ("--event 4294967296", "command line: event wants a port number, not \"4294967296\""),
        ("events=3l", "command line: events wants fifo or 2l, not \"3l\""),
        (
            "ip=10.0.0.2",
            "command line: ip wants dhcp, or one host's address and its prefix as 10.0.0.2/24, not \
             \"10.0.0.2\"",
        ),
        (
            "ip6=ff02::1/64",
            "command line: ip6 wants one host's address and its prefix as fd00::2/64, not \
             \"ff02::1/64\"",
        ),
        ("gw=0.0.0.0", "command line: gw wants one host's IPv4 address, not \"0.0.0.0\""),
        ("gw=::1", "command line: gw wants one host's IPv4 address, not \"::1\""),
        ("gw6=fe80::1/64", "command line: gw6 wants one host's IPv6 address, not \"fe80::1/64\""),
        ("hypercalls", "command line: hypercalls wants direct or page, and nothing follows it"),
    ] {
        let error = parse(line).0.expect_err(line);
        assert_eq!(error.to_string(), text);
    }
    for line in [
        "ip=10.0.0.2/33",
        "ip=10.0.0.256/24",
        "ip=0.0.0.0/0",
        "ip=10.0.0.2/0",
        "ip=10.0.0.0/24",
        "ip=10.0.0.255/24",
        "ip6=fd00::2/0",
        "ip=224.0.0.1/24",
        "ip=255.255.255.255/8",
        "ip=DHCP",
        "ip6=10.0.0.2/24",
        "ip6=fd00::2/129",
        "ip6=ff02::1/64",
        "gw=0.0.0.0",
    ] {
        parse(line).0.expect_err(line);
    }
}

#[test]
fn networks_of_two_hosts_and_of_one_have_no_address_for_all() {
    for line in ["ip=10.0.0.0/31", "ip=10.0.0.1/31 gw=10.0.0.0", "ip=10.0.0.255/32"] {
        parse(line).0.expect(line);
    }
}

#[test]
fn nothing_is_said_twice() {
    for (line, text) in [
        ("ip=10.0.0.2/24 --ip 10.0.0.3/24", "command line: ip is there twice"),
        ("--event 3 event=4", "command line: event is there twice"),
        ("events=2l events=2l", "command line: events is there twice"),
    ] {
        assert_eq!(parse(line).0.expect_err(line).to_string(), text);
    }
}

#[test]
fn a_gateway_is_a_neighbour() {
    let four = "command line: gw wants another address of the network of ip=ADDRESS/PREFIX";
    let six = "command line: gw6 wants another address of the network of ip6=ADDRESS/PREFIX";
    for (line, text) in [
        ("gw=10.0.0.1", four),
        ("gw=10.0.0.1 ip=dhcp", four),
        ("ip=10.0.0.2/24 gw=10.0.1.1", four),
        ("ip=10.0.0.2/24 gw=10.0.0.2", four),
        ("gw6=fe80::1", six),
        ("ip=10.0.0.2/24 gw6=fd00::1", six),
        ("ip6=fd00::2/64 gw6=fd00:0:0:1::1", six),
        ("ip6=fe80::1/64 gw6=fe80::1", six),
    ] {
        assert_eq!(parse(line).0.expect_err(line).to_string(), text);
    }
    for line in ["gw=10.0.0.1 ip=10.0.0.2/24", "ip6=fd00::2/128 gw6=fe80::1"] {
        parse(line).0.expect(line);
    }
}
