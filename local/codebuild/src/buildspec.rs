//! Buildspec 0.2, read into types.
//!
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html>
//!
//! A key that the reference does not know is refused, where CodeBuild itself only warns: a
//! misspelt `on-failure` should not be found out on the day of the failure. What cannot be done on
//! one machine is refused as well where a build would go wrong without it (batch builds, other
//! users, Parameter Store, Secrets Manager), and noted in the build's log where it would not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use regex::Regex;
use serde::de::{Deserializer, Error as _, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_saphyr::{MessageFormatter, UserMessageFormatter};

use crate::build::PhaseType;

/// How often `RETRY` tries again unless it says.
const RETRIES_DEFAULT: u32 = 3;
const RETRIES_MAX: u32 = 100;

/// What is wrong with a buildspec, and where: `unknown field `comands`, expected one of … at
/// line 4, column 5`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BuildspecError(String);

/// A buildspec.
#[derive(Debug, Clone)]
pub struct Buildspec {
    /// The shell of the commands.
    pub shell: ShellKind,
    /// The variables of `env`, which those of the project and of the build override.
    pub variables: BTreeMap<String, String>,
    /// The variables whose values the build tells in the end.
    pub exported_variables: Vec<String>,
    /// The phases that it has.
    pub phases: BTreeMap<PhaseType, PhaseSpec>,
    /// The sections that are accepted and have no effect on this machine.
    pub without_effect: Vec<&'static str>,
}

/// Which shell runs the commands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub enum ShellKind {
    /// `sh`, the default.
    #[default]
    Sh,
    /// `bash`.
    Bash,
}

/// One phase of a buildspec.
#[derive(Debug, Clone, Default)]
pub struct PhaseSpec {
    /// What to do when a command fails, where it is not the usual.
    pub on_failure: Option<OnFailure>,
    /// The runtimes asked for, which are those of the machine here: `name version`.
    pub runtime_versions: Vec<String>,
    /// The commands, run until one fails.
    pub commands: Vec<String>,
    /// The commands that run after these in any case.
    pub finally: Vec<String>,
}

/// What to do when a phase fails.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub enum OnFailure {
    /// End the build.
    Abort,
    /// Go on with the next phase.
    Continue,
    /// End the build and try it again as a new one.
    Retry {
        /// How often at most.
        count: u32,
        /// Only if the error reads so.
        pattern: Option<Regex>,
    },
}

impl Buildspec {
    /// Reads a buildspec, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, BuildspecError> {
        let raw: Raw = serde_saphyr::from_str(text).map_err(|error| {
            BuildspecError(error.without_snippet().render_with_formatter(&Messages))
        })?;
        let env = raw.env.unwrap_or_default();
        let phases = [
            (PhaseType::Install, raw.phases.install.map(PhaseSpec::from)),
            (PhaseType::PreBuild, raw.phases.pre_build.map(PhaseSpec::from)),
            (PhaseType::Build, raw.phases.build.map(PhaseSpec::from)),
            (PhaseType::PostBuild, raw.phases.post_build.map(PhaseSpec::from)),
        ];
        let sections = [
            ("proxy", raw.proxy.is_some()),
            ("reports", raw.reports.is_some()),
            ("artifacts", raw.artifacts.is_some()),
            ("cache", raw.cache.is_some()),
            ("git-credential-helper", env.git_credential_helper.is_some_and(|helper| helper.0)),
        ];
        Ok(Self {
            shell: env.shell,
            variables: env.variables.into_iter().map(|(name, value)| (name.0, value.0)).collect(),
            exported_variables: env.exported_variables.into_iter().map(|name| name.0).collect(),
            phases: phases.into_iter().filter_map(|(phase, spec)| Some((phase, spec?))).collect(),
            without_effect: sections
                .into_iter()
                .filter_map(|(name, present)| present.then_some(name))
                .collect(),
        })
    }
}

/// The words of the YAML reader, where it speaks to programmers or leaves out what helps.
struct Messages;

impl MessageFormatter for Messages {
    fn format_message<'a>(&self, error: &'a serde_saphyr::Error) -> Cow<'a, str> {
        use serde_saphyr::Error;
        match error {
            Error::Unexpected { expected: "string scalar", .. } => Cow::Borrowed(
                "expected a string, found subkeys or a list; a text with `: ` in it needs quotes",
            ),
            Error::Unexpected { expected: "sequence start", .. } => {
                Cow::Borrowed("expected a list, each item after a `-`")
            }
            Error::Unexpected { expected: "mapping start", .. } => {
                Cow::Borrowed("expected keys with values")
            }
            _ => UserMessageFormatter.format_message(error),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    #[expect(dead_code, reason = "reading it is the check")]
    version: Version,
    #[expect(dead_code, reason = "reading it refuses it")]
    run_as: Option<RunAs>,
    env: Option<RawEnv>,
    proxy: Option<RawProxy>,
    #[expect(dead_code, reason = "reading it refuses it")]
    batch: Option<Batch>,
    phases: RawPhases,
    reports: Option<BTreeMap<String, RawReport>>,
    artifacts: Option<RawArtifacts>,
    cache: Option<RawCache>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawEnv {
    shell: ShellKind,
    variables: BTreeMap<VariableName, Text>,
    parameter_store: Option<ParameterStore>,
    exported_variables: Vec<VariableName>,
    secrets_manager: Option<SecretsManager>,
    git_credential_helper: Option<YesNo>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct RawPhases {
    install: Option<RawInstall>,
    pre_build: Option<RawPhase>,
    build: Option<RawPhase>,
    post_build: Option<RawPhase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawInstall {
    #[expect(dead_code, reason = "reading it refuses it")]
    run_as: Option<RunAs>,
    on_failure: Option<OnFailure>,
    runtime_versions: Option<BTreeMap<String, Text>>,
    commands: Option<Vec<Text>>,
    finally: Option<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawPhase {
    #[expect(dead_code, reason = "reading it refuses it")]
    run_as: Option<RunAs>,
    on_failure: Option<OnFailure>,
    commands: Option<Vec<Text>>,
    finally: Option<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its keys are checked")]
struct RawProxy {
    upload_artifacts: Option<YesNo>,
    logs: Option<YesNo>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its keys are checked")]
struct RawReport {
    files: Option<IgnoredAny>,
    base_directory: Option<IgnoredAny>,
    discard_paths: Option<YesNo>,
    file_format: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its keys are checked")]
struct RawArtifacts {
    files: Option<IgnoredAny>,
    name: Option<Text>,
    discard_paths: Option<YesNo>,
    base_directory: Option<Text>,
    exclude_paths: Option<IgnoredAny>,
    enable_symlinks: Option<YesNo>,
    s3_prefix: Option<Text>,
    secondary_artifacts: Option<BTreeMap<String, RawArtifacts>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its keys are checked")]
struct RawCache {
    key: Option<Text>,
    fallback_keys: Option<IgnoredAny>,
    action: Option<Text>,
    paths: Option<IgnoredAny>,
}

impl From<RawInstall> for PhaseSpec {
    fn from(raw: RawInstall) -> Self {
        let runtimes = raw.runtime_versions.unwrap_or_default();
        Self {
            on_failure: raw.on_failure,
            runtime_versions: runtimes
                .into_iter()
                .map(|(name, version)| format!("{name} {}", version.0))
                .collect(),
            commands: texts(raw.commands),
            finally: texts(raw.finally),
        }
    }
}

impl From<RawPhase> for PhaseSpec {
    fn from(raw: RawPhase) -> Self {
        Self {
            on_failure: raw.on_failure,
            runtime_versions: Vec::new(),
            commands: texts(raw.commands),
            finally: texts(raw.finally),
        }
    }
}

fn texts(list: Option<Vec<Text>>) -> Vec<String> {
    list.unwrap_or_default().into_iter().map(|text| text.0).collect()
}

/// A scalar as it is written, so that `1.10` stays `1.10`; nothing is an empty text.
#[derive(Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<String>::deserialize(deserializer).map(|text| Self(text.unwrap_or_default()))
    }
}

/// A name that an environment variable can have.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct VariableName(String);

impl TryFrom<String> for VariableName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{name:?} cannot be the name of a variable"));
        }
        Ok(Self(name))
    }
}

/// `yes` and `no` besides `true` and `false`, as the reference has it.
struct YesNo(bool);

impl<'de> Deserialize<'de> for YesNo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "yes" | "true" => Ok(Self(true)),
            "no" | "false" => Ok(Self(false)),
            other => Err(D::Error::custom(format!("expected yes or no, found {other:?}"))),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Version;

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(version: String) -> Result<Self, String> {
        match version.as_str() {
            "0.2" => Ok(Self),
            "0.1" => Err("version 0.1 runs each command in a shell of its own and is not \
                          supported here; expected 0.2"
                .to_owned()),
            other => Err(format!("unknown version {other:?}, expected 0.2")),
        }
    }
}

impl TryFrom<String> for ShellKind {
    type Error = String;

    fn try_from(shell: String) -> Result<Self, String> {
        match shell.as_str() {
            "sh" => Ok(Self::Sh),
            "bash" => Ok(Self::Bash),
            other => Err(format!("unknown shell {other:?}, expected sh or bash")),
        }
    }
}

impl TryFrom<String> for OnFailure {
    type Error = String;

    fn try_from(action: String) -> Result<Self, String> {
        let expected = "expected ABORT, CONTINUE, RETRY, RETRY-count, RETRY-regex or \
                        RETRY-count-regex";
        let retry = match action.as_str() {
            "ABORT" => return Ok(Self::Abort),
            "CONTINUE" => return Ok(Self::Continue),
            "RETRY" => return Ok(Self::Retry { count: RETRIES_DEFAULT, pattern: None }),
            other => other
                .strip_prefix("RETRY-")
                .ok_or_else(|| format!("unknown on-failure {other:?}, {expected}"))?,
        };
        let (first, rest) = match retry.split_once('-') {
            Some((first, rest)) => (first, Some(rest)),
            None => (retry, None),
        };
        let (count, pattern) = match first.parse::<u32>() {
            Ok(count) if count <= RETRIES_MAX => (count, rest),
            Ok(count) => return Err(format!("on-failure retries {count}, not 0 to {RETRIES_MAX}")),
            Err(_) => (RETRIES_DEFAULT, Some(retry)),
        };
        let pattern = pattern
            .map(|pattern| {
                Regex::new(pattern).map_err(|_| {
                    format!("on-failure {action:?} holds no regular expression, {expected}")
                })
            })
            .transpose()?;
        Ok(Self::Retry { count, pattern })
    }
}

/// Makes a type that refuses whatever it is read from, at its place in the file.
macro_rules! refused {
    ($name:ident, $message:literal) => {
        struct $name;

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                IgnoredAny::deserialize(deserializer)?;
                Err(D::Error::custom($message))
            }
        }
    };
}

refused!(RunAs, "run-as is not supported on this machine: commands run as the user of archweld");
refused!(Batch, "batch builds are not supported on this machine");
refused!(
    ParameterStore,
    "parameter-store is not supported on this machine: there is no Parameter Store to read"
);
refused!(
    SecretsManager,
    "secrets-manager is not supported on this machine: there is no Secrets Manager to read"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Buildspec::parse(text).unwrap_err().to_string()
    }

    fn phase(buildspec: &Buildspec, phase: PhaseType) -> &PhaseSpec {
        &buildspec.phases[&phase]
    }

    #[test]
    fn reads_every_section_of_the_reference() {
        let buildspec = Buildspec::parse(
            r#"
version: 0.2
env:
  shell: bash
  variables:
    VERSION: 1.10
    FLAG: yes
    NUMBER: 007
    EMPTY:
    TEXT: "a: b"
  exported-variables: [VERSION]
  git-credential-helper: yes
proxy: {upload-artifacts: no, logs: yes}
phases:
  install:
    runtime-versions: {python: 3.12}
    commands: []
  pre_build:
    on-failure: RETRY-2-.*refused.*
    commands:
      - echo one
      - |
        if true; then
          echo two
        fi
      - >-
        echo
        three
      - 5
      -
    finally:
      - echo always
  build:
  post_build:
    on-failure: CONTINUE
reports: {tests: {files: ["**/*"], file-format: JUNITXML}}
artifacts: {files: ["**/*"], discard-paths: yes, secondary-artifacts: {more: {files: [a]}}}
cache: {paths: [target]}
"#,
        )
        .unwrap();
        assert_eq!(buildspec.shell, ShellKind::Bash);
        let variables: Vec<_> =
            buildspec.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(variables, ["EMPTY=", "FLAG=yes", "NUMBER=007", "TEXT=a: b", "VERSION=1.10"]);
        assert_eq!(buildspec.exported_variables, ["VERSION"]);
        assert_eq!(phase(&buildspec, PhaseType::Install).runtime_versions, ["python 3.12"]);
        let pre_build = phase(&buildspec, PhaseType::PreBuild);
        assert_eq!(
            pre_build.commands,
            ["echo one", "if true; then\n  echo two\nfi\n", "echo three", "5", ""]
        );
        assert_eq!(pre_build.finally, ["echo always"]);
        assert!(matches!(
            &pre_build.on_failure,
            Some(OnFailure::Retry { count: 2, pattern: Some(pattern) })
                if pattern.as_str() == ".*refused.*"
        ));
        assert!(!buildspec.phases.contains_key(&PhaseType::Build));
        assert!(matches!(
            phase(&buildspec, PhaseType::PostBuild).on_failure,
            Some(OnFailure::Continue)
        ));
        assert_eq!(
            buildspec.without_effect,
            ["proxy", "reports", "artifacts", "cache", "git-credential-helper"]
        );
    }

    #[test]
    fn reads_json_as_well() {
        let text = r#"{"version": 0.2, "phases": {"build": {"commands": ["true"]}}}"#;
        let buildspec = Buildspec::parse(text).unwrap();
        assert_eq!(phase(&buildspec, PhaseType::Build).commands, ["true"]);
    }

    #[test]
    fn reads_each_way_to_retry() {
        let retry = |text: &str| match OnFailure::try_from(text.to_owned()) {
            Ok(OnFailure::Retry { count, pattern }) => {
                format!("{count} {}", pattern.map_or("any".to_owned(), |p| p.to_string()))
            }
            other => format!("{other:?}"),
        };
        assert_eq!(retry("RETRY"), "3 any");
        assert_eq!(retry("RETRY-4"), "4 any");
        assert_eq!(retry("RETRY-a-b"), "3 a-b");
        assert_eq!(retry("RETRY-0-a-b"), "0 a-b");
        assert!(retry("RETRY-101").contains("not 0 to 100"));
        assert!(retry("RETRY-(").contains("no regular expression"));
        assert!(retry("retry").contains("unknown on-failure"));
    }

    #[test]
    fn tells_what_is_wrong_and_where() {
        let cases = [
            "",
            "- a\n",
            "version: 0.2\n",
            "version: 0.1\nphases: {}\n",
            "version: 0.3\nphases: {}\n",
            "version: 0.2\nversion: 0.2\nphases: {}\n",
            "version: 0.2\nphases: {}\n---\nversion: 0.2\n",
            "version: 0.2\nphases:\n\tbuild: {}\n",
            "version: 0.2\nphases:\n  biuld:\n    commands: [a]\n",
            "version: 0.2\nphases:\n  build:\n    comands:\n      - a\n",
            "version: 0.2\nphases:\n  build:\n    commands: make\n",
            "version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b\n",
            "version: 0.2\nphases:\n  build:\n    commands: [\"a\n",
            "version: 0.2\nphases:\n  build:\n    on-failure: STOP\n",
            "version: 0.2\nphases:\n  build:\n    runtime-versions: {python: 3}\n",
            "version: 0.2\nphases:\n  build:\n    run-as: nobody\n",
            "version: 0.2\nrun-as: nobody\nphases: {}\n",
            "version: 0.2\nbatch:\n  build-list: []\nphases: {}\n",
            "version: 0.2\nenv:\n  shell: fish\nphases: {}\n",
            "version: 0.2\nenv:\n  variables:\n    A: [b]\nphases: {}\n",
            "version: 0.2\nenv:\n  variables:\n    A=B: c\nphases: {}\n",
            "version: 0.2\nenv:\n  parameter-store:\n    A: /a\nphases: {}\n",
            "version: 0.2\nenv:\n  secrets-manager:\n    A: a:b\nphases: {}\n",
            "version: 0.2\nphases: {}\nartifacts:\n  file: [a]\n",
            "version: 0.2\nphases: {}\na: *unknown\n",
        ];
        let told: Vec<_> = cases.map(error).into();
        insta::assert_snapshot!(told.join("\n"));
    }
}
