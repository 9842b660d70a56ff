//! How long builds usually take, by what CodeBuild remembers of earlier ones.

use std::{collections::BTreeMap, time::Duration};

use archweld_model::{BuildRequest, Plan, variable};
use serde::Deserialize;
use serde_json::json;

use crate::{
    aws::{Api, CODEBUILD, CallError},
    runs::Build,
};

/// How many of the newest successful builds count.
const BUILDS_MAX: usize = 9;

/// How long a build of a target usually takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// The median of earlier builds, from the request to the end.
    pub(crate) took: Duration,
    /// How many these are.
    pub(crate) builds: usize,
}

/// Estimates of the builds that a plan asks for, by target; none for what was not built before.
///
/// # Errors
/// When CodeBuild may not be asked.
pub(crate) async fn estimates(
    api: &Api,
    plan: &Plan,
) -> Result<BTreeMap<String, Estimate>, CallError> {
    let to_build = plan.platforms.iter().filter(|planned| planned.reused.is_none());
    let requests: Vec<&BuildRequest> =
        to_build.map(|planned| &planned.build).chain(&plan.manifest).collect();
    let mut history: BTreeMap<&str, Vec<Build>> = BTreeMap::new();
    let mut estimates = BTreeMap::new();
    for request in requests {
        let project = request.project.as_str();
        if !history.contains_key(project) {
            history.insert(project, newest(api, project).await?);
        }
        // The run's own builds may be over already.
        let earlier = history[project]
            .iter()
            .filter(|build| build.variable(variable::EXECUTION) != Some(&plan.execution));
        let took = earlier.filter(|build| is_like(build, request));
        let took: Vec<Duration> = took.filter_map(Build::took).take(BUILDS_MAX).collect();
        if let Some(estimate) = median(took) {
            estimates.insert(request.target.clone(), estimate);
        }
    }
    Ok(estimates)
}

/// The newest builds of a project, the newest first.
async fn newest(api: &Api, project: &str) -> Result<Vec<Build>, CallError> {
    #[derive(Deserialize)]
    struct Page {
        ids: Vec<String>,
    }
    let request = json!({ "projectName": project, "sortOrder": "DESCENDING" });
    let page: Page = api.call(CODEBUILD, "ListBuildsForProject", request).await?;
    api.builds(&page.ids).await
}

/// Whether a build succeeded that built the same.
fn is_like(build: &Build, request: &BuildRequest) -> bool {
    let same = |name| build.variable(name) == request.environment.get(name);
    build.build_status == "SUCCEEDED"
        && [
            variable::IMAGE_REPO_NAME,
            variable::IMAGE_PLATFORM,
            variable::IMAGE_CONTEXT,
            variable::IMAGE_DOCKERFILE,
        ]
        .into_iter()
        .all(same)
}

fn median(mut took: Vec<Duration>) -> Option<Estimate> {
    took.sort();
    let builds = took.len();
    let upper = *took.get(builds / 2)?;
    let lower = *took.get((builds - 1) / 2)?;
    Some(Estimate { took: (lower + upper) / 2, builds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_what_is_there() {
        let seconds = |all: &[u64]| median(all.iter().map(|it| Duration::from_secs(*it)).collect());
        assert_eq!(seconds(&[]), None);
        for (all, median, builds) in
            [(&[7][..], 7_000, 1), (&[10, 90], 50_000, 2), (&[90, 10, 30], 30_000, 3)]
        {
            let took = Duration::from_millis(median);
            assert_eq!(seconds(all), Some(Estimate { took, builds }));
        }
    }
}
