//! What there is to say of a run.

use archweld_model::{Commit, GitRef, ImageName, Published, Run, RunState, Trigger};

/// How much of a cause is repeated, in characters.
const CAUSE_CHARACTERS_MAX: usize = 1_000;

/// A run, as receivers are told of it.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    /// The execution's ARN.
    pub(crate) execution: String,
    /// When it came to stand as it does.
    pub(crate) time: String,
    pub(crate) run: Run,
    pub(crate) image: ImageName,
    /// The address of its git repository.
    pub(crate) source: String,
    pub(crate) git_ref: Option<GitRef>,
    pub(crate) commit: Option<Commit>,
    pub(crate) trigger: Option<Trigger>,
    pub(crate) state: RunState,
    /// How often somebody had it go on after its end: each time it may come to stand so once more.
    pub(crate) redrives: u64,
    pub(crate) error: Option<String>,
    pub(crate) cause: Option<String>,
    pub(crate) published: Option<Box<Published>>,
    /// Where the execution can be looked at.
    pub(crate) url: String,
}

impl Story {
    /// `hello (main, 0123456)`
    fn subject(&self) -> String {
        let git_ref = self.git_ref.as_ref().and_then(|it| it.branch().or(it.tag()));
        let commit = self.commit.as_ref().and_then(|commit| commit.as_str().get(..7));
        let of: Vec<&str> = git_ref.into_iter().chain(commit).collect();
        if of.is_empty() {
            self.image.to_string()
        } else {
            format!("{} ({})", self.image, of.join(", "))
        }
    }

    /// A line that reads alone.
    pub(crate) fn title(&self) -> String {
        let what = match self.state {
            RunState::Started => "is being built",
            RunState::Succeeded => "is published",
            RunState::Failed => "failed",
            RunState::Stopped => "was stopped",
        };
        format!("{} {what}", self.subject())
    }

    /// What became of it: where it is, or what went wrong.
    pub(crate) fn details(&self) -> String {
        if let Some(published) = &self.published {
            let tags: Vec<String> = published.tags.iter().map(ToString::to_string).collect();
            return format!(
                "{}@{}, tags {}",
                published.repository_uri,
                published.digest,
                tags.join(", ")
            );
        }
        let cause = self.cause.as_deref().unwrap_or_default().chars();
        let cause: String = cause.take(CAUSE_CHARACTERS_MAX).collect();
        match (&self.error, cause.is_empty()) {
            (Some(error), false) => format!("{error}: {cause}"),
            (Some(error), true) => error.clone(),
            (None, _) => cause,
        }
    }
}

/// Where an execution can be looked at: AWS's console, or the page of the local cloud.
pub(crate) fn execution_url(execution: &str, endpoint: Option<&str>) -> String {
    if let Some(endpoint) = endpoint {
        let mut parts = execution.rsplit(':');
        let name = parts.next().unwrap_or_default();
        let machine = parts.next().unwrap_or_default();
        return format!("{}/#/runs/{machine}/{name}", endpoint.trim_end_matches('/'));
    }
    let mut parts = execution.split(':').skip(1);
    let (partition, region) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    let domain = match partition {
        "aws-cn" => "console.amazonaws.cn".to_owned(),
        "aws-us-gov" => "console.amazonaws-us-gov.com".to_owned(),
        _ => format!("{region}.console.aws.amazon.com"),
    };
    format!("https://{domain}/states/home?region={region}#/v2/executions/details/{execution}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_looked_at_in_its_regions_console() {
        let arn = "arn:aws:states:eu-west-1:123456789012:execution:archweld-multi-arch-build:r1";
        assert_eq!(
            execution_url(arn, None),
            format!(
                "https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1#/v2/executions/details/{arn}"
            )
        );
        let china = execution_url(&arn.replacen("aws", "aws-cn", 1), None);
        assert!(china.starts_with("https://console.amazonaws.cn/states/home?region=eu-west-1#"));
    }
}
