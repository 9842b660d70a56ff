//! `archweld doctor`: what keeps a deployment from building, each with its mend.
//!
//! It looks and changes nothing. What it may not look at is told as unknown, and is no fault of the
//! deployment.

mod local;
mod stack;

use std::fs;

use archweld_model::Config;
use console::{Color, style};
use serde_json::json;

use crate::{arguments::Doctor, error::Error, progress::plain};

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Fine,
    /// It works, and could be better.
    Advice,
    /// It keeps runs from publishing.
    Problem,
    /// It could not be told.
    Unknown,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    check: &'static str,
    found: String,
    mend: Option<String>,
}

impl Finding {
    fn fine(check: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fine, check, found: found.into(), mend: None }
    }

    fn advice(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let (found, mend) = (found.into(), Some(mend.into()));
        Self { verdict: Verdict::Advice, check, found, mend }
    }

    fn problem(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let (found, mend) = (found.into(), Some(mend.into()));
        Self { verdict: Verdict::Problem, check, found, mend }
    }

    /// A check that could not be made, by a call that failed.
    fn unknown(check: &'static str, why: impl ToString) -> Self {
        Self { verdict: Verdict::Unknown, check, found: why.to_string(), mend: None }
    }
}

/// Where findings go, as they are found.
struct Findings {
    json: bool,
    problems: usize,
}

impl Findings {
    fn add(&mut self, finding: Finding) -> Result<(), Error> {
        let Finding { verdict, check, found, mend } = finding;
        let found = plain(&found.replace('\n', " "));
        let (word, colour) = match verdict {
            Verdict::Fine => ("ok", Color::Green),
            Verdict::Advice => ("advice", Color::Yellow),
            Verdict::Problem => ("problem", Color::Red),
            Verdict::Unknown => ("unknown", Color::Yellow),
        };
        self.problems += usize::from(verdict == Verdict::Problem);
        if self.json {
            let finding = json!({"verdict": word, "check": check, "found": found, "mend": mend});
            return crate::print(&format!("{finding}\n"));
        }
        let mut text = format!("{} {check:<15} {found}\n", style(format!("{word:<8}")).fg(colour));
        if let Some(mend) = mend {
            text += &format!("{:24} {} {mend}\n", "", style("mend:").bold());
        }
        crate::print(&text)
    }
}

/// Examines a stack, or this machine.
///
/// # Errors
/// When there is something to mend.
pub(crate) async fn doctor(arguments: Doctor) -> Result<(), Error> {
    let mut findings = Findings { json: arguments.json, problems: 0 };
    match &arguments.at.stack {
        Some(stack) => {
            let config = fs::read_to_string(&arguments.project.config).ok();
            stack::examine(&arguments, stack, config.as_deref(), &mut findings).await?;
        }
        None => local::examine(&arguments, &mut findings).await?,
    }
    if findings.problems > 0 { Err(Error::Unhealthy(findings.problems)) } else { Ok(()) }
}

/// The moving tags that images push, as patterns: an asterisk for what a run fills in.
fn moving_tags(config: &Config, repository: &str) -> Vec<String> {
    let images = config.images().iter().filter(|image| image.repository.as_str() == repository);
    let tags = images.flat_map(|image| &image.tags).filter(|tag| !tag.is_fixed());
    tags.map(|tag| {
        let text = tag.to_string();
        let text = text.split('@').next().unwrap_or_default();
        let parts = text.split('{').enumerate().map(|(index, part)| match index {
            0 => part.to_owned(),
            _ => format!("*{}", part.split_once('}').map_or("", |(_, rest)| rest)),
        });
        parts.collect()
    })
    .collect()
}

/// Whether every text of one pattern with asterisks is one of another's.
fn covers(filter: &str, pattern: &str) -> bool {
    match (filter.split_at_checked(1), pattern.split_at_checked(1)) {
        (None, None) => true,
        (Some(("*", rest)), _) => {
            covers(rest, pattern)
                || pattern.split_at_checked(1).is_some_and(|(_, shorter)| covers(filter, shorter))
        }
        (Some((one, filter)), Some((other, pattern))) => one == other && covers(filter, pattern),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_tags_are_patterns_of_what_a_run_fills_in() {
        let config = Config::parse(
            r#"[[image]]
            name = "hello"
            platforms = ["linux/amd64"]
            tags = ["{sha7}", "latest@main", "{branch}", "v{semver.major}.{semver.minor}", "{tag}"]
            "#,
        )
        .unwrap();
        assert_eq!(moving_tags(&config, "hello"), ["latest", "*", "v*.*"]);
        assert!(moving_tags(&config, "other").is_empty());
    }

    #[test]
    fn a_filter_covers_what_it_matches_in_every_case() {
        for (filter, pattern) in
            [("latest", "latest"), ("*", "*"), ("*", "v*.*"), ("v*", "v*.*"), ("*-*", "a*-b")]
        {
            assert!(covers(filter, pattern), "{filter} {pattern}");
        }
        for (filter, pattern) in [("latest", "*"), ("v*", "*"), ("latest", "late"), ("a*b", "a*")] {
            assert!(!covers(filter, pattern), "{filter} {pattern}");
        }
    }
}
