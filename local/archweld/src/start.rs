//! `archweld start` and `archweld stop`: runs of a deployed stack, or of the local cloud.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    time::Instant,
};

use archweld_model::ExecutionInput;
use serde_json::json;

use crate::{
    arguments::{Start, Stop},
    aws::{CallError, CallErrorKind},
    error::Error,
    follow::Follow,
    progress::{Failure, Progress},
    runs::Execution,
    summary::{Address, Summary},
    target::Target,
    watch::EndSignals,
};

/// What started a run that this command started.
const TRIGGER_KIND: &str = "cli";

/// Starts a run and follows it to its end.
///
/// # Errors
/// When it cannot be started, or publishes nothing.
pub(crate) async fn start(arguments: Start) -> Result<(), Error> {
    let input = input(&arguments)?;
    let target = Target::find(&arguments.at).await?;
    let mut progress = Progress::new(arguments.json, Instant::now());
    // From here on, Ctrl-C must not leave a run behind without a word.
    let mut signals = EndSignals::new()?;
    let started = target.start(arguments.name.as_deref(), &input).await;
    let execution = started.map_err(|error| exists(error, arguments.name.as_deref()))?;
    let run = execution.rsplit(':').next().unwrap_or(&execution).to_owned();
    if progress.is_json() {
        progress.json("started", &json!({"run": run, "execution": execution}));
    } else {
        progress.say(&format!("run {run} started"));
    }
    if arguments.no_wait {
        progress.say(&format!("show it:  archweld status {run}{}", target.options));
        return Ok(());
    }
    let mut follow = Follow::new(&target, execution.clone());
    let followed = tokio::select! {
        ended = follow.until_end(&mut progress) => Some(ended),
        () = signals.recv() => None,
    };
    let Some(ended) = followed else {
        progress.finish();
        if arguments.stop_on_interrupt {
            target.stop(&execution, "Ctrl-C").await?;
            progress.say(&format!("run {run} is stopped"));
        } else {
            goes_on(&progress, &run, &target);
        }
        return Err(Error::Interrupted);
    };
    progress.finish();
    show_end(&ended?, &follow, &progress, &target)
}

/// Follows a run that was started before to its end.
///
/// # Errors
/// When it publishes nothing.
pub(crate) async fn follow(
    target: &Target,
    execution: &Execution,
    json: bool,
) -> Result<(), Error> {
    let now = Instant::now();
    let began = now.checked_sub(execution.took()).unwrap_or(now);
    let mut progress = Progress::new(json, began);
    let mut signals = EndSignals::new()?;
    progress.say(&format!("run {}", execution.name));
    let mut follow = Follow::new(target, execution.execution_arn.clone());
    let followed = tokio::select! {
        ended = follow.until_end(&mut progress) => Some(ended),
        () = signals.recv() => None,
    };
    progress.finish();
    let Some(ended) = followed else {
        goes_on(&progress, &execution.name, target);
        return Err(Error::Interrupted);
    };
    show_end(&ended?, &follow, &progress, target)
}

/// What a person is told whose Ctrl-C ended the following, but not the run.
fn goes_on(progress: &Progress, run: &str, target: &Target) {
    let options = &target.options;
    progress.say(&format!("run {run} goes on"));
    progress.say(&format!("  follow it:  archweld status {run} --follow{options}"));
    progress.say(&format!("  stop it:    archweld stop {run}{options}"));
}

/// Says what a run came to.
fn show_end(
    ended: &Execution,
    follow: &Follow<'_>,
    progress: &Progress,
    target: &Target,
) -> Result<(), Error> {
    let wall = ended.took();
    let own = wall.saturating_sub(follow.building());
    let Some(published) = ended.published().filter(|_| ended.status == "SUCCEEDED") else {
        explain(progress, ended, target);
        let error = ended.failure();
        progress.summarize_failure(&error, wall, own);
        return Err(error);
    };
    let address = match target.registry() {
        Some(host) => Address::local(&published, &host),
        None => Address { uri: published.repository_uri.clone(), while_what: None },
    };
    let took = progress.took(&published);
    let (published, before) = (&published, follow.before.as_ref());
    Summary { published, address, took, before, transitions: None, wall, own }.show(progress)
}

/// Shows the output of what failed; the error itself is reported last.
fn explain(progress: &Progress, ended: &Execution, target: &Target) {
    for Failure { target: failed, lines, .. } in progress.failures() {
        progress.say(&format!("{failed}: the output of the command that failed:"));
        for line in lines {
            progress.say(&format!("  {line}"));
        }
        let (run, options) = (&ended.name, &target.options);
        progress.say(&format!(
            "{failed}: the whole log: archweld logs {run} --platform {failed}{options}"
        ));
    }
}

/// Stops a run.
///
/// # Errors
/// When there is none of that name, or it may not be stopped.
pub(crate) async fn stop(arguments: Stop) -> Result<(), Error> {
    let target = Target::find(&arguments.at).await?;
    let execution = target.run(Some(&arguments.run)).await?;
    if !execution.is_running() {
        return crate::print(&format!("run {} is over: {}\n", execution.name, execution.status));
    }
    target.stop(&execution.execution_arn, "archweld stop").await?;
    crate::print(&format!("run {} is stopped; its builds are stopped after it\n", execution.name))
}

fn exists(error: CallError, name: Option<&str>) -> Error {
    match name {
        Some(name) if error.kind == CallErrorKind::Exists => Error::RunExists(name.to_owned()),
        _ => error.into(),
    }
}

/// The execution's input: that of `--input`, with what other options say in the place of its fields.
fn input(arguments: &Start) -> Result<ExecutionInput, Error> {
    let mut input = match &arguments.input {
        None => ExecutionInput::default(),
        Some(text) => {
            let value = serde_json::from_str(&read(text)?).map_err(Error::InputJson)?;
            ExecutionInput::parse(value)?
        }
    };
    let Start { image, git_ref, commit, platforms, tags, publisher, .. } = arguments;
    input.image = image.clone().or(input.image);
    input.git_ref = git_ref.clone().or(input.git_ref);
    input.commit = commit.clone().or(input.commit);
    input.publisher = publisher.or(input.publisher);
    if arguments.force {
        input.force = Some(true);
    }
    if !platforms.is_empty() {
        input.platforms = Some(platforms.clone());
    }
    if !tags.is_empty() {
        input.tags = Some(tags.clone());
    }
    let trigger = input.trigger.get_or_insert_default();
    trigger.kind.get_or_insert_with(|| TRIGGER_KIND.to_owned());
    Ok(input)
}

fn read(text: &str) -> Result<String, Error> {
    if text == "-" {
        let mut input = String::new();
        let what = "read the standard input";
        let read = io::stdin().read_to_string(&mut input);
        return read.map(|_| input).map_err(|source| Error::System { what, source });
    }
    let Some(path) = text.strip_prefix('@').map(Path::new) else { return Ok(text.to_owned()) };
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn given(options: &[&str]) -> Result<serde_json::Value, String> {
        let line = ["archweld", "start"].iter().chain(options);
        let Command::Start(arguments) = Arguments::try_parse_from(line).unwrap().command else {
            panic!("another command")
        };
        input(&arguments).map(|input| json!(input)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_take_the_place_of_fields_of_the_input() {
        let json_input = r#"{"image": "a", "ref": "main", "trigger": {"kind": "release"}}"#;
        assert_eq!(
            given(&["--input", json_input, "--image", "b", "--platform", "linux/arm64"]),
            Ok(json!({
                "image": "b", "ref": "main", "platforms": ["linux/arm64"],
                "trigger": {"kind": "release"},
            }))
        );
        assert_eq!(given(&[]), Ok(json!({"trigger": {"kind": "cli"}})));
    }

    #[test]
    fn what_is_wrong_with_an_input_is_named() {
        let wrong = |input| given(&["--input", input]).unwrap_err();
        let error = wrong(r#"{"platfroms": []}"#);
        assert!(error.starts_with("execution input: platfroms: unknown field"), "{error}");
        let error = wrong(r#"{"platforms": ["linux/mips"]}"#);
        assert!(error.starts_with("execution input: platforms[0]: unknown platform"), "{error}");
        assert!(wrong("{").starts_with("--input: expected JSON, @FILE or -: "));
        assert!(wrong("@/no/such/file").starts_with("cannot read /no/such/file"));
    }
}
