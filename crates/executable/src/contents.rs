//! What is remembered of one layer: its programs, its links and what it hides of the layers below.
//!
//! Directories and files that cannot be executed are not remembered: they are most of an image,
//! and lead to no program.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::Machine;

/// Longer paths are not remembered: the kernel opens none (`PATH_MAX`).
const PATH_BYTES_MAX: usize = 4096;
/// Deeper paths are not remembered: a bound on the work of resolving one.
const PATH_DEPTH_MAX: usize = 128;
/// What an entry of a map takes beside its texts, roughly.
const ENTRY_BYTES: usize = 128;

/// A remembered file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// An ELF executable.
    Elf(Machine),
    /// A script, and the program that runs it.
    Script(String),
    /// A file with an `x` bit that is neither.
    Other,
    /// A symbolic link, and its target as written.
    Symlink(String),
    /// Another name of a file of this layer or of one below.
    HardLink(String),
}

/// The programs and links of a layer, as far as it was read.
///
/// Paths are clean: no leading `/`, no empty, `.` or `..` component; the root is the empty path.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    nodes: BTreeMap<String, Node>,
    whiteouts: BTreeSet<String>,
    opaque: BTreeSet<String>,
    bytes: usize,
    last: String,
    unsorted: bool,
}

impl Contents {
    /// Takes note of the entry at `path`, with a node if it is one to remember.
    pub(crate) fn add(&mut self, path: &str, node: Option<Node>) {
        let path = clean(path);
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        // https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
        if name == ".wh..wh..opq" {
            self.pass(directory);
            self.remember(directory.len());
            self.opaque.insert(directory.to_owned());
        } else if name.starts_with(".wh..wh.") {
            // AUFS's own notes.
        } else if let Some(name) = name.strip_prefix(".wh.") {
            let hidden = join(directory, name);
            self.pass(&hidden);
            self.remember(hidden.len());
            self.whiteouts.insert(hidden);
        } else {
            self.pass(&path);
            let fits = path.len() <= PATH_BYTES_MAX && path.split('/').count() <= PATH_DEPTH_MAX;
            let fits = |node: &Node| fits && !path.is_empty() && node.bytes() <= PATH_BYTES_MAX;
            match node.filter(fits) {
                Some(node) => {
                    self.remember(path.len() + node.bytes());
                    self.nodes.insert(path, node);
                }
                // Of two entries for one path the later holds.
                None => _ = self.nodes.remove(&path),
            }
        }
    }

    /// Roughly the memory that it takes: never less for entries that replace others.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether an entry at `path` is unlikely to follow: builders sort a layer's entries, this one's
    /// have been sorted so far, and `path` should have come before the last.
    pub(crate) fn is_past(&self, path: &str) -> bool {
        !self.unsorted && path.split('/').lt(self.last.split('/'))
    }

    /// The node at `path`, which is clean.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Whether this layer, which has no node at `path`, hides what lower layers have there.
    pub(crate) fn hides(&self, path: &str) -> bool {
        let mut ancestors = path.match_indices('/').map(|(end, _)| &path[..end]);
        self.whiteouts.contains(path)
            || self.opaque.contains("")
            || ancestors.any(|ancestor| {
                self.nodes.contains_key(ancestor)
                    || self.whiteouts.contains(ancestor)
                    || self.opaque.contains(ancestor)
            })
    }

    /// The nodes by their paths, in order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    fn remember(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes + ENTRY_BYTES);
    }

    fn pass(&mut self, path: &str) {
        self.unsorted |= self.is_past(path);
        path.clone_into(&mut self.last);
    }
}

impl Node {
    fn bytes(&self) -> usize {
        match self {
            Self::Script(text) | Self::Symlink(text) | Self::HardLink(text) => text.len(),
            Self::Elf(_) | Self::Other => 0,
        }
    }
}

/// `path` below the root, whatever it begins with; `..` at the root stays there.
pub(crate) fn clean(path: &str) -> String {
    let mut clean = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => _ = clean.pop(),
            _ => clean.push(component),
        }
    }
    clean.join("/")
}

/// `name` in `directory`, which is clean.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_root() {
        for (path, expected) in [
            ("./usr/bin/", "usr/bin"),
            ("/etc//x", "etc/x"),
            ("../../etc/../x", "x"),
            ("./", ""),
            ("a/b/../../..", ""),
        ] {
            assert_eq!(clean(path), expected);
        }
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut contents = Contents::default();
        contents.add("app", Some(Node::Other));
        contents.add("./app", Some(Node::Script("/bin/sh".to_owned())));
        assert_eq!(contents.get("app"), Some(&Node::Script("/bin/sh".to_owned())));
        contents.add("app/", None);
        assert_eq!(contents.get("app"), None);
    }

    #[test]
    fn hides_what_whiteouts_opaque_directories_and_files_cover() {
        let mut contents = Contents::default();
        contents.add("etc/.wh.gone", None);
        contents.add("opt/.wh..wh..opq", None);
        contents.add("bin", Some(Node::Symlink("usr/bin".to_owned())));
        contents.add(".wh..wh.plnk/1", None);
        for path in ["etc/gone", "etc/gone/x", "opt/a/b", "opt/a", "bin/sh"] {
            assert!(contents.hides(path), "{path}");
        }
        for path in ["etc", "etc/gone2", "opt", "usr/bin/sh", "optional"] {
            assert!(!contents.hides(path), "{path}");
        }
        contents.add(".wh..wh..opq", None);
        assert!(contents.hides("usr/bin/sh"));
    }

    #[test]
    fn knows_what_a_sorted_layer_has_passed() {
        let mut contents = Contents::default();
        assert!(!contents.is_past("a"));
        for path in ["etc/", "etc/x", "usr/", "usr/bin/", "usr/bin/.wh.old", "usr/bin-x"] {
            contents.add(path, None);
        }
        assert!(contents.is_past("usr/bin/sh"));
        assert!(!contents.is_past("usr/local/bin/sh"));
        contents.add("bin/x", None);
        assert!(!contents.is_past("a"), "it is not sorted");
    }
}
