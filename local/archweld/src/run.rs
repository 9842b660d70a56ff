//! `archweld run`: one execution, from the source tree to the published image.

use std::time::Instant;

use archweld_cloud::Cloud;
use archweld_codebuild::CodeBuild;
use archweld_model::{
    Config, ExecutionInput, ImageConfig, ImageName, PlanError, Published, Trigger,
};
use archweld_step_functions::Status;
use serde_json::json;

use crate::{
    arguments::Run,
    aws::Api,
    deployment::Deployment,
    error::Error,
    estimate::estimates,
    progress::{Failure, Progress},
    source::Source,
    summary::{Address, Before, Summary, before},
    transitions::transitions,
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
    let mut before = None;
    let input = input(&arguments, image, &source);
    let outcome = execute(&cloud, input, &mut progress, &mut before).await;
    progress.finish();
    let address = cloud.address().to_owned();
    let codebuild = cloud.codebuild().clone();
    cloud.shutdown().await;
    match outcome {
        Ok((published, transitions)) => {
            let (wall, own) = progress.times();
            let (address, took) = (Address::local(&published, &address), progress.took(&published));
            let (published, before) = (&published, before.as_ref());
            let transitions = Some(transitions);
            Summary { published, address, took, before, transitions, wall, own }.show(&progress)
        }
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
    tags_before: &mut Option<Before>,
) -> Result<(Published, usize), Error> {
    let api = Api::new(cloud.sdk_config());
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
            Heard::Planned(plan) if plan.execution == started => {
                // What cannot be told is not shown, and is no reason to end.
                progress.estimated(estimates(&api, &plan).await.unwrap_or_default());
                *tags_before = before(&api, &plan).await.ok();
            }
            Heard::Planned(_) | Heard::Started { .. } | Heard::Ended { .. } => {}
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
        let published = serde_json::from_str(&text("output")).map_err(|error| Error::Run {
            error: "Execution.Output".to_owned(),
            cause: error.to_string(),
        })?;
        return Ok((published, transitions(cloud, &started).await?));
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
    progress.summarize_failure(error, wall, own);
}
