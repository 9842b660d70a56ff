//! Status badges at the function's URL: `GET /badge/<image>.svg?ref=<branch or tag>`.
//!
//! Anybody may ask, so that an answer tells one word, and costs AWS next to nothing however often it
//! is asked for: what was found is kept for a minute, and of an image that there is not, nothing is
//! asked.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use archweld_badge::{Badge, MEDIA_TYPE, State};
use archweld_model::{Config, ExecutionInput, GitRef};
use archweld_runtime::CallError;
use aws_sdk_sfn::types::ExecutionStatus;

use crate::{Answer, run::Executions};

/// How long a state is kept, here and by whoever asks.
const KEPT_MAX: Duration = Duration::from_secs(60);
const CACHE_CONTROL: &str = "public, max-age=60";
/// How many states are kept.
const STATES_MAX: usize = 200;
/// How many of the newest executions are looked through.
const LISTED_MAX: i32 = 1_000;
/// How many executions are looked into for one badge.
const LOOKS_MAX: usize = 8;

/// What a badge is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) image: String,
    pub(crate) git_ref: Option<String>,
}

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    listed: Mutex<Option<(Vec<Listed>, SystemTime)>>,
    states: Mutex<HashMap<Asked, (State, SystemTime)>>,
}

#[derive(Debug, Clone)]
struct Listed {
    name: String,
    arn: String,
    status: ExecutionStatus,
}

impl Asked {
    /// What a path and a query ask for, if it is a badge.
    pub(crate) fn read(path: &str, query: &str) -> Option<Self> {
        let image = path.strip_prefix("/badge/")?.strip_suffix(".svg")?.to_owned();
        let git_ref = form_urlencoded::parse(query.as_bytes())
            .find_map(|(name, value)| (name == "ref").then(|| value.into_owned()));
        Some(Self { image, git_ref })
    }
}

/// Answers with a badge.
///
/// # Errors
/// When Step Functions does not answer.
pub(crate) async fn answer(
    asked: Asked,
    config: &Config,
    executions: Executions<'_>,
    kept: &Kept,
    now: SystemTime,
) -> Result<Answer, CallError> {
    let state = kept.state(&asked, config, executions, now).await?;
    let headers = BTreeMap::from([
        ("cache-control", CACHE_CONTROL),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"),
        ("content-type", MEDIA_TYPE),
        ("x-content-type-options", "nosniff"),
    ]);
    let body = Badge::new(&asked.image, asked.git_ref.as_deref(), state).to_string();
    Ok(Answer { status_code: 200, headers, body })
}

impl Kept {
    async fn state(
        &self,
        asked: &Asked,
        config: &Config,
        executions: Executions<'_>,
        now: SystemTime,
    ) -> Result<State, CallError> {
        let is_fresh =
            |since: SystemTime| now.duration_since(since).is_ok_and(|age| age < KEPT_MAX);
        let known = asked.image.parse().is_ok_and(|name| config.image(&name).is_some());
        let git_ref = asked.git_ref.as_deref().map(str::parse::<GitRef>).transpose();
        let (true, Ok(git_ref)) = (known, git_ref) else { return Ok(State::Unknown) };
        let states = || self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((state, since)) = states().get(asked)
            && is_fresh(*since)
        {
            return Ok(*state);
        }
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !listed.as_ref().is_some_and(|(_, since)| is_fresh(*since)) {
            let found = (list(executions).await?, now);
            *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
            listed = Some(found);
        }
        let (listed, _) = listed.unwrap_or((vec![], now));
        let state = find(&asked.image, git_ref.as_ref(), &listed, executions).await?;
        let mut states = states();
        if states.len() >= STATES_MAX {
            states.clear();
        }
        states.insert(asked.clone(), (state, now));
        Ok(state)
    }
}

/// The newest executions, the newest first.
async fn list(executions: Executions<'_>) -> Result<Vec<Listed>, CallError> {
    let list = executions.sfn.list_executions().state_machine_arn(executions.state_machine);
    let listed = list.max_results(LISTED_MAX).send().await;
    let listed = listed.map_err(|error| CallError::new("states:ListExecutions", &error))?;
    let each = listed.executions.into_iter();
    Ok(each.map(|it| Listed { name: it.name, arn: it.execution_arn, status: it.status }).collect())
}

/// How the newest run stands that is over, or else whether there is one at all.
async fn find(
    image: &str,
    git_ref: Option<&GitRef>,
    listed: &[Listed],
    executions: Executions<'_>,
) -> Result<State, CallError> {
    let prefix = format!("{image}-");
    let mut state = State::NoRuns;
    for candidate in listed.iter().filter(|it| it.name.starts_with(&prefix)).take(LOOKS_MAX) {
        let describe = executions.sfn.describe_execution().execution_arn(&candidate.arn);
        let described = describe.send().await;
        let described =
            described.map_err(|error| CallError::new("states:DescribeExecution", &error))?;
        let input: Option<ExecutionInput> =
            described.input.as_deref().and_then(|input| serde_json::from_str(input).ok());
        let is_asked_for = input.is_some_and(|input| {
            input.image.is_some_and(|name| name.as_str() == image)
                && git_ref
                    .is_none_or(|git_ref| input.git_ref.is_some_and(|known| known.is_same(git_ref)))
        });
        if !is_asked_for {
            continue;
        }
        match candidate.status {
            ExecutionStatus::Succeeded => return Ok(State::Published),
            ExecutionStatus::Failed | ExecutionStatus::TimedOut => return Ok(State::Failed),
            ExecutionStatus::Aborted => return Ok(State::Stopped),
            _ => state = State::Running,
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_is_asked_for_by_image_and_ref() {
        let asked = |path, query| {
            Asked::read(path, query).map(|asked| (asked.image, asked.git_ref.unwrap_or_default()))
        };
        let of = |image: &str, git_ref: &str| Some((image.to_owned(), git_ref.to_owned()));
        assert_eq!(asked("/badge/hello.svg", ""), of("hello", ""));
        assert_eq!(asked("/badge/hello.svg", "x=1&ref=a%2Fb"), of("hello", "a/b"));
        for path in ["/", "/badge/hello", "/badge.svg", "/x/badge/hello.svg"] {
            assert_eq!(asked(path, ""), None, "{path}");
        }
    }
}
