use std::collections::{BTreeMap, BTreeSet};

use std::rc::Rc;

use xenstore_core::client::Nodes as _;
use xenstore_core::{DomId, Server};

use super::*;
use crate::store_in_memory;

/// Reads text by the format's rules, stricter than Prometheus does: the samples, by name and labels.
fn read(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut samples = BTreeMap::new();
    let (mut families, mut family) = (BTreeSet::new(), None::<(&str, &str)>);
    let mut helped = None;
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(line)?;
            check_name(name)?;
            if help.is_empty() || !families.insert(name) {
                return Err(format!("no help, or a family in two places: {line}"));
            }
            helped = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(line)?;
            let is_total = name.ends_with("_total");
            if helped.take() != Some(name) || is_total != (kind == "counter") {
                return Err(format!("not the type of what was explained: {line}"));
            }
            if !["counter", "gauge"].contains(&kind) {
                return Err(format!("no type: {line}"));
            }
            family = Some((name, kind));
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or(line)?;
            let (name, labels) = series.split_once('{').map_or((series, ""), |(n, l)| (n, l));
            if family.map(|(family, _)| family) != Some(name) {
                return Err(format!("a sample outside its family: {line}"));
            }
            if series.contains('{') {
                check_labels(labels.strip_suffix('}').ok_or(line)?)?;
            }
            let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
            if value < 0.0 || samples.insert(series.to_owned(), value).is_some() {
                return Err(format!("below zero, or twice: {line}"));
            }
        }
    }
    Ok(samples)
}

fn check_name(name: &str) -> Result<(), String> {
    let rest = name.strip_prefix("stubdom_").ok_or(name)?;
    let is_good = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_good.then_some(()).ok_or_else(|| format!("no name: {name}"))
}

/// `name="value",…`, the values escaped.
fn check_labels(labels: &str) -> Result<(), String> {
    let (mut rest, mut names) = (labels, BTreeSet::new());
    loop {
        let (name, value) = rest.split_once("=\"").ok_or_else(|| format!("no label: {rest}"))?;
        let is_name = name.bytes().all(|b| b.is_ascii_lowercase());
        if name.is_empty() || !is_name || !names.insert(name) {
            return Err(format!("no label's name, or twice: {name}"));
        }
        let mut bytes = value.bytes().enumerate();
        let end = loop {
            match bytes.next().ok_or("a label without an end")? {
                (_, b'\\') => match bytes.next() {
                    Some((_, b'\\' | b'"' | b'n')) => {}
                    other => return Err(format!("no escape: {other:?}")),
                },
                (at, b'"') => break at,
                (_, b'\n') => return Err("a label of two lines".into()),
                _ => {}
            }
        };
        match &value[end + 1..] {
            "" => return Ok(()),
            more => {
                rest = more.strip_prefix(',').ok_or_else(|| format!("after a label: {more}"))?
            }
        }
    }
}

fn text(figures: &Figures<'_>) -> String {
    figures.page().expect("memory for a page").text
}

const PORTS: [Port<'static>; 2] = [
    Port {
        name: "vif3.0",
        incoming: Way { frames: 10, bytes: 1000 },
        outgoing: Way { frames: 7, bytes: 700 },
        drops: &[("source", 2), ("no_room", 1), ("copy", 0)],
    },
    Port {
        name: "uplink",
        incoming: Way { frames: 1, bytes: 60 },
        outgoing: Way { frames: u64::MAX, bytes: 60 },
        drops: &[],
    },
];

/// A store that did something, and with it all that can be shown.
struct Everything {
    store: Server,
}

impl Everything {
    fn new() -> Self {
        let server = store_in_memory::server();
        let mut client = store_in_memory::connect(&server, DomId(0));
        client.write("/a", b"secret").unwrap();
        client.transact(|t| t.read("/a")).unwrap();
        client.read("/none").unwrap_err();
        client.watch("/a", "token").unwrap();
        drop(client);
        Self { store: Rc::into_inner(server).unwrap().into_inner() }
    }

    fn figures(&self) -> Figures<'_> {
        Figures {
            identity: Identity { version: "0.1.0", role: "data", xen: "4.20" },
            uptime: Duration::from_millis(90_500),
            memory: 4 << 20,
            memory_free: 1 << 20,
            activity: Activity { turns: 7, events: 5, notifications: 6, wakeups: 4 },
            copying: Some(Copying { calls: 2, copies: 30 }),
            store: Some(Store { counts: self.store.counts(), stats: self.store.stats() }),
            channels: Some(broker::Figures {
                channels: 2,
                services: 1,
                pushes_open: 0,
                subscriptions: 3,
                kept: 0,
                memory: 1 << 16,
                opened: 9,
                pushes: 100,
                push_bytes: 6400,
                published: 8,
                published_bytes: 80,
                refused: 1,
                violations: [
                    ("index", 1),
                    ("frame", 2),
                    ("greeting", 0),
                    ("overrun", 0),
                    ("id", 0),
                    ("payload", 0),
                ],
            }),
            ports: &PORTS,
        }
    }
}

#[test]
fn every_figure_is_a_line_that_prometheus_reads() {
    let all = Everything::new();
    let text = text(&all.figures());
    let samples = read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for (series, value) in [
        (r#"stubdom_info{version="0.1.0",role="data",xen="4.20"}"#, 1.0),
        ("stubdom_uptime_seconds", 90.5),
        ("stubdom_memory_bytes", 4_194_304.0),
        ("stubdom_memory_free_bytes", 1_048_576.0),
        ("stubdom_turns_total", 7.0),
        ("stubdom_events_total", 5.0),
        ("stubdom_notifications_total", 6.0),
        ("stubdom_wakeups_total", 4.0),
        ("stubdom_grant_copy_calls_total", 2.0),
        ("stubdom_grant_copies_total", 30.0),
        (r#"stubdom_store_requests_total{type="READ"}"#, 2.0),
        (r#"stubdom_store_requests_total{type="none"}"#, 0.0),
        (r#"stubdom_store_errors_total{error="ENOENT"}"#, 1.0),
        (r#"stubdom_store_refusals_total{quota="nodes"}"#, 0.0),
        ("stubdom_store_transactions_started_total", 1.0),
        (r#"stubdom_store_transactions_ended_total{how="conflict"}"#, 0.0),
        ("stubdom_store_transactions_open", 0.0),
        ("stubdom_store_watches", 1.0),
        ("stubdom_store_connections", 1.0),
        ("stubdom_channels", 2.0),
        ("stubdom_channels_opened_total", 9.0),
        ("stubdom_channels_push_bytes_total", 6400.0),
        (r#"stubdom_channels_violations_total{rule="frame"}"#, 2.0),
        ("stubdom_switch_ports", 2.0),
        (r#"stubdom_switch_frames_total{port="vif3.0",direction="in"}"#, 10.0),
        (
            r#"stubdom_switch_frames_total{port="uplink",direction="out"}"#,
            18_446_744_073_709_551_615.0,
        ),
        (r#"stubdom_switch_bytes_total{port="vif3.0",direction="out"}"#, 700.0),
        (r#"stubdom_switch_drops_total{port="vif3.0",reason="source"}"#, 2.0),
        (r#"stubdom_switch_drops_total{port="vif3.0",reason="copy"}"#, 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series} in\n{text}");
    }
    for told in ["secret", "token", "/a"] {
        assert!(!text.contains(told), "{told:?} is somebody else's: {text}");
    }
}

#[test]
fn every_figure_of_the_page_is_in_the_nodes() {
    let all = Everything::new();
    let figures = all.figures();
    let page = text(&figures);
    let nodes: BTreeMap<String, String> = figures.told().into_iter().collect();
    for (path, value) in [
        ("info", "version 0.1.0 role data xen 4.20"),
        ("uptime_seconds", "90.500"),
        ("store_nodes", "4"),
        ("store_transactions_ended_total", "committed 1 conflict 0 refused 0 dropped 0"),
        ("switch_frames_total/vif3-0", "in 10 out 7"),
        ("switch_drops_total/vif3-0", "source 2 no_room 1 copy 0"),
    ] {
        assert_eq!(nodes.get(path).map(String::as_str), Some(value), "{path} in {nodes:#?}");
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.strip_prefix("stubdom_").unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        if name == "info" {
            continue;
        }
        let last = labels.rsplit('"').nth(1);
        let word = last.map_or(value.to_owned(), |last| format!("{last} {value}"));
        let told = nodes.iter().filter(|(path, _)| path.split('/').next() == Some(name));
        let mut told = told.map(|(_, value)| format!(" {value} "));
        assert!(told.any(|told| told.contains(&format!(" {word} "))), "{line} in {nodes:#?}");
    }
    for (path, value) in &nodes {
        assert!(path.split('/').all(|name| !name.is_empty() && name.chars().all(legal)), "{path}");
        assert!(value.len() < 2048, "{path} has {} bytes, a guest's node has less", value.len());
        assert!(figures.lines().contains(&format!("{path}: {value}\n")));
    }
}

fn legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_@".contains(c)
}

#[test]
fn nodes_are_written_when_they_change_and_removed_when_they_go() {
    let all = Everything::new();
    let mut shown = Nodes::default();
    let first = shown.update(&all.figures());
    assert_eq!(first.len(), all.figures().told().len(), "all of them");
    assert_eq!(shown.update(&all.figures()), [], "nothing has changed");
    let mut figures = all.figures();
    figures.uptime += Duration::from_secs(10);
    figures.activity = Activity { turns: 8, events: 6, notifications: 7, wakeups: 5 };
    figures.memory_free -= 4096;
    assert_eq!(shown.update(&figures), [], "that is its own pulse");
    figures.ports = &PORTS[..1];
    let changed = shown.update(&figures);
    let of = |path: &str| changed.iter().find(|(of, _)| of == path).map(|(_, value)| value);
    assert_eq!(of("switch_ports"), Some(&Some("1".into())));
    assert_eq!(of("switch_frames_total/uplink"), Some(&None), "the port is gone");
    assert_eq!(of("switch_frames_total/vif3-0"), None, "as it was");
    assert_eq!(of("turns_total"), Some(&Some("8".into())), "with others it is told");
    shown.refused("switch_ports");
    let again = shown.update(&figures);
    assert_eq!(again, [("switch_ports".into(), Some("1".into()))]);
    let told = all.figures().told();
    for name in nodes::PULSE {
        assert!(told.iter().any(|(path, _)| path == name), "{name} is no figure");
    }
}

#[test]
fn a_domain_has_so_many_nodes_at_most() {
    let names: Vec<String> = (0..500).map(|number| format!("uplink{number}")).collect();
    let ports: Vec<_> = names.iter().map(|name| Port { name, ..PORTS[0] }).collect();
    let changes = Nodes::default().update(&Figures { ports: &ports, ..Figures::default() });
    assert_eq!(changes.len(), nodes::MOST);
}

#[test]
fn what_is_not_here_is_not_shown() {
    let text = text(&Figures::default());
    read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for absent in ["store", "channels", "switch"] {
        assert!(!text.contains(absent), "{absent} in\n{text}");
    }
}

#[test]
fn ports_with_one_address_are_told_apart() {
    let mut names: Vec<String> = Vec::new();
    for wanted in ["00:16:3e:00:00:01", "stack", "00:16:3e:00:00:01", "00:16:3e:00:00:01"] {
        let is_taken = |name: &str| names.iter().any(|taken| taken == name);
        names.push(port_name(wanted.into(), is_taken));
    }
    let expected = ["00:16:3e:00:00:01", "stack", "00:16:3e:00:00:01-2", "00:16:3e:00:00:01-3"];
    assert_eq!(names, expected);
    let ports: Vec<_> = names.iter().map(|name| Port { name, ..PORTS[0] }).collect();
    let text = text(&Figures { ports: &ports, ..Figures::default() });
    read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
}

#[test]
fn a_label_may_be_any_text() {
    let name = "a\"b\\c\nd{e=\"f\",}";
    let ports = [Port { name, ..Port::default() }];
    let text = text(&Figures { ports: &ports, ..Figures::default() });
    let samples = read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let series = r#"stubdom_switch_frames_total{port="a\"b\\c\nd{e=\"f\",}",direction="in"}"#;
    assert!(samples.contains_key(series), "{text}");
}

#[test]
fn a_page_has_an_end() {
    let names: Vec<String> = (0..5000).map(|number| format!("vif{number}.0")).collect();
    let ports = |count: usize| -> Vec<Port<'_>> {
        names[..count].iter().map(|name| Port { name, ..PORTS[0] }).collect()
    };
    let many = ports(200);
    let all = Everything::new();
    let page = text(&Figures { ports: &many, ..all.figures() });
    read(&page).unwrap_or_else(|error| panic!("{error}"));
    let too_many = ports(5000);
    assert!(Figures { ports: &too_many, ..all.figures() }.page().is_none());
}

#[test]
fn the_rules_would_be_missed() {
    let good = "# HELP stubdom_a_total A.\n# TYPE stubdom_a_total counter\nstubdom_a_total 1\n";
    assert!(read(good).is_ok());
    for (broken, what) in [
        (good.trim_end().to_owned(), "no end"),
        (good.replace("counter", "gauge"), "a total is a counter"),
        (good.replace("_total 1", "_total x"), "no number"),
        (good.replace("stubdom_a_total 1", "stubdom_b_total 1"), "another family"),
        (good.replace("a_total 1", "a_total{x=\"\\y\"} 1"), "no escape"),
        (good.replace("a_total 1", "a_total{x=\"y\"z=\"\"} 1"), "no comma"),
        (format!("{good}stubdom_a_total 2\n"), "twice"),
        (format!("{good}{good}"), "a family in two places"),
        (good.lines().skip(1).map(|line| format!("{line}\n")).collect(), "no help"),
    ] {
        assert!(read(&broken).is_err(), "{what}: {broken}");
    }
}
