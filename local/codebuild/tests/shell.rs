//! Buildspecs run for real, by the service with its real worker.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archweld_codebuild::{
    CodeBuild, Environment, EnvironmentType, Notice, Project, Remote, Settings, Shell,
    ShellSettings, Source, SourceOverride, SourceType,
};
use archweld_local_api::Host;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than any build here takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Machine {
    folder: TempDir,
    codebuild: CodeBuild,
}

struct Finished {
    build: Value,
    log: String,
}

impl Machine {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&Path, &mut ShellSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        let mut settings = ShellSettings {
            folder: folder.path().join("work"),
            keep_folders: false,
            path: std::env::var_os("PATH").unwrap(),
            registry: None,
            variables: vec![("AWS_ENDPOINT_URL".into(), "http://localhost:1".into())],
            source: Some(SourceOverride::Folder(source)),
            remote: None,
        };
        change(folder.path(), &mut settings);
        let host = Host::real("000000000000", "us-east-1");
        let shell = Shell::new(host.clone(), settings).unwrap();
        let codebuild =
            CodeBuild::open(host, Settings::default(), Arc::new(shell), Arc::new(drop)).unwrap();
        let source = Source::git(SourceType::GitHub, "https://example.invalid/app.git");
        let environment = Environment::new(
            EnvironmentType::ArmContainer,
            "aws/codebuild/amazonlinux-aarch64-standard:4.0",
            "BUILD_GENERAL1_SMALL",
        );
        codebuild.create_project(Project::new("app", source, environment)).unwrap();
        Self { folder, codebuild }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join("source").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn start(&self, mut input: Value) -> String {
        input["projectName"] = json!("app");
        let started = self.codebuild.call("StartBuild", input).await.unwrap();
        started["build"]["id"].as_str().unwrap().to_owned()
    }

    async fn run(&self, input: Value) -> Finished {
        let mut notices = self.codebuild.subscribe();
        let id = self.start(input).await;
        let mut log = String::new();
        tokio::time::timeout(PATIENCE, async {
            loop {
                match notices.recv().await.unwrap() {
                    Notice::Log { line, .. } => {
                        log.push_str(&line);
                        log.push('\n');
                    }
                    Notice::Finished { .. } => break,
                    _ => {}
                }
            }
        })
        .await
        .unwrap();
        let found = self.codebuild.call("BatchGetBuilds", json!({"ids": [id]})).await.unwrap();
        Finished { build: found["builds"][0].clone(), log }
    }

    /// Runs a buildspec of one BUILD phase.
    async fn commands(&self, commands: &[&str]) -> Finished {
        self.buildspec(json!({"build": {"commands": commands}})).await
    }

    async fn buildspec(&self, phases: Value) -> Finished {
        let buildspec = json!({"version": 0.2, "phases": phases});
        self.run(json!({"buildspecOverride": buildspec.to_string()})).await
    }

    fn work_is_empty(&self) -> bool {
        fs::read_dir(self.folder.path().join("work")).unwrap().next().is_none()
    }
}

impl Finished {
    fn status(&self) -> &str {
        self.build["buildStatus"].as_str().unwrap()
    }

    /// What the commands printed, without CodeBuild's own lines and the further lines of commands
    /// that it echoes.
    fn output(&self) -> Vec<&str> {
        let buildspec: Value =
            serde_json::from_str(self.build["source"]["buildspec"].as_str().unwrap()).unwrap();
        let mut echoed = Vec::new();
        for phase in buildspec["phases"].as_object().unwrap().values() {
            for command in phase["commands"].as_array().unwrap() {
                echoed.extend(command.as_str().unwrap().lines().skip(1).map(str::to_owned));
            }
        }
        self.log
            .lines()
            .filter(|line| !line.starts_with("[Container]") && !echoed.iter().any(|e| e == line))
            .collect()
    }

    /// `INSTALL:SUCCEEDED …` for the phases of the buildspec that were reached.
    fn phases(&self) -> String {
        let phases = self.build["phases"].as_array().unwrap().iter();
        let shown = phases.filter_map(|phase| {
            let name = phase["phaseType"].as_str()?;
            let of_buildspec =
                ["INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD", "UPLOAD_ARTIFACTS"].contains(&name);
            of_buildspec.then(|| format!("{name}:{}", phase["phaseStatus"].as_str().unwrap()))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    fn context(&self, phase: &str) -> String {
        let phases = self.build["phases"].as_array().unwrap();
        let found = phases.iter().find(|found| found["phaseType"] == phase).unwrap();
        let context = &found["contexts"][0];
        format!(
            "{}: {}",
            context["statusCode"].as_str().unwrap(),
            context["message"].as_str().unwrap()
        )
    }
}

#[tokio::test]
async fn every_phase_runs_and_the_folder_goes() {
    let machine = Machine::new();
    machine.write("hello.txt", "hello\n");
    let finished = machine
        .buildspec(json!({
            "install": {"commands": ["echo in $CODEBUILD_BUILD_SUCCEEDING"]},
            "pre_build": {"commands": ["cat hello.txt"]},
            "build": {"commands": ["for i in 1 2; do\n  echo $i\ndone\n"]},
            "post_build": {"commands": ["echo out >&2"]},
        }))
        .await;
    assert_eq!(finished.status(), "SUCCEEDED", "{}", finished.log);
    assert_eq!(finished.output(), ["in 1", "hello", "1", "2", "out"]);
    let all: Vec<_> = finished.build["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["phaseType"].as_str().unwrap())
        .collect();
    assert_eq!(
        all,
        [
            "SUBMITTED",
            "QUEUED",
            "PROVISIONING",
            "DOWNLOAD_SOURCE",
            "INSTALL",
            "PRE_BUILD",
            "BUILD",
            "POST_BUILD",
            "UPLOAD_ARTIFACTS",
            "FINALIZING",
            "COMPLETED"
        ]
    );
    assert!(machine.work_is_empty());
}

#[tokio::test]
async fn phases_follow_each_other_as_documented() {
    let machine = Machine::new();
    let ok = || json!({"commands": ["true"]});
    let bad = || json!({"commands": ["false"]});
    let bad_and = |on_failure: &str| json!({"commands": ["false"], "on-failure": on_failure});
    let all = "INSTALL:SUCCEEDED PRE_BUILD:SUCCEEDED BUILD:SUCCEEDED POST_BUILD:SUCCEEDED \
               UPLOAD_ARTIFACTS:SUCCEEDED";
    let cases = [
        (json!({"build": ok()}), "SUCCEEDED", all),
        (json!({"install": bad(), "build": ok()}), "FAILED", "INSTALL:FAILED"),
        (
            json!({"pre_build": bad(), "build": ok()}),
            "FAILED",
            "INSTALL:SUCCEEDED PRE_BUILD:FAILED",
        ),
        (
            json!({"build": bad(), "post_build": ok()}),
            "FAILED",
            "INSTALL:SUCCEEDED PRE_BUILD:SUCCEEDED BUILD:FAILED POST_BUILD:SUCCEEDED \
             UPLOAD_ARTIFACTS:SUCCEEDED",
        ),
        (
            json!({"build": bad_and("ABORT"), "post_build": ok()}),
            "FAILED",
            "INSTALL:SUCCEEDED PRE_BUILD:SUCCEEDED BUILD:FAILED",
        ),
        (
            json!({"pre_build": bad_and("CONTINUE"), "build": ok()}),
            "FAILED",
            "INSTALL:SUCCEEDED PRE_BUILD:FAILED BUILD:SUCCEEDED POST_BUILD:SUCCEEDED \
             UPLOAD_ARTIFACTS:SUCCEEDED",
        ),
        (
            json!({"post_build": bad()}),
            "FAILED",
            "INSTALL:SUCCEEDED PRE_BUILD:SUCCEEDED BUILD:SUCCEEDED POST_BUILD:FAILED \
             UPLOAD_ARTIFACTS:SUCCEEDED",
        ),
    ];
    for (phases, status, expected) in cases {
        let finished = machine.buildspec(phases.clone()).await;
        assert_eq!(finished.status(), status, "{phases}\n{}", finished.log);
        assert_eq!(finished.phases(), expected, "{phases}");
    }
}

#[tokio::test]
async fn a_failure_skips_to_finally_and_is_told_as_aws_tells_it() {
    let machine = Machine::new();
    let finished = machine
        .buildspec(json!({
            "build": {
                "commands": ["echo one", "sh -c 'exit 42'", "echo never"],
                "finally": ["echo finally $CODEBUILD_BUILD_SUCCEEDING"],
            },
            "post_build": {"commands": ["echo post $CODEBUILD_BUILD_SUCCEEDING"]},
        }))
        .await;
    assert_eq!(finished.status(), "FAILED");
    assert_eq!(finished.output(), ["one", "finally 0", "post 0"]);
    assert_eq!(
        finished.context("BUILD"),
        "COMMAND_EXECUTION_ERROR: Error while executing command: sh -c 'exit 42'. Reason: exit \
         status 42"
    );
    assert!(
        finished.log.contains("Command did not exit successfully sh -c 'exit 42' exit status 42")
    );
    assert!(finished.log.contains("Phase complete: BUILD State: FAILED"));
}

#[tokio::test]
async fn all_commands_share_one_shell() {
    let commands = [
        "export EXPORTED='a  \"b\" $c `d`'",
        "PLAIN=\"it's\nplain\"",
        "mkdir -p sub/dir && cd sub/dir",
        "unset LANG",
        "printf '%s\\n' \"$EXPORTED\" \"$PLAIN\" \"${LANG-unset}\" \"${PWD##*/src/}\"",
        "sh -c 'echo ${PLAIN-not exported} ${EXPORTED:+exported}'",
        "cd - >/dev/null; echo ${PWD##*/}",
        "set -eu",
        "case $- in *e*) echo e ;; esac; echo ${UNSET-u}",
        "false; echo not reached",
    ];
    for (image, shell) in [("aws/codebuild/amazonlinux", "sh"), ("ubuntu", "sh"), ("any", "bash")] {
        let machine = Machine::new();
        let buildspec = json!({
            "version": 0.2,
            "env": {"shell": shell},
            "phases": {"build": {"commands": commands}, "post_build": {"commands": ["echo $PLAIN"]}},
        });
        let input = json!({"buildspecOverride": buildspec.to_string(), "imageOverride": image});
        let finished = machine.run(input).await;
        assert_eq!(
            finished.output(),
            [
                "a  \"b\" $c `d`",
                "it's",
                "plain",
                "unset",
                "sub/dir",
                "not exported exported",
                "src",
                "e",
                "u",
                "it's plain"
            ],
            "{image} {shell}\n{}",
            finished.log
        );
        assert_eq!(finished.status(), "FAILED");
    }
}

#[tokio::test]
async fn bash_functions_and_options_carry_over() {
    let machine = Machine::new();
    let buildspec = json!({
        "version": 0.2,
        "env": {"shell": "bash"},
        "phases": {"build": {"commands": [
            "greet() { echo \"hello $1\"; }",
            "shopt -s extglob; list=(one 'two three')",
            "greet world; echo \"${list[1]}\"; shopt -q extglob && echo globs",
        ]}},
    });
    let finished = machine.run(json!({"buildspecOverride": buildspec.to_string()})).await;
    assert_eq!(finished.output(), ["hello world", "two three", "globs"], "{}", finished.log);
}

#[tokio::test]
async fn a_command_that_ends_the_shell_ends_no_more_than_itself() {
    let machine = Machine::new();
    let cases = [
        ("KEPT=yes; exit 3", 3, "yes"),
        ("KEPT=yes; kill -KILL $$", 137, "no"),
        ("exec sh -c 'exit 4'", 4, "no"),
        ("if true; then", 2, "no"),
        ("no-such-program", 127, "no"),
        ("KEPT=yes; trap 'echo trapped' EXIT; false", 1, "yes"),
    ];
    for (command, code, kept) in cases {
        let finished = machine
            .buildspec(json!({
                "build": {"commands": ["KEPT=no", command]},
                "post_build": {"commands": ["echo kept $KEPT"]},
            }))
            .await;
        assert_eq!(finished.status(), "FAILED", "{command}\n{}", finished.log);
        assert!(
            finished.context("BUILD").ends_with(&format!("Reason: exit status {code}")),
            "{command}: {}",
            finished.context("BUILD")
        );
        assert_eq!(*finished.output().last().unwrap(), format!("kept {kept}"), "{command}");
    }
    let finished = machine.commands(&["exit 0", "echo goes on"]).await;
    assert_eq!(finished.output(), ["goes on"]);
}

#[tokio::test]
async fn the_environment_is_codebuilds_and_not_the_callers() {
    let machine = Machine::new();
    let buildspec = json!({
        "version": 0.2,
        "env": {
            "variables": {"FROM_SPEC": "spec", "FROM_BOTH": "spec"},
            "exported-variables": ["RESULT", "MISSING"],
        },
        "phases": {"build": {"commands": [
            "env | sort",
            "export RESULT=\"two\nlines\"",
        ]}},
    });
    let input = json!({
        "buildspecOverride": buildspec.to_string(),
        "sourceVersion": "main",
        "environmentVariablesOverride": [
            {"name": "FROM_BOTH", "value": "override", "type": "PLAINTEXT"},
            {"name": "CODEBUILD_BUILD_ID", "value": "forged"},
        ],
    });
    let finished = machine.run(input).await;
    assert_eq!(finished.status(), "SUCCEEDED", "{}", finished.log);
    let build = &finished.build;
    let value = |name: &str| {
        let prefix = format!("{name}=");
        finished.output().iter().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    };
    let text = |field: &str| build[field].as_str().map(str::to_owned);
    assert_eq!(value("FROM_SPEC").as_deref(), Some("spec"));
    assert_eq!(value("FROM_BOTH").as_deref(), Some("override"));
    assert_eq!(value("CODEBUILD_BUILD_ID"), text("id"));
    assert_eq!(value("CODEBUILD_BUILD_ARN"), text("arn"));
    assert_eq!(value("CODEBUILD_BUILD_NUMBER").as_deref(), Some("1"));
    assert_eq!(value("CODEBUILD_SOURCE_VERSION").as_deref(), Some("main"));
    assert_eq!(value("AWS_DEFAULT_REGION").as_deref(), Some("us-east-1"));
    assert_eq!(value("AWS_ENDPOINT_URL").as_deref(), Some("http://localhost:1"));
    assert_eq!(value("DOCKER_DEFAULT_PLATFORM").as_deref(), Some("linux/arm64"));
    assert!(value("DOCKER_CONFIG").unwrap().starts_with(&value("HOME").unwrap()));
    assert_ne!(value("HOME"), std::env::var("HOME").ok());
    // Cargo sets this for the test itself.
    assert_eq!(value("CARGO_MANIFEST_DIR"), None);
    assert_eq!(
        build["exportedEnvironmentVariables"],
        json!([{"name": "RESULT", "value": "two\nlines"}])
    );
}

#[tokio::test]
async fn the_platform_of_the_image_beats_that_of_the_machine() {
    let machine = Machine::new();
    let buildspec = json!({
        "version": 0.2,
        "phases": {"build": {"commands": ["echo $DOCKER_DEFAULT_PLATFORM"]}},
    });
    let input = json!({
        "buildspecOverride": buildspec.to_string(),
        "environmentVariablesOverride": [{"name": "IMAGE_PLATFORM", "value": "linux/arm/v7"}],
    });
    assert_eq!(machine.run(input).await.output(), ["linux/arm/v7"]);
}

#[tokio::test]
async fn hostile_values_stay_values() {
    let machine = Machine::new();
    let canary = machine.folder.path().join("canary");
    let hostile = [
        format!("$(touch {})", canary.display()),
        format!("`touch {}`", canary.display()),
        format!("'; touch {}; '", canary.display()),
        format!("\"\n touch {} #", canary.display()),
        "-x --help".to_owned(),
        "\u{1b}[31mred\u{1b}[0m \u{fffd} ü\\n".to_owned(),
    ];
    for value in &hostile {
        let buildspec = json!({
            "version": 0.2,
            "env": {"variables": {"SPEC": value}},
            "phases": {"build": {"commands": [
                "true",
                "printf '%s|' \"$VALUE\" \"$SPEC\" >\"$CODEBUILD_SRC_DIR/out\"",
                "cmp \"$CODEBUILD_SRC_DIR/out\" \"$CODEBUILD_SRC_DIR/expected\"",
            ]}},
        });
        machine.write("expected", &format!("{value}|{value}|"));
        let input = json!({
            "buildspecOverride": buildspec.to_string(),
            "sourceVersion": value,
            "environmentVariablesOverride": [
                {"name": "VALUE", "value": value},
                {"name": value.replace('=', "").replace('\n', " "), "value": value},
            ],
        });
        let finished = machine.run(input).await;
        assert_eq!(finished.status(), "SUCCEEDED", "{value}\n{}", finished.log);
        assert!(!canary.exists(), "{value}");
    }
}

#[tokio::test]
async fn a_task_token_never_shows_in_the_log() {
    let machine = Machine::new();
    let token = "AAAAKgAAAAIAAAAAAAAAAf".repeat(20);
    let command = format!(
        "printf '%s' \"$ARCHWELD_TASK_TOKEN\"; echo; yes x | head -c 16000 | tr -d '\\n'; echo \
         \"$ARCHWELD_TASK_TOKEN\"; echo {token}; false"
    );
    let buildspec = json!({"version": 0.2, "phases": {"build": {"commands": [command]}}});
    let input = json!({
        "buildspecOverride": buildspec.to_string(),
        "environmentVariablesOverride": [{"name": "ARCHWELD_TASK_TOKEN", "value": token}],
    });
    let finished = machine.run(input).await;
    assert_eq!(finished.output()[0], "***");
    assert!(!finished.log.contains(&token[..40]), "{}", finished.log);
    assert!(!finished.context("BUILD").contains(&token));
}

#[tokio::test]
async fn odd_output_is_logged_within_bounds() {
    let machine = Machine::new();
    let finished = machine
        .commands(&[
            "printf 'a\\r\\n\\377\\nno end'",
            "yes 0123456789 | tr -d '\\n' | head -c 100000; echo",
        ])
        .await;
    assert_eq!(finished.status(), "SUCCEEDED");
    let output = finished.output();
    assert_eq!(output[..3], ["a", "\u{fffd}", "no end"]);
    assert_eq!(output[3].len(), archweld_codebuild::LOG_LINE_BYTES_MAX);
    assert!(output[3].ends_with(" [cut]"));
}

#[tokio::test]
async fn stopping_kills_grandchildren_and_runs_nothing_more() {
    let machine = Machine::new();
    let pids = machine.folder.path().join("pids");
    let after = machine.folder.path().join("after");
    let buildspec = json!({
        "version": 0.2,
        "phases": {
            "build": {
                "commands": [format!(
                    "trap '' TERM; sh -c 'sleep 1000 & echo $! >>{0}; setsid sleep 1001 & echo $! \
                     >>{0}; echo ready; wait'",
                    pids.display()
                )],
                "finally": [format!("touch {}", after.display())],
            },
            "post_build": {"commands": [format!("touch {}", after.display())]},
        },
    });
    let mut notices = machine.codebuild.subscribe();
    let id = machine.start(json!({"buildspecOverride": buildspec.to_string()})).await;
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Notice::Log { line, .. } = notices.recv().await.unwrap()
                && &*line == "ready"
            {
                break;
            }
        }
    })
    .await
    .unwrap();
    let stopped = machine.codebuild.call("StopBuild", json!({"id": id})).await.unwrap();
    assert_eq!(stopped["build"]["buildStatus"], "STOPPED");
    assert_eq!(stopped["build"]["buildComplete"], true);
    let started = std::time::Instant::now();
    machine.codebuild.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(2));

    let pids = fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        // A zombie, waiting for its new parent, has an empty command line.
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(command.is_empty(), "{pid} still runs");
    }
    assert!(!after.exists());
    assert!(machine.work_is_empty());
}

#[tokio::test]
async fn what_a_build_leaves_in_the_background_ends_with_it() {
    let machine = Machine::new();
    let pid = machine.folder.path().join("pid");
    let command = format!("sleep 1000 & echo $! >{}", pid.display());
    let finished = machine.commands(&[&command, "chmod -R a-w .; mkdir -m 500 ../read-only"]).await;
    assert_eq!(finished.status(), "SUCCEEDED", "{}", finished.log);
    let pid = fs::read_to_string(pid).unwrap();
    let command = fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
    assert!(command.is_empty());
    assert!(machine.work_is_empty());
}

#[tokio::test]
async fn what_an_earlier_process_left_of_its_builds_goes_and_nothing_else() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let (uuid, other) =
        ("0d6f6ab1-2a5c-4f3e-9a51-54a3c7c6d1aa", "0d6f6ab1-2a5c-4f3e-9a51-54a3c7c6d1bb");
    fs::create_dir_all(work.join(uuid).join("src/read-only")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o500);
    fs::set_permissions(work.join(uuid).join("src/read-only"), mode).unwrap();
    fs::write(work.join("mine"), "").unwrap();
    let sleep = |uuid: &str| {
        let arn = format!("arn:aws:codebuild:us-east-1:000000000000:build/app:{uuid}");
        let mut command = tokio::process::Command::new("sleep");
        command.arg("1000").env("CODEBUILD_BUILD_ARN", arn).kill_on_drop(true).spawn().unwrap()
    };
    let (mut left, mut stranger) = (sleep(uuid), sleep(other));
    let _machine = Machine::with(|_, settings| settings.folder = work.clone());
    let status = tokio::time::timeout(PATIENCE, left.wait()).await.unwrap().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert!(stranger.try_wait().unwrap().is_none());
    let names: Vec<_> =
        fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["mine"]);
}

#[tokio::test]
async fn a_bad_buildspec_fails_the_download() {
    let machine = Machine::new();
    let finished = machine.run(json!({})).await;
    assert_eq!(finished.status(), "FAILED");
    let context = finished.context("DOWNLOAD_SOURCE");
    assert!(context.starts_with("YAML_FILE_ERROR: stat /"), "{context}");
    assert!(context.ends_with("/src/buildspec.yml: no such file or directory"), "{context}");
    assert_eq!(finished.phases(), "");

    machine.write("other.yml", "version: 0.2\nphases:\n  biuld: {}\n");
    let finished = machine.run(json!({"buildspecOverride": "other.yml"})).await;
    assert_eq!(
        finished.context("DOWNLOAD_SOURCE"),
        "YAML_FILE_ERROR: unknown field `biuld`, expected one of install, pre_build, build, \
         post_build at line 3, column 3"
    );
    let finished = machine.run(json!({"buildspecOverride": "../other.yml"})).await;
    assert!(finished.context("DOWNLOAD_SOURCE").contains("not a path within the source"));
    let finished = machine.run(json!({"buildspecOverride": "arn:aws:s3:::b/spec.yml"})).await;
    assert!(finished.context("DOWNLOAD_SOURCE").contains("in S3 cannot be had"));
}

#[tokio::test]
async fn a_missing_source_fails_the_download() {
    let machine = Machine::with(|folder, settings| {
        settings.source = Some(SourceOverride::Folder(folder.join("nowhere")));
    });
    let finished = machine.run(json!({})).await;
    assert_eq!(finished.status(), "FAILED");
    let context = finished.context("DOWNLOAD_SOURCE");
    assert!(context.starts_with("CLIENT_ERROR: the source folder /"), "{context}");
    assert!(context.contains("No such file or directory"), "{context}");
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=A", "-c", "user.email=a@example.invalid"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_folder_is_copied_as_it_is_less_what_git_ignores() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let machine = Machine::new();
    let source = machine.folder.path().join("source");
    git(&source, &["init", "-q"]);
    machine.write(".gitignore", "ignored\n");
    machine.write("ignored", "");
    machine.write("deleted", "");
    machine.write("tracked dir/run.sh", "#!/bin/sh\n");
    fs::set_permissions(source.join("tracked dir/run.sh"), fs::Permissions::from_mode(0o755))
        .unwrap();
    symlink("run.sh", source.join("tracked dir/link")).unwrap();
    git(&source, &["add", "."]);
    git(&source, &["commit", "-qm", "one"]);
    machine.write("untracked\nname", "");
    machine.write(".archweld/state", "");
    fs::remove_file(source.join("deleted")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();

    let list = "find . -not -type d -printf '%m %p %l|' | tr '|' '\\n' | LC_ALL=C sort";
    let finished = machine.commands(&[list, "echo $CODEBUILD_RESOLVED_SOURCE_VERSION"]).await;
    drop(socket);
    let commit = git(&source, &["rev-parse", "HEAD"]);
    let mut expected = vec![
        "644 ./.gitignore ",
        "644 ./untracked",
        "755 ./tracked dir/run.sh ",
        "777 ./tracked dir/link run.sh",
        "name ",
        &commit,
    ];
    let output = finished.output();
    let output: Vec<_> = output.into_iter().filter(|line| !line.is_empty()).collect();
    expected.sort_unstable();
    let mut sorted = output.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected, "{}", finished.log);
    assert_eq!(finished.build["resolvedSourceVersion"], json!(commit));
}

#[tokio::test]
async fn a_folder_without_git_is_copied_less_what_is_not_source() {
    let machine = Machine::new();
    for name in ["a", ".archweld/b", "target/c", "sub/target/d", ".git/e"] {
        machine.write(name, "");
    }
    let finished = machine.commands(&["find . -type f | LC_ALL=C sort"]).await;
    assert_eq!(finished.output(), ["./a", "./sub/target/d"], "{}", finished.log);
}

#[tokio::test]
async fn git_versions_are_checked_out() {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("origin");
    fs::create_dir(&origin).unwrap();
    git(&origin, &["init", "-q", "-b", "main"]);
    let mut commits = Vec::new();
    for text in ["one", "two", "three"] {
        fs::write(origin.join("text"), text).unwrap();
        git(&origin, &["add", "."]);
        git(&origin, &["commit", "-qm", text]);
        commits.push(git(&origin, &["rev-parse", "HEAD"]));
    }
    git(&origin, &["tag", "v1", &commits[0]]);
    git(&origin, &["branch", "feature/two", &commits[1]]);
    git(&origin, &["update-ref", "refs/pull/7/head", &commits[1]]);

    let machine = Machine::with(|_, settings| {
        settings.source = Some(SourceOverride::Git(origin.to_str().unwrap().to_owned()));
    });
    let buildspec = json!({
        "version": 0.2,
        "phases": {"build": {"commands": ["cat text; echo", "echo $CODEBUILD_RESOLVED_SOURCE_VERSION"]}},
    });
    let input = |version: Option<&str>| {
        let mut input = json!({"buildspecOverride": buildspec.to_string()});
        if let Some(version) = version {
            input["sourceVersion"] = json!(version);
        }
        input
    };
    let cases = [
        (None, "three", 2),
        (Some(""), "three", 2),
        (Some("main"), "three", 2),
        (Some("refs/heads/main"), "three", 2),
        (Some("v1"), "one", 0),
        (Some("refs/tags/v1"), "one", 0),
        (Some("feature/two"), "two", 1),
        (Some(&*commits[1]), "two", 1),
        (Some(&commits[0][..9]), "one", 0),
        (Some("refs/pull/7/head"), "two", 1),
    ];
    for (version, text, commit) in cases {
        let finished = machine.run(input(version)).await;
        assert_eq!(finished.output(), [text, &commits[commit]], "{version:?}\n{}", finished.log);
    }
    let canary = folder.path().join("canary");
    let upload_pack = format!("--upload-pack=touch {}", canary.display());
    for version in ["nowhere", "--help", &upload_pack, "$(touch x)"] {
        let finished = machine.run(input(Some(version))).await;
        assert_eq!(finished.status(), "FAILED", "{version}");
        let context = finished.context("DOWNLOAD_SOURCE");
        assert!(context.contains("is not a branch, tag or commit"), "{version}: {context}");
    }
    assert!(!canary.exists());
}

#[tokio::test]
async fn a_repository_that_is_not_there_fails_the_download() {
    let machine = Machine::with(|_, settings| settings.source = None);
    for location in ["/nowhere/app.git", "--upload-pack=touch x"] {
        let input = json!({"sourceLocationOverride": location, "sourceVersion": "main"});
        let finished = machine.run(input).await;
        assert_eq!(finished.status(), "FAILED");
        let context = finished.context("DOWNLOAD_SOURCE");
        assert!(context.starts_with("CLIENT_ERROR: git clone failed: fatal: "), "{context}");
        assert!(context.ends_with("for primary source and source version main"), "{context}");
    }
    let finished = machine.run(json!({"sourceTypeOverride": "S3"})).await;
    assert!(finished.context("DOWNLOAD_SOURCE").contains("source type S3 cannot be had"));
}

/// A machine whose docker prints its arguments, each between brackets.
fn with_fake_docker() -> Machine {
    use std::os::unix::fs::PermissionsExt;

    Machine::with(|folder, settings| {
        let bin = folder.join("fake bin");
        fs::create_dir(&bin).unwrap();
        let docker = bin.join("docker");
        let script = "#!/bin/sh\nprintf '%s' docker; for a do printf ' [%s]' \"$a\"; done; echo\n";
        fs::write(&docker, script).unwrap();
        fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::split_paths(&settings.path).collect::<Vec<_>>();
        settings.path = std::env::join_paths([bin].iter().chain(&path)).unwrap();
        settings.registry = Some("localhost:4577".to_owned());
    })
}

#[tokio::test]
async fn docker_sees_the_local_registry_in_place_of_ecr() {
    let machine = with_fake_docker();
    let ecr = "000000000000.dkr.ecr.us-east-1.amazonaws.com";
    let cases = [
        ("docker push $E/app:1", "docker [push] [localhost:4577/app:1]"),
        (
            "docker login -u AWS --password-stdin https://$E",
            "docker [login] [-u] [AWS] [--password-stdin] [https://localhost:4577]",
        ),
        (
            "docker tag $E/a:1 $E/b:$E",
            "docker [tag] [localhost:4577/a:1] [localhost:4577/b:localhost:4577]",
        ),
        (
            "docker build --build-arg 'A=*  $(touch x)\n'\"'\" '' .",
            "docker [build] [--build-arg] [A=*  $(touch x)\n'] [] [.]",
        ),
        (
            "docker pull other.dkr.ecr.us-east-1.amazonaws.com/a",
            "docker [pull] [other.dkr.ecr.us-east-1.amazonaws.com/a]",
        ),
        (
            "docker manifest create $E/a:1 $E/a@sha256:0",
            "docker [manifest] [create] [--insecure] [localhost:4577/a:1] [localhost:4577/a@sha256:0]",
        ),
        (
            "docker manifest create --amend localhost:4577/a:1 b",
            "docker [manifest] [create] [--insecure] [--amend] [localhost:4577/a:1] [b]",
        ),
        (
            "docker manifest inspect $E/a",
            "docker [manifest] [inspect] [--insecure] [localhost:4577/a]",
        ),
        ("docker manifest push $E/a", "docker [manifest] [push] [--insecure] [localhost:4577/a]"),
        (
            "docker --log-level debug -D manifest push $E/a",
            "docker [--log-level] [debug] [-D] [manifest] [push] [--insecure] [localhost:4577/a]",
        ),
        (
            "docker manifest annotate $E/a $E/b --arch arm64",
            "docker [manifest] [annotate] [localhost:4577/a] [localhost:4577/b] [--arch] [arm64]",
        ),
        (
            "docker manifest inspect docker.io/library/a",
            "docker [manifest] [inspect] [docker.io/library/a]",
        ),
        ("docker run $E/a manifest push", "docker [run] [localhost:4577/a] [manifest] [push]"),
        ("docker", "docker"),
    ];
    let mut commands = vec![format!("E={ecr}")];
    commands.extend(cases.iter().map(|(command, _)| (*command).to_owned()));
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    let finished = machine.commands(&commands).await;
    assert_eq!(finished.status(), "SUCCEEDED", "{}", finished.log);
    let expected = cases.map(|(_, expected)| expected).join("\n");
    assert_eq!(finished.output().join("\n"), expected);
}

#[tokio::test]
async fn a_missing_docker_is_told() {
    let machine = Machine::with(|folder, settings| {
        let bin = folder.join("bin");
        fs::create_dir(&bin).unwrap();
        for program in ["bash", "env", "sh"] {
            std::os::unix::fs::symlink(format!("/bin/{program}"), bin.join(program)).unwrap();
        }
        settings.path = bin.into();
        settings.registry = Some("localhost:4577".to_owned());
    });
    let finished = machine.commands(&["docker ps"]).await;
    assert_eq!(finished.output(), ["docker: there is no docker on the PATH of archweld"]);
    assert!(finished.context("BUILD").ends_with("exit status 127"));
}

#[tokio::test]
async fn what_was_pushed_to_this_machine_is_taken_from_there_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "-q", "-b", "main"]);
    fs::write(work.join("text"), "pushed").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-qm", "pushed"]);
    let commit = git(&work, &["rev-parse", "HEAD"]);
    git(folder.path(), &["clone", "-q", "--bare", "work", "bare"]);
    let bare = folder.path().join("bare");
    let machine = Machine::with(|folder, settings| {
        fs::write(folder.join("source/text"), "as it is").unwrap();
        let location = bare.to_str().unwrap().to_owned();
        settings.remote = Some(Remote { repository: bare.clone(), location });
    });
    let buildspec = json!({"version": 0.2, "phases": {"build": {"commands": ["cat text; echo"]}}});
    let unknown = "0123456789012345678901234567890123456789";
    let cases = [
        (None, "as it is"),
        (Some("main"), "pushed"),
        (Some(commit.as_str()), "pushed"),
        (Some(unknown), "as it is"),
        (Some("--help"), "as it is"),
    ];
    for (version, text) in cases {
        let mut input = json!({"buildspecOverride": buildspec.to_string()});
        if let Some(version) = version {
            input["sourceVersion"] = json!(version);
        }
        let finished = machine.run(input).await;
        assert_eq!(finished.output(), [text], "{version:?}\n{}", finished.log);
    }
}

#[tokio::test]
async fn a_registry_that_is_no_host_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for registry in ["", "localhost:1/path", "a\nb", "$(touch x)"] {
        let settings = ShellSettings {
            folder: folder.path().to_owned(),
            keep_folders: false,
            path: "/bin".into(),
            registry: Some(registry.to_owned()),
            variables: Vec::new(),
            source: None,
            remote: None,
        };
        let host = Host::real("000000000000", "us-east-1");
        assert!(Shell::new(host, settings).is_err(), "{registry:?}");
    }
}

#[tokio::test]
async fn a_retry_is_another_build_if_the_error_reads_so() {
    let folder = tempfile::tempdir().unwrap();
    let counter = folder.path().join("counter");
    let machine = Machine::new();
    let finished = Arc::new(Mutex::new(Vec::new()));
    for (pattern, tries) in [("RETRY-2-connection refused", 3), ("RETRY-2-no match", 1)] {
        fs::write(&counter, "").unwrap();
        let buildspec = json!({
            "version": 0.2,
            "phases": {"build": {
                "on-failure": pattern,
                "commands": [format!("echo x >>{}; echo connection refused; false", counter.display())],
            }},
        });
        let mut notices = machine.codebuild.subscribe();
        machine.start(json!({"buildspecOverride": buildspec.to_string()})).await;
        tokio::time::timeout(PATIENCE, async {
            for _ in 0..tries {
                loop {
                    if let Notice::Finished { build, .. } = notices.recv().await.unwrap() {
                        finished.lock().unwrap().push(build.id.clone());
                        break;
                    }
                }
            }
        })
        .await
        .unwrap();
        machine.codebuild.call("ListBuilds", json!({})).await.unwrap();
        assert_eq!(fs::read_to_string(&counter).unwrap().lines().count(), tries, "{pattern}");
    }
    let ids = finished.lock().unwrap().clone();
    let found = machine.codebuild.call("BatchGetBuilds", json!({"ids": ids})).await.unwrap();
    assert_eq!(found["builds"].as_array().unwrap().len(), 4);
    assert_eq!(found["builds"][1]["autoRetryConfig"]["autoRetryNumber"], 1);
    assert_eq!(
        found["builds"][1]["autoRetryConfig"]["previousAutoRetry"],
        found["builds"][0]["arn"]
    );
    assert_eq!(found["builds"][0]["autoRetryConfig"]["nextAutoRetry"], found["builds"][1]["arn"]);
}
