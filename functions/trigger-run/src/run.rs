//! Starting an execution, once, and stopping those that it supersedes.

use archweld_model::{
    Commit, ExecutionInput, GitRef, ImageConfig, Named as _, Sequence, Trigger, TriggerKind,
};
use archweld_runtime::CallError;
use aws_sdk_sfn::{
    Client,
    operation::{
        describe_execution::DescribeExecutionError, start_execution::StartExecutionError,
        stop_execution::StopExecutionError,
    },
    types::ExecutionStatus,
};
use aws_smithy_types::DateTime;
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use crate::outcome::{Outcome, Skipped, Started, Superseded};

/// How long the ref's part of an execution's name may be, in characters: with the longest name of
/// an image, the commit and the hash, a name has at most 80.
const REF_CHARACTERS_MAX: usize = 14;
/// How many running executions of one image and ref are looked at. They stop each other: there are
/// never many.
const CANDIDATES_MAX: usize = 50;
/// How many running executions are listed, of all images.
const RUNNING_MAX: i32 = 1_000;
/// How many executions are looked at or stopped at once.
const CALLS_MAX: usize = 5;

/// A run that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    /// The image.
    pub(crate) image: &'a ImageConfig,
    /// The branch or tag.
    pub(crate) git_ref: GitRef,
    /// The commit, where it is known.
    pub(crate) commit: Option<Commit>,
    /// What the ref was before, where the push says.
    pub(crate) before: Option<Commit>,
    /// What asks for it.
    pub(crate) kind: TriggerKind,
    /// The identity of what asks for it: the run of an image and ref is one for each.
    pub(crate) identity: String,
    /// The same for people.
    pub(crate) id: String,
    /// Where it stands in the order of runs.
    pub(crate) sequence: Option<Sequence>,
    /// Who caused it.
    pub(crate) actor: Option<String>,
    /// What there is to say of it.
    pub(crate) note: Option<String>,
}

impl Ask<'_> {
    /// What the names of all executions of the image and ref begin with; others may, too.
    fn prefix(&self) -> String {
        let short = self.git_ref.branch().or(self.git_ref.tag()).unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_.".contains(c) { c } else { '-' };
        let short: String = short.chars().map(plain).take(REF_CHARACTERS_MAX).collect();
        format!("{}-{short}-", self.image.name)
    }

    /// The name of its execution: the same for the same delivery, and harmless whatever the names
    /// in it. It stands in tags, too.
    pub(crate) fn name(&self) -> String {
        let branch_or_tag = (self.git_ref.branch(), self.git_ref.tag());
        let key =
            serde_json::json!([self.image.name, branch_or_tag, self.kind.as_str(), self.identity]);
        let hash = hex::encode(&Sha256::digest(key.to_string())[..8]);
        let commit = self.commit.as_ref().filter(|_| self.kind == TriggerKind::Push);
        match commit.and_then(|commit| commit.as_str().get(..7)) {
            Some(commit) => format!("{}{commit}-{hash}", self.prefix()),
            None => format!("{}{}-{hash}", self.prefix(), self.kind.as_str()),
        }
    }

    fn input(&self) -> serde_json::Result<String> {
        serde_json::to_string(&ExecutionInput {
            image: Some(self.image.name.clone()),
            git_ref: Some(self.git_ref.clone()),
            commit: self.commit.clone(),
            trigger: Some(Trigger {
                kind: Some(self.kind.as_str().to_owned()),
                id: Some(self.id.clone()),
                sequence: self.sequence,
                actor: self.actor.clone(),
            }),
            ..ExecutionInput::default()
        })
    }
}

/// What became of a run that was asked for.
enum Found {
    New,
    Running,
    Over,
}

/// The executions of a state machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Executions<'a> {
    pub(crate) sfn: &'a Client,
    pub(crate) state_machine: &'a str,
}

impl Executions<'_> {
    /// Starts runs, a few at a time. What fails is in the outcome; the error is the first one.
    pub(crate) async fn start_all(
        self,
        asks: Vec<Ask<'_>>,
        outcome: &mut Outcome,
    ) -> Result<(), CallError> {
        let mut result = Ok(());
        let starts = asks.into_iter().map(|ask| async move {
            let mut outcome = Outcome::default();
            let result = self.start(&ask, &mut outcome).await;
            (ask, outcome, result)
        });
        let mut started = few_at_once(starts);
        while let Some((ask, one, started)) = started.next().await {
            outcome.started.extend(one.started);
            outcome.skipped.extend(one.skipped);
            outcome.superseded.extend(one.superseded);
            if let Err(error) = started {
                tracing::error!(
                    run = ask.name(),
                    image.name = %ask.image.name,
                    trigger.id = ask.id,
                    error.name = %error.name(),
                    error.message = %error,
                    "no run, or older runs not stopped"
                );
                outcome.fail(&ask.image.name);
                // What may pass by itself is worth another try, whatever else there is.
                if result.is_ok() || error.is_unavailable() {
                    result = Err(error);
                }
            }
        }
        result
    }

    async fn start(self, ask: &Ask<'_>, outcome: &mut Outcome) -> Result<(), CallError> {
        let name = ask.name();
        let arn =
            format!("{}:{name}", self.state_machine.replacen(":stateMachine:", ":execution:", 1));
        let (found, began) = self.find_or_start(ask, &name, &arn).await?;
        match found {
            Found::New => {
                tracing::info!(
                    run = name,
                    execution.arn = arn,
                    image.name = %ask.image.name,
                    trigger.kind = ask.kind.as_str(),
                    trigger.id = ask.id,
                    "run started"
                );
                outcome.started.push(Started {
                    image: ask.image.name.clone(),
                    execution: arn.clone(),
                    note: ask.note.clone(),
                });
            }
            Found::Running | Found::Over => outcome.skipped.push(Skipped {
                image: ask.image.name.clone(),
                reason: "already started".to_owned(),
                execution: Some(arn.clone()),
            }),
        }
        let supersedes =
            ask.kind == TriggerKind::Push && ask.image.supersede && ask.git_ref.branch().is_some();
        // A delivery that comes again goes on with what it may not have come to.
        if supersedes && !matches!(found, Found::Over) {
            let ours = Candidate {
                arn,
                kind: ask.kind,
                commit: ask.commit.clone(),
                sequence: ask.sequence.map_or(began, u64::from),
            };
            outcome.superseded.extend(self.supersede(ask, ours).await?);
        }
        Ok(())
    }

    /// Starts the execution unless it is there, and says since when it is, in milliseconds since
    /// 1970.
    async fn find_or_start(
        self,
        ask: &Ask<'_>,
        name: &str,
        arn: &str,
    ) -> Result<(Found, u64), CallError> {
        // StartExecution answers the same for an execution that it starts and for one of the same
        // input that runs already; whoever sent the event wants to know which.
        let described = self.sfn.describe_execution().execution_arn(arn).send().await;
        match described {
            Ok(execution) => {
                let began = milliseconds(&execution.start_date);
                return Ok(match execution.status {
                    ExecutionStatus::Running => (Found::Running, began),
                    _ => (Found::Over, began),
                });
            }
            Err(error) => match error.as_service_error() {
                Some(DescribeExecutionError::ExecutionDoesNotExist(_)) => {}
                _ => return Err(CallError::new("states:DescribeExecution", &error)),
            },
        }
        let input = ask.input().unwrap_or_default();
        let start = self.sfn.start_execution().state_machine_arn(self.state_machine);
        match start.name(name).input(input).send().await {
            Ok(started) => Ok((Found::New, milliseconds(&started.start_date))),
            Err(error) => match error.as_service_error() {
                // Somebody else was quicker.
                Some(StartExecutionError::ExecutionAlreadyExists(_)) => Ok((Found::Over, 0)),
                _ => Err(CallError::new("states:StartExecution", &error)),
            },
        }
    }

    /// Stops every running push of the image and branch but the newest, and what older schedules
    /// and base images started; `ours` itself where a newer push is there.
    ///
    /// Each run does so after it has started. Of two that start at once, at least one sees the
    /// other, and both come to the same end.
    async fn supersede(self, ask: &Ask<'_>, ours: Candidate) -> Result<Vec<Superseded>, CallError> {
        let others = self.running(ask, &ours.arn).await?;
        let newer = others
            .iter()
            .filter(|other| other.kind == TriggerKind::Push && other.sequence > ours.sequence)
            .max_by_key(|other| other.sequence);
        let newest = newer.unwrap_or(&ours);
        let is_older = |other: &&Candidate| {
            other.arn != newest.arn
                && (other.sequence < newest.sequence
                    // Pushed within the time that the provider tells apart: this one came next.
                    || newest.arn == ours.arn
                        && other.sequence == ours.sequence
                        && ask.before.is_some()
                        && other.commit == ask.before)
        };
        let older: Vec<&Candidate> = others.iter().chain([&ours]).filter(is_older).collect();
        let stops = older.into_iter().map(|older| async move {
            self.stop(&older.arn, &newest.arn, &ask.git_ref).await?;
            Ok(Superseded {
                image: ask.image.name.clone(),
                execution: older.arn.clone(),
                by: newest.arn.clone(),
            })
        });
        few_at_once(stops).try_collect().await
    }

    /// The running executions of the image and ref that events started, but for one.
    async fn running(self, ask: &Ask<'_>, but: &str) -> Result<Vec<Candidate>, CallError> {
        let listed = self
            .sfn
            .list_executions()
            .state_machine_arn(self.state_machine)
            .status_filter(ExecutionStatus::Running)
            .max_results(RUNNING_MAX)
            .send()
            .await
            .map_err(|error| CallError::new("states:ListExecutions", &error))?;
        let prefix = ask.prefix();
        let named: Vec<String> = listed
            .executions
            .into_iter()
            .filter(|execution| {
                execution.name.starts_with(&prefix) && execution.execution_arn != but
            })
            .map(|execution| execution.execution_arn)
            .take(CANDIDATES_MAX)
            .collect();
        let candidates = named.into_iter().map(|arn| self.candidate(ask, arn));
        let candidates: Vec<Option<Candidate>> = few_at_once(candidates).try_collect().await?;
        Ok(candidates.into_iter().flatten().collect())
    }

    async fn candidate(self, ask: &Ask<'_>, arn: String) -> Result<Option<Candidate>, CallError> {
        let described = self
            .sfn
            .describe_execution()
            .execution_arn(&arn)
            .send()
            .await
            .map_err(|error| CallError::new("states:DescribeExecution", &error))?;
        if described.status != ExecutionStatus::Running {
            return Ok(None);
        }
        let input = described.input.as_deref().unwrap_or_default();
        let input: Option<ExecutionInput> = serde_json::from_str(input).ok();
        let Some(input) = input else { return Ok(None) };
        let is_same = input.image.as_ref() == Some(&ask.image.name)
            && input.git_ref.is_some_and(|git_ref| git_ref.is_same(&ask.git_ref));
        let trigger = input.trigger.unwrap_or_default();
        // What a person started is theirs to stop.
        let kind = TriggerKind::ALL
            .into_iter()
            .find(|kind| trigger.kind.as_deref() == Some(kind.as_str()));
        let Some(kind) = kind.filter(|_| is_same) else { return Ok(None) };
        let began = milliseconds(&described.start_date);
        let sequence = trigger.sequence.map_or(began, u64::from);
        Ok(Some(Candidate { arn, kind, commit: input.commit, sequence }))
    }

    async fn stop(self, execution: &str, by: &str, git_ref: &GitRef) -> Result<(), CallError> {
        let name = by.rsplit(':').next().unwrap_or_default();
        let stop = self
            .sfn
            .stop_execution()
            .execution_arn(execution)
            .error("Run.Superseded")
            .cause(format!("{name} builds a newer push of {git_ref}"));
        match stop.send().await {
            Ok(_) => {
                let run = execution.rsplit(':').next();
                tracing::info!(
                    run,
                    execution.arn = execution,
                    superseded.by = name,
                    "run superseded"
                );
                Ok(())
            }
            Err(error) => match error.as_service_error() {
                Some(StopExecutionError::ExecutionDoesNotExist(_)) => Ok(()),
                _ => Err(CallError::new("states:StopExecution", &error)),
            },
        }
    }
}

/// Runs futures a few at a time; their results come in their order.
fn few_at_once<F: Future>(futures: impl Iterator<Item = F>) -> impl Stream<Item = F::Output> {
    // Collected, since a closure that is kept in a future may not be sent to another thread.
    stream::iter(futures.collect::<Vec<F>>()).buffered(CALLS_MAX)
}

/// A running execution of one image and ref.
#[derive(Debug)]
struct Candidate {
    arn: String,
    kind: TriggerKind,
    commit: Option<Commit>,
    sequence: u64,
}

fn milliseconds(time: &DateTime) -> u64 {
    time.to_millis().ok().and_then(|time| u64::try_from(time).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use archweld_model::{Config, Run};
    use proptest::prelude::*;

    use super::*;

    fn image(name: &str) -> ImageConfig {
        let text = format!(
            "[[image]]\nname = {name:?}\nrepository = \"hello\"\nplatforms = [\"linux/arm64\"]\n"
        );
        Config::parse(&text).unwrap().images()[0].clone()
    }

    fn ask<'a>(image: &'a ImageConfig, git_ref: &str, identity: &str) -> Ask<'a> {
        Ask {
            image,
            git_ref: git_ref.parse().unwrap(),
            commit: Some("0123456789012345678901234567890123456789".parse().unwrap()),
            before: None,
            kind: TriggerKind::Push,
            identity: identity.to_owned(),
            id: identity.to_owned(),
            sequence: Some(7_u64.try_into().unwrap()),
            actor: None,
            note: None,
        }
    }

    #[test]
    fn a_name_says_image_ref_and_commit_and_is_one_for_each_delivery() {
        let image = image("hello");
        let name = ask(&image, "refs/heads/main", "d1").name();
        insta::assert_snapshot!(name, @"hello-main-0123456-e310f76e916038e8");
        assert_eq!(ask(&image, "main", "d1").name(), name);
        assert_ne!(ask(&image, "refs/tags/main", "d1").name(), name);
        assert_ne!(ask(&image, "refs/heads/main", "d2").name(), name);
        let nightly = Ask { kind: TriggerKind::Schedule, ..ask(&image, "main", "d1") };
        insta::assert_snapshot!(nightly.name(), @"hello-main-schedule-b72b44b260447522");
    }

    #[test]
    fn the_input_is_that_of_the_delivery_alone() {
        let image = image("hello");
        insta::assert_snapshot!(ask(&image, "refs/heads/main", "d1").input().unwrap(), @r#"{"image":"hello","ref":"refs/heads/main","commit":"0123456789012345678901234567890123456789","trigger":{"kind":"push","id":"d1","sequence":7}}"#);
    }

    proptest! {
        #![proptest_config(crate::fuzz::config())]
        #[test]
        fn a_name_is_a_run_whatever_the_branch(
            name in "[a-z0-9][a-z0-9_-]{0,39}",
            branch in "(refs/heads/|refs/tags/)?.{1,60}",
            identity in ".{0,20}",
        ) {
            let image = image(&name);
            if let Ok(git_ref) = branch.parse::<GitRef>() {
                let ask = Ask { git_ref, ..ask(&image, "main", &identity) };
                let name = ask.name();
                prop_assert!(name.parse::<Run>().is_ok(), "{}", name);
                prop_assert!(name.starts_with(&ask.prefix()));
            }
        }
    }
}
