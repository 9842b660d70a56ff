//! A push to a git repository, whoever told of it.

use archweld_model::{Commit, Sequence};
use jiff::Timestamp;
use serde::Deserialize;

use crate::address::Address;

/// How long a text of a delivery's may be that is passed on, in characters.
const TEXT_CHARACTERS_MAX: usize = 128;

/// What a delivery says: pushes to one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The identity that it has however often it is delivered.
    pub(crate) id: String,
    /// The addresses of the repository.
    pub(crate) addresses: Vec<Address>,
    /// Who pushed.
    pub(crate) actor: Option<String>,
    /// A push for each branch and tag.
    pub(crate) pushes: Vec<Push>,
    /// What it says beside, and is not acted on.
    pub(crate) ignored: Vec<String>,
}

/// A branch or tag that came to be another commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Push {
    /// The branch or tag in full, as it was sent: perhaps nothing that can be built.
    pub(crate) git_ref: String,
    /// What it was before, where it was.
    pub(crate) before: Option<Commit>,
    /// What it is now.
    pub(crate) commit: Commit,
    /// When it was pushed, as nearly as the provider says.
    pub(crate) sequence: Option<Sequence>,
    /// The message of the commit.
    pub(crate) message: Option<String>,
    /// What changed.
    pub(crate) changed: Changed,
}

/// The files that a push changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Perhaps all of them: nobody says, or not to the end.
    Everything,
    /// These, and no others.
    Files(Vec<String>),
}

/// A commit of a push, as GitHub, GitLab and Gitea list them.
#[derive(Debug, Deserialize)]
pub(crate) struct ListedCommit {
    pub(crate) id: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) timestamp: Option<String>,
    added: Option<Vec<String>>,
    modified: Option<Vec<String>>,
    removed: Option<Vec<String>>,
}

impl ListedCommit {
    /// When it was made; what it says of itself, and may be anything.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.timestamp.as_deref()?.parse().ok()
    }

    /// Whether it has files that were not there before.
    pub(crate) fn adds(&self) -> bool {
        self.added.as_ref().is_some_and(|added| !added.is_empty())
    }
}

/// How many files of one commit GitHub lists
/// (<https://docs.github.com/en/rest/commits/commits#get-a-commit>).
const FILES_MAX: usize = 3_000;

impl Changed {
    /// What the commits of a push changed; everything, where the list may not be all of them.
    pub(crate) fn by(commits: Vec<ListedCommit>, commits_max: usize, total: Option<u64>) -> Self {
        let is_cut = commits.is_empty()
            || commits.len() >= commits_max
            || total.is_some_and(|total| total > commits.len() as u64);
        if is_cut {
            return Self::Everything;
        }
        let mut files = Vec::new();
        for commit in commits {
            let (Some(added), Some(modified), Some(removed)) =
                (commit.added, commit.modified, commit.removed)
            else {
                return Self::Everything;
            };
            if added.len() + modified.len() + removed.len() >= FILES_MAX {
                return Self::Everything;
            }
            files.extend(added.into_iter().chain(modified).chain(removed));
        }
        Self::Files(files)
    }
}

/// A git object's name; `None` for the zeros that stand for nothing.
///
/// # Errors
/// When it is no name of a whole object.
pub(crate) fn object(text: &str) -> Result<Option<Commit>, String> {
    if matches!(text.len(), 40 | 64) && text.bytes().all(|digit| digit == b'0') {
        return Ok(None);
    }
    let commit: Commit = text.parse().map_err(|_| unreadable_object(text))?;
    if commit.is_whole() { Ok(Some(commit)) } else { Err(unreadable_object(text)) }
}

fn unreadable_object(text: &str) -> String {
    format!("{:?} is no commit, expected 40 or 64 hexadecimal digits", short(text))
}

/// The sequence of a time, in milliseconds since 1970.
pub(crate) fn sequence(time: Timestamp) -> Option<Sequence> {
    u64::try_from(time.as_millisecond()).ok()?.try_into().ok()
}

/// A text that may be passed on, however long it was.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARACTERS_MAX).collect()
}
