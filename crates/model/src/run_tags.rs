//! The tags of one run: which it sets, and how it announces those that move.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Commit, Config, Execution, ExecutionInput, GitRef, ImageConfig, ImageTag, Marker, PlanError,
    Platform, Rank, RepositoryName, Run, Sequence, TagError, TagTemplate, TagValues, Version,
    config::TAGS_MAX, plan::choose,
};

/// How far a sequence may be ahead of the execution's start, in milliseconds: clocks differ.
const AHEAD_MAX_MS: u64 = 60 * 60 * 1_000;

/// A tag that moves from run to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingTag {
    /// The tag.
    pub tag: ImageTag,
    /// Where the run stands among those that it may belong to.
    pub rank: Rank,
}

/// The tags of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunTags {
    /// The run.
    pub run: Run,
    /// Where the run stands in the order of runs.
    pub sequence: Sequence,
    /// The tag of the run's own.
    pub own: ImageTag,
    /// The tags that never move.
    pub fixed: Vec<ImageTag>,
    /// The tags that move from run to run.
    pub moving: Vec<MovingTag>,
    /// The tag templates that this run has no values for.
    pub left_out: Vec<TagTemplate>,
}

impl RunTags {
    /// The tags that an execution with this input would set, and the repository that they are in.
    ///
    /// # Errors
    /// When the input does not fit the configuration.
    pub fn of(
        config: &Config,
        input: &ExecutionInput,
        execution: &Execution,
    ) -> Result<(RepositoryName, Self), PlanError> {
        let image = choose(config, input.image.as_ref())?;
        Ok((image.repository.clone(), Self::new(image, input, execution)?))
    }

    pub(crate) fn new(
        image: &ImageConfig,
        input: &ExecutionInput,
        execution: &Execution,
    ) -> Result<Self, PlanError> {
        let templates = input.tags.as_ref().unwrap_or(&image.tags);
        check(templates)?;
        let run = Run::of_execution(&execution.name);
        let own: ImageTag = run.as_str().parse()?;
        if own.is_reserved() {
            return Err(TagError::Reserved(own.into()).into());
        }
        let start = sequence_of(execution.start_time);
        let sequence = input.trigger.as_ref().and_then(|trigger| trigger.sequence);
        let sequence = sequence.unwrap_or(start);
        // What is ahead of the clock would be ahead of every run until then.
        if u64::from(sequence) > u64::from(start).saturating_add(AHEAD_MAX_MS) {
            return Err(PlanError::Sequence { sequence, start });
        }
        let rebuilt = input.is_forced().then_some(start);
        let version = input.git_ref.as_ref().and_then(GitRef::tag).and_then(Version::of_git_tag);
        let (mut fixed, mut moving, mut left_out) = (vec![], vec![], vec![]);
        let date = date(execution);
        let values = values(input, &run, &date);
        for template in templates {
            match template.render(&values)? {
                Some(tag) if template.is_fixed() => fixed.push(tag),
                Some(tag) => {
                    let version = version.filter(|_| template.is_of_versions());
                    moving.push(MovingTag { tag, rank: Rank { version, sequence, rebuilt } });
                }
                None => left_out.push(template.clone()),
            }
        }
        // Templates may agree, and a tag that is fixed by one of them is fixed.
        let mut known = BTreeSet::from([own.clone()]);
        fixed.retain(|tag| known.insert(tag.clone()));
        moving.retain(|moving| known.insert(moving.tag.clone()));
        for moving in &moving {
            moving.marker()?;
        }
        Ok(Self { run, sequence, own, fixed, moving, left_out })
    }

    /// The tag that the image of one platform is pushed under.
    pub(crate) fn of_platform(
        &self,
        platform: Platform,
        image: &ImageConfig,
        input: &ExecutionInput,
        execution: &Execution,
    ) -> Result<ImageTag, TagError> {
        let arch = platform.architecture().image_name();
        let date = date(execution);
        let values = TagValues { arch: Some(arch), ..values(input, &self.run, &date) };
        match image.arch_tag.render(&values)? {
            Some(tag) => Ok(tag),
            // A template without a value in this run falls back to the run's own.
            None => format!("{}-{arch}", self.run).parse(),
        }
    }
}

impl MovingTag {
    /// What the run says of the tag before it moves it.
    ///
    /// # Errors
    /// When the tag leaves no room for it.
    pub fn marker(&self) -> Result<ImageTag, TagError> {
        Marker { tag: self.tag.clone(), rank: self.rank }.to_tag()
    }
}

/// The UTC day on which an execution began.
fn date(execution: &Execution) -> String {
    execution.start_time.strftime("%Y%m%d").to_string()
}

fn values<'a>(input: &'a ExecutionInput, run: &'a Run, date: &'a str) -> TagValues<'a> {
    TagValues {
        arch: None,
        date: Some(date),
        git_ref: input.git_ref.as_ref(),
        run: Some(run.as_str()),
        sha: input.commit.as_ref().map(Commit::as_str),
    }
}

/// The sequence of a run that was given none.
fn sequence_of(time: Timestamp) -> Sequence {
    let milliseconds = u64::try_from(time.as_millisecond()).unwrap_or_default();
    Sequence::try_from(milliseconds).unwrap_or(Sequence::MAX)
}

fn check(tags: &[TagTemplate]) -> Result<(), PlanError> {
    if tags.len() > TAGS_MAX {
        let message = format!("{} tags, expected at most {TAGS_MAX}", tags.len());
        return Err(PlanError::Tags(message));
    }
    match tags.iter().find(|tag| tag.is_of_one_architecture()) {
        Some(tag) => {
            let message =
                format!("{{arch}} has no value in {tag}: an index is of every architecture");
            Err(PlanError::Tags(message))
        }
        None => Ok(()),
    }
}
