//! What the store holds when a conversation begins, and how it is put back for the next one.

use alloc::collections::BTreeMap;

use crate::connection::{DIRECTORY, GET_PERMS, SET_PERMS, Toolstack};

/// Directories in which conversations make nodes beside those that belong there.
const DIRECTORIES: [&str; 6] =
    ["/", "/tool", "/tool/xenstored", "/local", "/local/domain", "/local/domain/0"];
/// Nodes whose value or permissions a conversation may change.
const NODES: [&str; 4] = ["/", "/tool", "/local/domain/0", "/local/domain/0/name"];
/// Names that have permissions and nothing else.
const SPECIAL: [&str; 2] = ["@introduceDomain", "@releaseDomain"];
/// What the toolstack keeps at the root for itself: not of the protocol, so no conversation
/// expects it.
const TOOLS: [&str; 2] = ["vm", "libxl"];

/// `XS_CONTROL` of xen/include/public/io/xs_wire.h.
const CONTROL: u32 = 0;
/// The commands of CONTROL that show limits, and set one with `set NAME VALUE`.
const LIMITS: [&str; 2] = ["quota", "quota-soft"];

type Bytes = Vec<u8>;

/// The store as it was before the first conversation.
#[derive(Debug)]
pub(crate) struct Scene {
    children: BTreeMap<&'static str, Vec<Bytes>>,
    values: BTreeMap<&'static str, Bytes>,
    perms: BTreeMap<&'static str, Vec<Bytes>>,
    /// By the command that shows them: name and value.
    limits: BTreeMap<&'static str, Vec<(String, String)>>,
}

impl Scene {
    /// Takes note of everything that can be put back.
    pub(crate) fn note(toolstack: &mut Toolstack) -> Result<Self, String> {
        let mut scene = Self {
            children: BTreeMap::new(),
            values: BTreeMap::new(),
            perms: BTreeMap::new(),
            limits: BTreeMap::new(),
        };
        for path in DIRECTORIES {
            let mut children =
                toolstack.strings(DIRECTORY, &[path.as_bytes()])?.unwrap_or_default();
            children.retain(|name| !TOOLS.iter().any(|tool| name == tool.as_bytes()));
            scene.children.insert(path, children);
        }
        for path in NODES {
            let value = toolstack.read(path.as_bytes())?;
            scene.values.insert(path, value.ok_or_else(|| format!("{path} is not there"))?);
        }
        for path in NODES.into_iter().chain(SPECIAL) {
            // Not every store tells those of a special name.
            if let Some(perms) = toolstack.strings(GET_PERMS, &[path.as_bytes()])? {
                scene.perms.insert(path, perms);
            }
        }
        for command in LIMITS {
            scene.limits.insert(command, limits(toolstack, command)?);
        }
        Ok(scene)
    }

    /// Puts back what a conversation left otherwise.
    pub(crate) fn restore(&self, toolstack: &mut Toolstack) -> Result<(), String> {
        for (path, expected) in &self.children {
            let children = toolstack.strings(DIRECTORY, &[path.as_bytes()])?.unwrap_or_default();
            for name in children.iter().filter(|name| !expected.contains(name)) {
                let slash = if *path == "/" { "" } else { "/" };
                toolstack.remove(&[path.as_bytes(), slash.as_bytes(), name].concat())?;
            }
        }
        for (path, value) in &self.values {
            if toolstack.read(path.as_bytes())?.as_ref() != Some(value) {
                toolstack.write(path.as_bytes(), value)?;
            }
        }
        for (path, perms) in &self.perms {
            let path = path.as_bytes();
            if toolstack.strings(GET_PERMS, &[path])?.as_ref() != Some(perms) {
                let words: Vec<&[u8]> =
                    [path].into_iter().chain(perms.iter().map(|perm| &perm[..])).collect();
                toolstack.ask(SET_PERMS, &words)?;
            }
        }
        for (command, limits_then) in &self.limits {
            let now = limits(toolstack, command)?;
            for (name, value) in limits_then.iter().filter(|limit| !now.contains(limit)) {
                let words = [command, "set", name, value].map(str::as_bytes);
                toolstack.ask(CONTROL, &words)?;
            }
        }
        Ok(())
    }
}

/// The limits that a command shows, one a line: `NAME : VALUE words`. A store without the command
/// has none that a conversation could change.
fn limits(toolstack: &mut Toolstack, command: &str) -> Result<Vec<(String, String)>, String> {
    let answer = toolstack.ask(CONTROL, &[command.as_bytes()])?.payload;
    let text = String::from_utf8_lossy(&answer);
    let limit = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        Some((name.trim().to_owned(), rest.split_whitespace().next()?.to_owned()))
    };
    Ok(text.lines().filter_map(limit).collect())
}
