//! The builds of executions: finding them, stopping them, and telling of those that ended.

use archweld_builds::{Completion, EndedBuild, complete};
use archweld_model::{Environment, ErrorName, Named, variable};
use archweld_runtime::CallError;
use aws_sdk_codebuild::{
    Client,
    error::SdkError,
    operation::stop_build::StopBuildError,
    primitives::DateTime,
    types::{Build, StatusType},
};
use futures_util::{StreamExt as _, future::try_join_all, stream};
use jiff::Timestamp;

use crate::{AT_ONCE_MAX, Clients, Error, Reconciled, executions::Executions};

/// How far back it looks, in pages of a hundred builds of each project.
const PAGES_MAX: u32 = 5;
/// How many builds of each project it asks for first: each is some kilobytes, and most often the
/// newest few are all that it is after.
const BATCH_FIRST: usize = 4;
/// How many builds CodeBuild tells of at a time.
const BATCH_MAX: usize = 100;
/// How much longer ago, in seconds, a build may have begun than the clock of Step Functions says of
/// its execution, and how long the news of something may take to arrive everywhere.
const LAG_SECONDS: i64 = 60;

/// One of archweld's builds.
pub(crate) struct OwnBuild {
    build: Build,
    environment: Environment,
}

/// The builds of one project that were not looked at yet, newest first.
struct Listing<'a> {
    project: &'a str,
    ids: std::vec::IntoIter<String>,
    next_token: Option<String>,
    pages_left: u32,
}

/// The builds of these projects that name an execution, from those begun at `since` on.
pub(crate) async fn since(
    since: Timestamp,
    projects: &[String],
    codebuild: &Client,
) -> Result<Vec<OwnBuild>, CallError> {
    let mut found = Vec::new();
    let mut batch = BATCH_FIRST;
    let mut listings: Vec<Listing<'_>> = projects.iter().map(|name| Listing::new(name)).collect();
    loop {
        try_join_all(listings.iter_mut().map(|listing| listing.fill(codebuild))).await?;
        let ids: Vec<String> =
            listings.iter_mut().flat_map(|listing| listing.ids.by_ref().take(batch)).collect();
        if ids.is_empty() {
            return Ok(found);
        }
        let builds = details(ids, codebuild).await?;
        for build in &builds {
            let began = build.start_time().map(DateTime::secs);
            if began.is_some_and(|began| began < since.as_second() - LAG_SECONDS) {
                let of_project = |it: &&mut Listing<'_>| build.project_name() == Some(it.project);
                listings.iter_mut().filter(of_project).for_each(Listing::end);
            }
        }
        found.extend(builds.into_iter().filter_map(OwnBuild::new));
        batch = (2 * batch).min(BATCH_MAX / projects.len());
    }
}

impl<'a> Listing<'a> {
    fn new(project: &'a str) -> Self {
        Self { project, ids: Vec::new().into_iter(), next_token: None, pages_left: PAGES_MAX }
    }

    /// Asks for the next page, once there is nothing left of the one before.
    async fn fill(&mut self, codebuild: &Client) -> Result<(), CallError> {
        while self.ids.as_slice().is_empty() && self.pages_left > 0 {
            let page = codebuild
                .list_builds_for_project()
                .project_name(self.project)
                // No sort order: stating one is an error once a project has more than 100 builds.
                // The newest come first.
                .set_next_token(self.next_token.take())
                .send()
                .await
                .map_err(|error| CallError::new("codebuild:ListBuildsForProject", &error))?;
            self.ids = page.ids.unwrap_or_default().into_iter();
            self.next_token = page.next_token;
            self.pages_left = if self.next_token.is_some() { self.pages_left - 1 } else { 0 };
        }
        Ok(())
    }

    /// Leaves out what is older than what was found.
    fn end(&mut self) {
        self.ids = Vec::new().into_iter();
        self.pages_left = 0;
    }
}

async fn details(ids: Vec<String>, codebuild: &Client) -> Result<Vec<Build>, CallError> {
    let builds = codebuild.batch_get_builds().set_ids(Some(ids)).send().await;
    let builds = builds.map_err(|error| CallError::new("codebuild:BatchGetBuilds", &error))?;
    Ok(builds.builds.unwrap_or_default())
}

impl OwnBuild {
    fn new(build: Build) -> Option<Self> {
        let environment = archweld_builds::environment(&build);
        environment.get(variable::EXECUTION)?;
        Some(Self { build, environment })
    }

    /// The ARN of its execution.
    pub(crate) fn execution(&self) -> &str {
        self.environment.get(variable::EXECUTION).unwrap_or_default()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.build.build_status() == Some(&StatusType::InProgress)
    }

    /// Whether it began before `time`, where CodeBuild says when it began.
    pub(crate) fn began_before(&self, time: Timestamp) -> bool {
        self.build.start_time().is_some_and(|began| began.secs() <= time.as_second())
    }

    /// Whether it ended before `time`, where CodeBuild says when it ended.
    fn ended_before(&self, time: Timestamp) -> bool {
        self.build.end_time().is_some_and(|ended| ended.secs() <= time.as_second())
    }

    pub(crate) fn id(&self) -> String {
        self.build.id().unwrap_or_default().to_owned()
    }
}

/// Stops builds.
pub(crate) async fn stop_all(
    ids: Vec<String>,
    codebuild: &Client,
    reconciled: &mut Reconciled,
) -> Result<(), CallError> {
    let stopped: Vec<Result<String, CallError>> = stream::iter(ids)
        .map(|id| async move { stop(&id, codebuild).await.map(|()| id) })
        .buffered(AT_ONCE_MAX)
        .collect()
        .await;
    let mut failed = Ok(());
    for stopped in stopped {
        match stopped {
            Ok(id) => reconciled.stopped.push(id),
            Err(error) => failed = Err(error),
        }
    }
    failed
}

async fn stop(id: &str, codebuild: &Client) -> Result<(), CallError> {
    match codebuild.stop_build().id(id).send().await {
        Ok(_) => Ok(()),
        Err(SdkError::ServiceError(context))
            if matches!(context.err(), StopBuildError::ResourceNotFoundException(_)) =>
        {
            Ok(())
        }
        Err(error) => Err(CallError::new("codebuild:StopBuild", &error)),
    }
}

/// Stops the builds whose execution is over, and tells of those that ended while theirs still runs:
/// whose event was lost. What is younger than a minute is left to its event, and to the next pass.
pub(crate) async fn sweep(
    builds: &[OwnBuild],
    executions: &Executions,
    now: Timestamp,
    clients: &Clients,
    reconciled: &mut Reconciled,
) -> Result<(), Error> {
    let settled = Timestamp::from_second(now.as_second() - LAG_SECONDS).unwrap_or(now);
    // A build that began after its execution had ended is one that started late, or one of an
    // execution that was redriven since, of which the list would tell by now.
    let orphans = builds.iter().filter(|build| {
        build.is_running() && executions.is_over(build.execution()) && build.began_before(settled)
    });
    let orphans = orphans.map(OwnBuild::id).collect();
    let stopped = stop_all(orphans, &clients.codebuild, reconciled).await;

    let ended = builds.iter().filter(|build| {
        !build.is_running()
            && executions.is_running(build.execution())
            && build.ended_before(settled)
    });
    let ended: Vec<EndedBuild> = ended.map(|build| EndedBuild::of(&build.build)).collect();
    let told: Vec<_> = stream::iter(ended)
        .map(|build| async move {
            let told = complete(&build, &clients.builds).await;
            (build.id, told)
        })
        .buffered(AT_ONCE_MAX)
        .collect()
        .await;
    let mut failed = stopped.map_err(Error::from);
    for (id, told) in told {
        match told {
            Ok(Completion::Told) => reconciled.completed.push(id),
            Ok(Completion::NotWaitedFor) => {}
            Err(error) if error.name() == ErrorName::ServiceUnavailable => {
                failed = Err(error.into());
            }
            // No later pass would do better, and the others must not wait for this one.
            Err(error) => tracing::warn!(
                build.id = id,
                error.name = %error.name(),
                error.message = %error,
                "a build that ended cannot be told of"
            ),
        }
    }
    failed
}
