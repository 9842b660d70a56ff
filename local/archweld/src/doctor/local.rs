//! This machine, as the local cloud needs it.

use std::{
    env, fs,
    path::{self, Path},
    process::Stdio,
    time::Duration,
};

use archweld_model::Platform;
use archweld_template::{Deployment as StackDeployment, Stack};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command, time::timeout};

use super::{Finding, Findings};
use crate::{
    arguments::Doctor,
    aws::{Api, CallErrorKind, STATES},
    deployment::{ACCOUNT, Deployment, REGION, STACK},
    error::{Error, Report},
    home,
    summary::size,
};

/// How long a command may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How much room a few images of several platforms take, with the layers that their builds leave.
const FREE_BYTES_MIN: u64 = 5_000_000_000;

pub(super) async fn examine(arguments: &Doctor, findings: &mut Findings) -> Result<(), Error> {
    let deployment = Deployment::read(&arguments.project);
    let platforms: Vec<Platform> = match &deployment {
        Ok(deployment) => {
            let path = arguments.project.config.display();
            findings.add(Finding::fine("configuration", format!("{path} is right")))?;
            let images = deployment.config.images().iter();
            let mut platforms: Vec<_> = images.flat_map(|image| image.platforms.clone()).collect();
            platforms.sort_unstable_by_key(ToString::to_string);
            platforms.dedup();
            platforms
        }
        Err(error) => {
            let mend = "name the file with --config; docs/configuration.md explains its keys";
            findings.add(Finding::problem("configuration", reported(error), mend))?;
            Vec::new()
        }
    };
    findings.add(binaries(arguments, deployment.as_ref().ok()))?;
    for (tool, mend) in [
        ("git", "install git: sources are cloned with it"),
        (
            "aws",
            "install the AWS CLI: buildspecs log in to the registry with it; `make tools` puts it into .archweld/venv",
        ),
    ] {
        findings.add(match find(tool) {
            true => Finding::fine(tool_check(tool), "is on PATH"),
            false => Finding::problem(tool_check(tool), "is not on PATH", mend),
        })?;
    }
    if engine(findings).await? {
        findings.add(buildx().await)?;
        findings.add(emulation(&platforms).await)?;
    }
    findings.add(disk(&arguments.state))?;
    findings.add(port(arguments).await)
}

fn reported(error: &Error) -> String {
    Report(error).to_string().trim_start_matches("archweld: ").to_owned()
}

fn tool_check(tool: &str) -> &'static str {
    if tool == "git" { "git" } else { "AWS CLI" }
}

fn find(command: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

/// The functions' binaries that the template names.
fn binaries(arguments: &Doctor, deployment: Option<&Deployment>) -> Finding {
    const CHECK: &str = "functions";
    const MEND: &str = "build them with `make build`, or name their folder with --functions";
    let template = home::template(arguments.project.template.as_deref());
    let template = match deployment.map(|it| Ok(it.template.clone())).unwrap_or(template) {
        Ok(template) => template,
        Err(error) => return Finding::problem(CHECK, reported(&error), "name it with --template"),
    };
    let stack = StackDeployment {
        stack_name: STACK.to_owned(),
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        parameters: Default::default(),
    };
    let stack = match Stack::read(&template, &stack) {
        Ok(stack) => stack,
        Err(error) => {
            return Finding::problem(CHECK, error.to_string(), "check it with `archweld validate`");
        }
    };
    let folder = match home::functions(arguments.functions.as_deref()) {
        Ok(folder) => folder,
        Err(error) => return Finding::problem(CHECK, reported(&error), MEND),
    };
    let names = stack.functions.iter().map(|function| function.binary.as_str());
    let missing: Vec<&str> = names.filter(|name| !folder.join(name).is_file()).collect();
    let folder = folder.display();
    if missing.is_empty() {
        return Finding::fine(CHECK, format!("{} in {folder}", stack.functions.len()));
    }
    Finding::problem(CHECK, format!("{folder} has no {}", missing.join(", ")), MEND)
}

/// The standard output of a command that succeeds; what went wrong of another.
async fn output(command: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(command);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(ANSWER_MAX, command.output())
        .await
        .map_err(|_| format!("does not answer in {} s", ANSWER_MAX.as_secs()))?
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(said.lines().find(|line| !line.trim().is_empty()).unwrap_or("fails").trim().to_owned())
}

/// Whether a Docker engine answers.
async fn engine(findings: &mut Findings) -> Result<bool, Error> {
    const CHECK: &str = "Docker engine";
    let version = output("docker", &["version", "--format", "{{.Server.Version}}"]).await;
    let (works, finding) = match version {
        Ok(version) => (true, Finding::fine(CHECK, format!("version {version}"))),
        Err(error) => {
            let mend = "start the engine, or point DOCKER_HOST at one; in a checkout of archweld, \
                        `scripts/with-engine COMMAND` runs a private one";
            (false, Finding::problem(CHECK, error, mend))
        }
    };
    findings.add(finding)?;
    Ok(works)
}

async fn buildx() -> Finding {
    const CHECK: &str = "buildx";
    match output("docker", &["buildx", "version"]).await {
        Ok(version) => Finding::fine(CHECK, version),
        Err(error) => Finding::advice(
            CHECK,
            error,
            "install Docker's buildx plugin: BuildKit's Dockerfile features need it",
        ),
    }
}

/// Whether the engine runs programs of the images' platforms. Builds of a foreign one run under
/// emulation, which the engine's kernel must know: not always this machine's.
async fn emulation(platforms: &[Platform]) -> Finding {
    const CHECK: &str = "emulation";
    let native = match output("docker", &["version", "--format", "{{.Server.Arch}}"]).await {
        Ok(native) => native,
        Err(error) => return Finding::unknown(CHECK, error),
    };
    let foreign: Vec<&Platform> =
        platforms.iter().filter(|platform| !runs_natively(&native, platform)).collect();
    if foreign.is_empty() {
        return Finding::fine(CHECK, format!("every platform is native to {native}"));
    }
    let known = match emulated_here().await {
        Some(known) => known,
        None => match output("docker", &["buildx", "inspect"]).await {
            Ok(inspected) => platforms_of(&inspected),
            Err(error) => return Finding::unknown(CHECK, error),
        },
    };
    let shown = |platforms: &[&Platform]| {
        platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let missing: Vec<&Platform> =
        foreign.iter().copied().filter(|it| !known.contains(&it.to_string())).collect();
    if missing.is_empty() {
        return Finding::fine(CHECK, format!("{} on {native}", shown(&foreign)));
    }
    Finding::problem(
        CHECK,
        format!("the engine on {native} runs no {}", shown(&missing)),
        "install QEMU's user emulation, such as with `apt-get install qemu-user-static \
         binfmt-support`, on the engine's machine",
    )
}

/// The platforms that this machine's kernel hands to QEMU, where it is the engine's kernel, too
/// (<https://docs.kernel.org/admin-guide/binfmt-misc.html>).
async fn emulated_here() -> Option<Vec<String>> {
    let kernel = output("docker", &["info", "--format", "{{.KernelVersion}}"]).await.ok()?;
    let own = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    if kernel != own.trim() {
        return None;
    }
    let handlers = fs::read_dir("/proc/sys/fs/binfmt_misc").ok()?;
    let names = handlers.filter_map(|handler| handler.ok()?.file_name().into_string().ok());
    let platforms = names.flat_map(|name| emulated_by(&name).iter().map(ToString::to_string));
    Some(platforms.collect())
}

/// What a handler of QEMU's runs, by the names that Debian and its own packages give it.
fn emulated_by(handler: &str) -> &'static [&'static str] {
    match handler {
        "qemu-aarch64" => &["linux/arm64"],
        "qemu-arm" => &["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"],
        "qemu-i386" => &["linux/386"],
        "qemu-x86_64" => &["linux/amd64"],
        _ => &[],
    }
}

/// The platforms that buildx says its builders run.
fn platforms_of(inspected: &str) -> Vec<String> {
    let lists = inspected.lines().filter_map(|line| line.trim().strip_prefix("Platforms:"));
    let platforms = lists.flat_map(|list| list.split(','));
    platforms.map(|platform| platform.trim().trim_end_matches('*').to_owned()).collect()
}

/// Whether an engine of that architecture, as Go calls it, runs a platform's programs by itself.
fn runs_natively(native: &str, platform: &Platform) -> bool {
    let platform = platform.to_string();
    let architecture = platform.split('/').nth(1).unwrap_or_default();
    architecture == native || (native == "amd64" && architecture == "386")
}

fn disk(state: &Path) -> Finding {
    const CHECK: &str = "free disk";
    let whole = path::absolute(state).unwrap_or_else(|_| state.to_owned());
    let existing = whole.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(existing) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => return Finding::unknown(CHECK, error),
    };
    let found = format!("{} at {}", size(free), whole.display());
    if free < FREE_BYTES_MIN {
        let wanted = size(FREE_BYTES_MIN);
        let mend = format!("have {wanted} free, or name another folder with --state");
        return Finding::advice(CHECK, found, mend);
    }
    Finding::fine(CHECK, found)
}

/// Whether the port is free, or serves the local cloud.
async fn port(arguments: &Doctor) -> Finding {
    const CHECK: &str = "port";
    let endpoint = arguments.at.local_endpoint();
    let api = Api::local(&endpoint, REGION);
    let listed: Result<Value, _> = api.call(STATES, "ListStateMachines", json!({})).await;
    match listed {
        Ok(_) => return Finding::fine(CHECK, format!("the local cloud answers at {endpoint}")),
        Err(error) if error.kind != CallErrorKind::Unavailable => {
            return Finding::problem(
                CHECK,
                format!("something else answers at {endpoint}"),
                "end it, or choose another port with --port",
            );
        }
        Err(_) => {}
    }
    if arguments.at.endpoint_url.is_some() {
        return Finding::problem(CHECK, format!("nothing answers at {endpoint}"), "start it");
    }
    match TcpListener::bind(("127.0.0.1", arguments.at.port)).await {
        Ok(_) => Finding::fine(CHECK, format!("{} is free", arguments.at.port)),
        Err(error) => Finding::problem(
            CHECK,
            format!("{}: {error}", arguments.at.port),
            "end what listens there, or choose another port with --port",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_native_to_its_own_architecture() {
        let natively = |native, platform: &str| runs_natively(native, &platform.parse().unwrap());
        for (native, platform) in
            [("amd64", "linux/amd64"), ("amd64", "linux/386"), ("arm64", "linux/arm64")]
        {
            assert!(natively(native, platform), "{native} {platform}");
        }
        // Not all of Arm's 64-bit machines run its 32-bit programs.
        for (native, platform) in [("amd64", "linux/arm64"), ("arm64", "linux/arm/v7")] {
            assert!(!natively(native, platform), "{native} {platform}");
        }
    }

    #[test]
    fn buildx_says_which_platforms_its_builders_run() {
        let inspected = "Name: default\nNodes:\nName:      default\n\
                         Platforms: linux/amd64*, linux/amd64/v2, linux/arm64\n";
        assert_eq!(platforms_of(inspected), ["linux/amd64", "linux/amd64/v2", "linux/arm64"]);
        assert!(platforms_of("Name: default").is_empty());
    }
}
