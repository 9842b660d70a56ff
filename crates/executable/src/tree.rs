//! The image's files: its layers, laid over one another as far as they were read.

use std::collections::BTreeSet;

use crate::{
    contents::{Contents, Node, join},
    machine::Machine,
    start::Start,
};

/// Links that are followed one after another, as many as the kernel follows (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
/// Components that are looked at to resolve one path: a bound on work.
const STEPS_MAX: usize = 512;
/// Interpreters that run one another's scripts; the kernel allows for four.
const SCRIPTS_MAX: usize = 4;
/// The shell, and where there are others: any stands for any, for they come with the same base
/// image, and in a layer that is sorted `bash` comes megabytes before `sh`.
const SHELL: &str = "/bin/sh";
const SHELLS: [&str; 7] = [
    SHELL,
    "/bin/bash",
    "/bin/dash",
    "/bin/busybox",
    "/usr/bin/sh",
    "/usr/bin/bash",
    "/busybox/sh",
];
const SHELL_NAMES: [&str; 5] = ["sh", "bash", "dash", "ash", "busybox"];

/// Layers, the uppermost first.
pub(crate) struct Tree<'layers>(pub(crate) Vec<&'layers Contents>);

/// An executable: its path, clean, and which layer it is in, counted from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    pub(crate) path: String,
    pub(crate) depth: usize,
    pub(crate) machine: Machine,
}

/// What following a command came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    Executable(Executable),
    /// The layer at this depth has a file there that is no ELF executable and no script.
    Strange {
        depth: usize,
    },
    /// None of these paths, which are clean, was seen.
    Missing(Vec<String>),
}

struct Place<'layers> {
    path: String,
    depth: usize,
    node: &'layers Node,
}

impl<'layers> Tree<'layers> {
    /// The program that the image starts.
    pub(crate) fn started(&self, start: &Start) -> Followed {
        self.follow(start.command().unwrap_or(SHELL), start)
    }

    /// The shell.
    pub(crate) fn shell(&self, start: &Start) -> Followed {
        self.follow(SHELL, start)
    }

    /// The programs in directories for programs, with one for each machine; emulators aside, which
    /// are there for other machines' sake.
    pub(crate) fn programs(&self, start: &Start) -> Vec<Executable> {
        let mut machines = BTreeSet::new();
        let mut programs = Vec::new();
        for (depth, layer) in self.0.iter().enumerate() {
            for (path, node) in layer.nodes() {
                let Node::Elf(machine) = *node else { continue };
                let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
                if !machines.contains(&machine)
                    && start.keeps_programs(directory)
                    && !name.starts_with("qemu-")
                    && self.visible(path, 0).is_some_and(|(at, _)| at == depth)
                {
                    machines.insert(machine);
                    programs.push(Executable { path: path.to_owned(), depth, machine });
                }
            }
        }
        programs
    }

    /// The executable that runs when `command` is started: its file or, for a script, its
    /// interpreter.
    fn follow(&self, command: &str, start: &Start) -> Followed {
        let mut command = command.to_owned();
        for _ in 0..=SCRIPTS_MAX {
            let mut missing = Vec::new();
            let mut places = start.places(&command);
            if command.rsplit('/').next().is_some_and(|name| SHELL_NAMES.contains(&name)) {
                places.extend(SHELLS.map(str::to_owned));
            }
            let found = places
                .iter()
                .find_map(|path| self.resolve(path).map_err(|path| missing.extend(path)).ok());
            let Some(Place { path, depth, node }) = found else {
                return Followed::Missing(missing);
            };
            match node {
                Node::Elf(machine) => {
                    return Followed::Executable(Executable { path, depth, machine: *machine });
                }
                Node::Script(interpreter) => command.clone_from(interpreter),
                Node::Other | Node::Symlink(_) | Node::HardLink(_) => {
                    return Followed::Strange { depth };
                }
            }
        }
        Followed::Missing(Vec::new())
    }

    /// The file at `path`, links followed; an error is where it would be, if anywhere.
    fn resolve(&self, path: &str) -> Result<Place<'layers>, Option<String>> {
        // What is left of the path, last component first.
        let mut ahead: Vec<&str> = path.rsplit('/').collect();
        let mut directory = String::new();
        let (mut top, mut links, mut steps) = (0, 0, 0);
        while let Some(component) = ahead.pop() {
            steps += 1;
            if links > LINKS_MAX || steps > STEPS_MAX {
                return Err(None);
            }
            match component {
                "" | "." => continue,
                ".." => {
                    directory.truncate(directory.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let here = join(&directory, component);
            let Some((depth, node)) = self.visible(&here, top) else {
                directory = here;
                continue;
            };
            if !ahead.is_empty() {
                // A layer above may have files below what used to be a file or link. Directories
                // are not remembered.
                let rest = ahead.iter().rev().copied();
                let whole = rest.fold(here.clone(), |path, component| join(&path, component));
                if let Some((depth, node @ (Node::Elf(_) | Node::Script(_)))) =
                    self.visible(&whole, top)
                {
                    return Ok(Place { path: whole, depth, node });
                }
            }
            match node {
                Node::Symlink(target) => {
                    if target.starts_with('/') {
                        directory.clear();
                    }
                    ahead.extend(target.rsplit('/'));
                    links += 1;
                }
                Node::HardLink(target) if ahead.is_empty() => {
                    directory.clear();
                    ahead.extend(target.rsplit('/'));
                    links += 1;
                    // It is a name for what was there when its layer was made.
                    top = depth;
                }
                _ if ahead.is_empty() => return Ok(Place { path: here, depth, node }),
                _ => return Err(None),
            }
        }
        Err(Some(directory))
    }

    /// The uppermost node at `path`, unless a layer above hides it; layers above `top` aside.
    fn visible(&self, path: &str, top: usize) -> Option<(usize, &'layers Node)> {
        for (depth, layer) in self.0.iter().enumerate().skip(top) {
            if let Some(node) = layer.get(path) {
                return Some((depth, node));
            }
            if layer.hides(path) {
                return None;
            }
        }
        None
    }
}
