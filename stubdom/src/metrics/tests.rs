use std::collections::{BTreeMap, BTreeSet};

use super::*;

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

fn everything() -> Figures<'static> {
    Figures {
        identity: Identity { version: "0.1.0", role: "data", xen: "4.20" },
        uptime: Duration::from_millis(90_500),
        memory: 4 << 20,
        memory_free: 1 << 20,
        activity: Some(Activity { events: 5, notifications: 6, wakeups: 4 }),
        store: Some(Store {
            requests: &[("READ", 100), ("WRITE", 20)],
            errors: &[("ENOENT", 3)],
            refusals: &[("nodes", 1)],
            nodes: 50,
            domains: 3,
            aborts: 2,
            bytes_in: 4096,
            ..Store::default()
        }),
        channels: Some(Channels { open: 2, opened: 9 }),
        ports: &PORTS,
    }
}

#[test]
fn every_figure_is_a_line_that_prometheus_reads() {
    let text = text(&everything());
    let samples = read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for (series, value) in [
        (r#"stubdom_info{version="0.1.0",role="data",xen="4.20"}"#, 1.0),
        ("stubdom_uptime_seconds", 90.5),
        ("stubdom_memory_bytes", 4_194_304.0),
        ("stubdom_memory_free_bytes", 1_048_576.0),
        ("stubdom_events_total", 5.0),
        ("stubdom_notifications_total", 6.0),
        ("stubdom_wakeups_total", 4.0),
        (r#"stubdom_store_requests_total{type="READ"}"#, 100.0),
        (r#"stubdom_store_errors_total{error="ENOENT"}"#, 3.0),
        (r#"stubdom_store_refusals_total{quota="nodes"}"#, 1.0),
        ("stubdom_store_nodes", 50.0),
        ("stubdom_store_aborts_total", 2.0),
        ("stubdom_store_received_bytes_total", 4096.0),
        ("stubdom_channels", 2.0),
        ("stubdom_channels_opened_total", 9.0),
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
    let page = text(&Figures { ports: &many, ..everything() });
    read(&page).unwrap_or_else(|error| panic!("{error}"));
    let too_many = ports(5000);
    assert!(Figures { ports: &too_many, ..everything() }.page().is_none());
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
