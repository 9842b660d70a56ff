//! `archweld run`: one execution, from the source tree to the published image.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use archweld_cloud::Cloud;
use archweld_codebuild::CodeBuild;
use archweld_model::{
    Config, ExecutableCheck, ExecutionInput, ImageConfig, ImageName, ImageTag, PlanError,
    Published, PublishedPlatform, Trigger,
};
use archweld_step_functions::Status;
use serde_json::{Value, json};

use crate::{
    arguments::Run,
    deployment::Deployment,
    error::Error,
    progress::{Failure, Progress, milliseconds},
    source::Source,
    watch::{Heard, Watch},
};

/// Runs one execution to its end.
///
/// # Errors
/// When nothing was published.
pub(crate) async fn run(arguments: Run) -> Result<(), Error> {
    let began = Instant::now();
    let deployment = Deployment::read(&arguments.project)?;
    let image = choose(&deployment.config, arguments.image.as_ref())?;
    let folder = deployment.folder.to_string_lossy().into_owned();
    let place = arguments.source.clone().unwrap_or(folder);
    let source = Source::find(&place, arguments.git_ref.as_ref())?;
    let cloud = deployment.open(&arguments.host, &source.place, None).await?;
    let mut progress = Progress::new(arguments.json, began);
    progress.say(&format!("building {}", source.place));
    if let Some(note) = source.note {
        progress.say(note);
    }
    close_unfinished(&cloud, &mut progress).await?;
    let outcome = execute(&cloud, input(&arguments, image, &source), &mut progress).await;
    progress.finish();
    let address = cloud.address().to_owned();
    let codebuild = cloud.codebuild().clone();
    cloud.shutdown().await;
    match outcome {
        Ok(published) => summarize(&published, &address, &progress),
        Err(error) => {
            explain(&error, &progress, &codebuild);
            Err(error)
        }
    }
}

/// What an earlier command left unfinished belongs to `archweld up`, which stays as long as it takes:
/// this one ends with its own run.
async fn close_unfinished(cloud: &Cloud, progress: &mut Progress) -> Result<(), Error> {
    for execution in cloud.resumed() {
        let stop = json!({
            "executionArn": execution,
            "error": "Archweld.HostStopped",
            "cause": "the local cloud stopped while it ran, and `archweld run` goes on with no \
                      earlier run; `archweld up` does",
        });
        cloud.step_functions().call("StopExecution", stop).await?;
        progress.say(&format!("closed {execution}, which an earlier archweld left unfinished"));
    }
    Ok(())
}

fn choose<'a>(config: &'a Config, name: Option<&ImageName>) -> Result<&'a ImageConfig, Error> {
    let problem = match (name, config.images()) {
        (None, [only]) => return Ok(only),
        (None, _) => "missing; name one with --image".to_owned(),
        (Some(name), _) => match config.image(name) {
            Some(image) => return Ok(image),
            None => format!("unknown image {:?}", name.as_str()),
        },
    };
    let known: Vec<&str> = config.images().iter().map(|image| image.name.as_str()).collect();
    Err(PlanError::Image { problem, known: known.join(", ") }.into())
}

async fn execute(
    cloud: &Cloud,
    input: ExecutionInput,
    progress: &mut Progress,
) -> Result<Published, Error> {
    let state_machine = cloud.stack().state_machines.first().ok_or(Error::NoStateMachine)?;
    let mut watch = Watch::new(cloud)?;
    let started = cloud
        .step_functions()
        .call(
            "StartExecution",
            json!({
                "stateMachineArn": state_machine.arn,
                "input": json!(input).to_string(),
            }),
        )
        .await?;
    let started = started["executionArn"].as_str().unwrap_or_default().to_owned();
    let status = loop {
        match watch.next(progress).await {
            Heard::Ended { execution, status } if execution == started => break status,
            Heard::Started { .. } | Heard::Ended { .. } => {}
            Heard::Interrupted => {
                let stop = json!({"executionArn": started, "cause": "Ctrl-C"});
                cloud.step_functions().call("StopExecution", stop).await?;
                return Err(Error::Interrupted);
            }
        }
    };
    let ended =
        cloud.step_functions().call("DescribeExecution", json!({"executionArn": started})).await?;
    let text = |field: &str| ended[field].as_str().unwrap_or_default().to_owned();
    if status == Status::Succeeded {
        return serde_json::from_str(&text("output")).map_err(|error| Error::Run {
            error: "Execution.Output".to_owned(),
            cause: error.to_string(),
        });
    }
    let error = if text("error").is_empty() { text("status") } else { text("error") };
    Err(Error::Run { error, cause: text("cause") })
}

fn input(arguments: &Run, image: &ImageConfig, source: &Source) -> ExecutionInput {
    let platforms = (!arguments.platforms.is_empty()).then(|| arguments.platforms.clone());
    ExecutionInput {
        image: arguments.image.clone(),
        git_ref: source.git_ref.clone(),
        commit: source.commit.clone(),
        tree: source.tree(&image.depends_on()),
        force: arguments.force.then_some(true),
        platforms,
        tags: None,
        publisher: arguments.publisher,
        trigger: Some(Trigger { kind: Some("local".to_owned()), ..Trigger::default() }),
    }
}

/// Shows the output of what failed; the error itself is reported last.
fn explain(error: &Error, progress: &Progress, codebuild: &CodeBuild) {
    for Failure { build_id, target, lines } in progress.failures() {
        progress.say(&format!("{target}: the output of the command that failed:"));
        for line in lines {
            progress.say(&format!("  {line}"));
        }
        // The link in the cause is AWS's console, which knows nothing of this build.
        if let Some(file) = codebuild.log_file(build_id) {
            progress.say(&format!("{target}: the whole log: {}", file.display()));
        }
    }
    let (wall, own) = progress.times();
    if progress.is_json() {
        let (name, cause) = match error {
            Error::Run { error, cause } => (error.clone(), cause.clone()),
            other => ("Interrupted".to_owned(), other.to_string()),
        };
        progress.json(
            "summary",
            &json!({
                "status": "FAILED", "error": name, "cause": cause,
                "wall_ms": milliseconds(wall), "own_ms": milliseconds(own),
            }),
        );
    }
}

fn summarize(published: &Published, address: &str, progress: &Progress) -> Result<(), Error> {
    let (wall, own) = progress.times();
    // Functions and builds call the registry by ECR's name; Docker on this machine cannot.
    let repository = published.repository_uri.split_once('/').map_or("", |(_, name)| name);
    let uri = format!("{address}/{repository}");
    let tag = published.tags.last().unwrap_or(&published.tags[0]);
    let pull = format!("docker pull {uri}:{tag}");
    let runs: Vec<String> = published
        .platforms
        .iter()
        .map(|image| format!("docker run --rm --platform {} {uri}:{tag}", image.platform))
        .collect();
    if progress.is_json() {
        let mut summary = json!({
            "status": "SUCCEEDED", "uri": uri, "pull": pull, "run_lines": runs,
            "wall_ms": milliseconds(wall), "own_ms": milliseconds(own),
        });
        if let (Some(summary), Value::Object(fields)) = (summary.as_object_mut(), json!(published))
        {
            summary.extend(fields);
        }
        progress.json("summary", &summary);
        return Ok(());
    }
    let mut text = format!("published {uri}\n{}", describe(published, wall, own));
    text += &format!("while `archweld up` serves the registry:\n  {pull}\n");
    for line in &runs {
        text += &format!("  {line}\n");
    }
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| Error::System { what: "write to the standard output", source })
}

/// What became of the run, a line each.
fn describe(published: &Published, wall: Duration, own: Duration) -> String {
    let names =
        |tags: &[ImageTag]| tags.iter().map(ImageTag::as_str).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    let mut line = |what: &str, value: &str| text += &format!("  {what:<14} {value}\n");
    line("index", &published.digest.to_string());
    for image in &published.platforms {
        let how = if image.reused { "reused" } else { "built" };
        let value = format!("{} {:>9}, {how}", image.digest, size(image.size_bytes));
        line(&image.platform.to_string(), &value);
        line("", &program(image));
    }
    line("tags", &names(&published.tags));
    if !published.tags_kept.is_empty() {
        line("tags kept", &format!("{} (of an earlier run)", names(&published.tags_kept)));
    }
    if !published.tags_ahead.is_empty() {
        line("tags ahead", &format!("{} (of a newer run)", names(&published.tags_ahead)));
    }
    if !published.tags_left_out.is_empty() {
        let templates: Vec<String> =
            published.tags_left_out.iter().map(ToString::to_string).collect();
        line("left out", &format!("{} (not of this run)", templates.join(", ")));
    }
    let (wall_s, own_s) = (wall.as_secs_f64(), own.as_secs_f64());
    if own < wall {
        line("time", &format!("{wall_s:.1} s, {own_s:.2} s of them archweld's own"));
    } else {
        line("time", &format!("{wall_s:.2} s: nothing was built"));
    }
    text
}

/// What was found out about the program that an image starts.
fn program(image: &PublishedPlatform) -> String {
    match &image.executable {
        ExecutableCheck::Confirmed(found) => found.clone(),
        ExecutableCheck::Unknown(reason) => format!("its program could not be checked: {reason}"),
        ExecutableCheck::Off => "its program was not checked: check_executable = false".to_owned(),
    }
}

/// A size in decimal units, as registries show it.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(reused: [bool; 2], executable: [Value; 2]) -> Published {
        let platforms = ["linux/amd64", "linux/arm/v7"].into_iter().zip(reused).zip(executable);
        let platforms = platforms.map(|((platform, reused), executable)| {
            json!({
                "platform": platform, "digest": format!("sha256:{}", "a1".repeat(32)),
                "size_bytes": 1_234_567, "reused": reused, "executable": executable,
            })
        });
        serde_json::from_value(json!({
            "image": "hello", "run": "r1", "repository_uri": "registry.example/hello",
            "digest": format!("sha256:{}", "b2".repeat(32)),
            "media_type": archweld_model::media_type::OCI_INDEX,
            "tags": ["r1", "1.2.3"], "tags_kept": ["0123456"], "tags_ahead": ["1.2", "latest"],
            "tags_left_out": ["beta@next"],
            "platforms": platforms.collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn says_what_was_built_what_the_programs_are_and_where_the_tags_point() {
        let executable = [json!({"confirmed": "/app is compiled for x86-64"}), json!("off")];
        let published = published([true, false], executable);
        let (wall, own) = (Duration::from_millis(7_250), Duration::from_millis(120));
        insta::assert_snapshot!(describe(&published, wall, own), @"
        index          sha256:b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
        linux/amd64    sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1    1.2 MB, reused
                       /app is compiled for x86-64
        linux/arm/v7   sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1    1.2 MB, built
                       its program was not checked: check_executable = false
        tags           r1, 1.2.3
        tags kept      0123456 (of an earlier run)
        tags ahead     1.2, latest (of a newer run)
        left out       beta@next (not of this run)
        time           7.2 s, 0.12 s of them archweld's own
        ");
    }

    #[test]
    fn says_that_nothing_was_built_and_why_a_program_is_not_known() {
        let unknown = json!({"unknown": "no layer has a program"});
        let published = published([true, true], [unknown.clone(), unknown]);
        let wall = Duration::from_millis(85);
        insta::assert_snapshot!(describe(&published, wall, wall), @"
        index          sha256:b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
        linux/amd64    sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1    1.2 MB, reused
                       its program could not be checked: no layer has a program
        linux/arm/v7   sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1    1.2 MB, reused
                       its program could not be checked: no layer has a program
        tags           r1, 1.2.3
        tags kept      0123456 (of an earlier run)
        tags ahead     1.2, latest (of a newer run)
        left out       beta@next (not of this run)
        time           0.09 s: nothing was built
        ");
    }
}
