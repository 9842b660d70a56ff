//! What an image starts: the part of its config that says so, and what a script's first line adds.

use serde::Deserialize;

/// Where Docker looks for a program when an image sets no `PATH`
/// (<https://github.com/moby/buildkit/blob/master/util/system/path.go>).
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories of a `PATH` that are looked at: a bound on work, far above any real `PATH`.
const PATH_DIRECTORIES_MAX: usize = 64;

/// The fields of an image config's `config` that say what a container of the image starts
/// (<https://github.com/opencontainers/image-spec/blob/main/config.md#properties>); Docker's
/// configs have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Start {
    /// The program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments for the entrypoint or, where there is none, the program and its arguments.
    pub cmd: Option<Vec<String>>,
    /// `NAME=value`; of which only `PATH` matters here.
    pub env: Option<Vec<String>>,
    /// Where relative paths begin.
    pub working_dir: Option<String>,
}

impl Start {
    /// The program, as the config spells it.
    pub(crate) fn command(&self) -> Option<&str> {
        let words = [&self.entrypoint, &self.cmd].into_iter().flatten().find(|w| !w.is_empty());
        words?.first().map(String::as_str).filter(|command| !command.is_empty())
    }

    /// The directories of `PATH`, in order.
    pub(crate) fn path(&self) -> impl Iterator<Item = &str> {
        let env = self.env.iter().flatten().rev();
        let path = env.into_iter().find_map(|variable| variable.strip_prefix("PATH="));
        let path = path.filter(|path| !path.is_empty()).unwrap_or(PATH_DEFAULT);
        path.split(':').filter(|directory| !directory.is_empty()).take(PATH_DIRECTORIES_MAX)
    }

    /// The absolute paths that `command` may mean, in order: its own or, for a bare name, those
    /// along `PATH`.
    pub(crate) fn places(&self, command: &str) -> Vec<String> {
        let working_dir = self.working_dir.as_deref().unwrap_or_default();
        if command.starts_with('/') {
            vec![command.to_owned()]
        } else if command.contains('/') {
            vec![format!("/{working_dir}/{command}")]
        } else {
            self.path().map(|directory| format!("/{directory}/{command}")).collect()
        }
    }

    /// Whether `directory` is one where this image or any other keeps programs.
    pub(crate) fn keeps_programs(&self, directory: &str) -> bool {
        let directory = directory.trim_matches('/');
        self.path().chain(PATH_DEFAULT.split(':')).any(|known| known.trim_matches('/') == directory)
    }
}

/// The program that runs a script that begins with `head`, as the kernel reads its first line;
/// `None` when `head` is no script's.
///
/// `env` as the interpreter stands for the program that it starts.
pub(crate) fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let interpreter = words.next()?;
    let through_env = (interpreter.rsplit('/').next() == Some("env"))
        .then(|| words.find(|word| !word.starts_with('-') && !word.contains('=')))
        .flatten();
    Some(through_env.unwrap_or(interpreter).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(json: &str) -> Start {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_entrypoint_is_started_or_else_the_command() {
        for (config, command) in [
            (r#"{"Entrypoint": ["/tini", "--"], "Cmd": ["app"]}"#, Some("/tini")),
            (r#"{"Entrypoint": null, "Cmd": ["app", "x"], "User": "1"}"#, Some("app")),
            (r#"{"Entrypoint": [], "Cmd": ["/bin/sh", "-c", "app"]}"#, Some("/bin/sh")),
            (r#"{"Entrypoint": [""]}"#, None),
            ("{}", None),
        ] {
            assert_eq!(start(config).command(), command, "{config}");
        }
    }

    #[test]
    fn a_bare_name_is_looked_up_along_the_path() {
        let image = start(r#"{"Env": ["A=b", "PATH=/a:/b/c"], "WorkingDir": "/srv"}"#);
        assert_eq!(image.places("app"), ["//a/app", "//b/c/app"]);
        assert_eq!(image.places("./app"), ["//srv/./app"]);
        assert_eq!(image.places("/app"), ["/app"]);
        assert_eq!(Start::default().places("app").len(), 6);
        assert!(image.keeps_programs("/b/c/") && image.keeps_programs("usr/bin"));
        assert!(!image.keeps_programs("usr/lib/firmware") && !image.keeps_programs(""));
    }

    #[test]
    fn a_script_names_its_interpreter() {
        for (head, program) in [
            (&b"#!/bin/sh\nset -e"[..], Some("/bin/sh")),
            (b"#! /bin/bash -e\r\n", Some("/bin/bash")),
            (b"#!/usr/bin/env node", Some("node")),
            (b"#!/usr/bin/env -S A=b python3 -u\n", Some("python3")),
            (b"#!/usr/bin/env\n", Some("/usr/bin/env")),
            (b"#!", None),
            (b"#!\n/bin/sh", None),
            (b"# /bin/sh", None),
            (b"", None),
        ] {
            assert_eq!(interpreter(head).as_deref(), program, "{head:?}");
        }
    }
}
