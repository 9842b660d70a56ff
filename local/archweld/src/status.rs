//! `archweld status`: the last runs, or one in detail.

use std::time::Duration;

use archweld_model::{ExecutionInput, Plan, Trigger};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    arguments::Status,
    aws::CallError,
    error::Error,
    progress::{milliseconds, plain, shown},
    runs::{Build, Execution, History},
    start,
    summary::{short, size},
    target::Target,
};

/// How many runs are asked for at once: far below DescribeExecution's rate.
const CALLS_MAX: usize = 5;
/// How much of an error a list shows, in characters.
const ERROR_CHARACTERS_MAX: usize = 100;

/// Shows the last runs, or one.
///
/// # Errors
/// When there is no such run, or nobody tells.
pub(crate) async fn status(arguments: Status) -> Result<(), Error> {
    let target = Target::find(&arguments.at).await?;
    if arguments.follow {
        let execution = target.run(arguments.run.as_deref()).await?;
        return start::follow(&target, &execution, arguments.json).await;
    }
    match arguments.run.as_deref() {
        Some(run) => {
            let run = Run::read(&target, target.run(Some(run)).await?).await?;
            crate::print(&if arguments.json { lines(&[run.json()]) } else { run.text(&target) })
        }
        None => list(&target, &arguments).await,
    }
}

async fn list(target: &Target, arguments: &Status) -> Result<(), Error> {
    let newest = target.executions(arguments.limit.into(), None).await?;
    let entries: Vec<Entry> = stream::iter(newest)
        .map(|execution| Entry::read(target, execution))
        .buffered(CALLS_MAX)
        .try_collect()
        .await?;
    if arguments.json {
        return crate::print(&lines(&entries.iter().map(Entry::json).collect::<Vec<_>>()));
    }
    if entries.is_empty() {
        return crate::print("no runs yet: start one with `archweld start`\n");
    }
    crate::print(&table(&entries))
}

/// A run in the list.
struct Entry {
    execution: Execution,
    asked: ExecutionInput,
    platforms: Vec<String>,
}

impl Entry {
    async fn read(target: &Target, execution: Execution) -> Result<Self, CallError> {
        let execution = target.execution(&execution.execution_arn).await?;
        let asked = execution.asked();
        let platforms = match (execution.published(), &asked.platforms) {
            (Some(published), _) => {
                published.platforms.iter().map(|image| image.platform.to_string()).collect()
            }
            (None, Some(asked)) => asked.iter().map(ToString::to_string).collect(),
            // A run that is not told which builds those of the configuration.
            (None, None) => {
                let plan = target.history(&execution.execution_arn).await?.plan;
                plan.iter()
                    .flat_map(|plan| &plan.platforms)
                    .map(|it| it.platform.to_string())
                    .collect()
            }
        };
        Ok(Self { execution, asked, platforms })
    }

    fn json(&self) -> Value {
        let Self { execution, asked, platforms } = self;
        json!({
            "run": execution.name, "execution": execution.execution_arn,
            "status": execution.status, "started": execution.start_date,
            "ended": execution.stop_date, "took_ms": milliseconds(execution.took()),
            "image": asked.image, "ref": asked.git_ref, "commit": asked.commit,
            "trigger": asked.trigger, "platforms": platforms,
            "error": execution.error, "cause": execution.cause,
        })
    }

    fn row(&self) -> [String; 8] {
        let Self { execution, asked, platforms } = self;
        let kind = asked.trigger.as_ref().and_then(|trigger| trigger.kind.clone());
        let git_ref = asked.git_ref.as_ref().map(ToString::to_string);
        let commit = asked.commit.as_ref().map(|commit| commit.as_str().chars().take(7).collect());
        let error = execution.error.as_ref().map(|error| {
            let cause = plain(execution.cause.as_deref().unwrap_or_default());
            let text = format!("{error}: {}", cause.lines().next().unwrap_or_default());
            text.chars().take(ERROR_CHARACTERS_MAX).collect()
        });
        [
            execution.name.clone(),
            at(execution.start_date),
            kind.unwrap_or_else(|| "-".to_owned()),
            git_ref.or(commit).unwrap_or_else(|| "-".to_owned()),
            if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") },
            execution.status.clone(),
            shown(Duration::from_millis(milliseconds(execution.took()))),
            error.unwrap_or_default(),
        ]
    }
}

/// The runs, a line each.
fn table(entries: &[Entry]) -> String {
    const HEADS: [&str; 8] =
        ["RUN", "STARTED", "TRIGGER", "REF", "PLATFORMS", "STATUS", "DURATION", "ERROR"];
    let rows: Vec<[String; 8]> =
        [HEADS.map(str::to_owned)].into_iter().chain(entries.iter().map(Entry::row)).collect();
    let widths: [usize; 8] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A run in detail.
struct Run {
    execution: Execution,
    asked: ExecutionInput,
    history: History,
    builds: Vec<Build>,
}

impl Run {
    async fn read(target: &Target, execution: Execution) -> Result<Self, CallError> {
        let history = target.history(&execution.execution_arn).await?;
        let builds = target.builds(&history.builds).await?;
        Ok(Self { asked: execution.asked(), execution, history, builds })
    }

    fn json(&self) -> Value {
        let Self { execution, history, builds, .. } = self;
        let platforms = history.plan.iter().flat_map(|plan| &plan.platforms);
        let mut run = Entry {
            execution: execution.clone(),
            asked: self.asked.clone(),
            platforms: platforms.map(|planned| planned.platform.to_string()).collect(),
        }
        .json();
        let builds = builds.iter().map(|build| {
            let outcome = history.outcomes.get(&build.id);
            json!({
                "target": build.target(), "build_id": build.id, "status": build.build_status,
                "phase": build.current_phase, "failed": build.failed_phase(),
                "took_ms": build.took().map(milliseconds),
                "digest": outcome.map(|outcome| &outcome.built.digest),
                "size_bytes": outcome.map(|outcome| outcome.built.size_bytes),
                "log_group": build.logs.as_ref().and_then(|log| log.group_name.as_deref()),
                "log_stream": build.logs.as_ref().and_then(|log| log.stream_name.as_deref()),
            })
        });
        run["state"] = json!(history.state.as_deref().filter(|_| execution.is_running()));
        run["builds"] = builds.collect::<Vec<_>>().into();
        run["reused"] = json!(self.reused().map(|(target, _)| target).collect::<Vec<_>>());
        run["published"] = json!(execution.published());
        run
    }

    /// The platforms that were not built, and the digests that stand for them.
    fn reused(&self) -> impl Iterator<Item = (&str, String)> {
        let platforms = self.history.plan.iter().flat_map(|plan: &Plan| &plan.platforms);
        platforms.filter_map(|planned| {
            Some((planned.build.target.as_str(), short(&planned.reused.as_ref()?.digest)))
        })
    }

    fn text(&self, target: &Target) -> String {
        let Self { execution, asked, history, builds } = self;
        let mut text = String::new();
        let mut line = |what: &str, value: &str| text += &format!("{what:<12} {value}\n");
        line("run", &execution.name);
        let (status, took) = (&execution.status, shown(execution.took()));
        match history.state.as_deref().filter(|_| execution.is_running()) {
            Some(state) => line("status", &format!("{status} for {took}, at `{state}`")),
            None => line("status", &format!("{status} after {took}")),
        }
        line("started", &at(execution.start_date));
        line("execution", &execution.execution_arn);
        if let Some(trigger) = &asked.trigger {
            line("trigger", &describe(trigger));
        }
        let (plan, some) =
            (history.plan.as_ref(), |text: Option<String>| text.unwrap_or_else(|| "-".to_owned()));
        let image = plan.map(|plan| &plan.image).or(asked.image.as_ref());
        line("image", &some(image.map(ToString::to_string)));
        line("ref", &some(asked.git_ref.as_ref().map(ToString::to_string)));
        line("commit", &some(asked.commit.as_ref().map(|commit| commit.as_str().to_owned())));
        for (target, digest) in self.reused() {
            line(target, &format!("reused      {digest}"));
        }
        for build in builds {
            let took = build.took().map(shown).unwrap_or_default();
            let mut value = format!("{:<11} {took:>7}", build.build_status);
            if let Some(outcome) = history.outcomes.get(&build.id) {
                let built = &outcome.built;
                value += &format!("  {}", short(&built.digest));
                if built.size_bytes > 0 {
                    value += &format!("  {}", size(built.size_bytes));
                }
            } else if let Some((phase, said)) = build.failed_phase() {
                value += &format!("  in {phase}: {}", plain(&said));
            } else if !build.is_over() {
                value += &format!("  in {}", build.current_phase);
            }
            line(build.target(), &value);
            line("", &format!("build {}", build.id));
            let log = build.logs.as_ref();
            if let Some((group, stream)) =
                log.and_then(|log| log.group_name.as_deref().zip(log.stream_name.as_deref()))
            {
                line("", &format!("log   {group} {stream}"));
            }
        }
        if let Some(published) = execution.published() {
            line("index", &published.digest.to_string());
            let tags: Vec<&str> = published.tags.iter().map(|tag| tag.as_str()).collect();
            line("tags", &tags.join(", "));
        }
        if let Some(error) = &execution.error {
            line("error", error);
            for cause in execution.cause.as_deref().unwrap_or_default().lines() {
                line("", &plain(cause));
            }
        }
        if !builds.is_empty() {
            line("logs", &format!("archweld logs {}{}", execution.name, target.options));
        }
        text
    }
}

fn describe(trigger: &Trigger) -> String {
    let mut text = trigger.kind.clone().unwrap_or_else(|| "-".to_owned());
    text += &trigger.actor.as_ref().map(|actor| format!(" by {actor}")).unwrap_or_default();
    text += &trigger.id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
    plain(&text)
}

/// A time in the time zone of whoever reads it.
fn at(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn lines(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}
