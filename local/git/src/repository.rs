//! The bare repository, and what its refs and commits are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::sync::OnceCell;

use crate::command;

/// The branch of a repository that has none yet.
const BRANCH_DEFAULT: &str = "main";
/// How much a small answer of git may be, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How much of the history is read for one push, in bytes. The list of a push with more is left
/// out, which a receiver takes for everything: a request to a function URL has 6 MB.
const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many commits a push lists, as GitHub does.
pub(crate) const COMMITS_MAX: usize = 2_048;
/// What a commit is printed as. The byte 1 stands where a new one begins.
const FORMAT: &str = "--format=%x01%H%x00%T%x00%cI%x00%an%x00%ae%x00%cn%x00%ce%x00%B%x00";

/// A branch or tag that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// Its full name, such as `refs/heads/main`.
    pub name: String,
    /// What it was; zeros where it is new.
    pub before: String,
    /// What it is now; zeros where it is gone.
    pub after: String,
}

impl RefUpdate {
    /// Whether it is new.
    pub fn is_created(&self) -> bool {
        is_nothing(&self.before)
    }

    /// Whether it is gone.
    pub fn is_deleted(&self) -> bool {
        is_nothing(&self.after)
    }
}

fn is_nothing(object: &str) -> bool {
    object.bytes().all(|byte| byte == b'0')
}

/// Why there is no repository.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name could be taken for something else.
    #[error("repository {0:?}: expected letters, digits and any of ._- , a letter or digit first")]
    Name(String),
}

/// A person as git knows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) email: String,
}

/// A commit, and which files it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) id: String,
    pub(crate) tree: String,
    pub(crate) time: String,
    pub(crate) author: Person,
    pub(crate) committer: Person,
    pub(crate) message: String,
    pub(crate) added: Vec<String>,
    pub(crate) modified: Vec<String>,
    pub(crate) removed: Vec<String>,
}

/// A bare repository, made when it is first used.
#[derive(Debug)]
pub(crate) struct Repository {
    path: PathBuf,
    made: OnceCell<()>,
}

impl Repository {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, made: OnceCell::new() }
    }

    /// Its folder, made where there is none.
    pub(crate) async fn path(&self) -> io::Result<&Path> {
        self.made.get_or_try_init(|| self.make()).await?;
        Ok(&self.path)
    }

    async fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        if self.path.join("HEAD").is_file() {
            return Ok(());
        }
        let branch = format!("--initial-branch={BRANCH_DEFAULT}");
        let made = self.git(["init", "--quiet", "--bare", &branch]).await?;
        made.map(drop).ok_or_else(|| io::Error::other("git init failed"))
    }

    async fn git<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Option<Vec<u8>>> {
        command::output(&self.path, arguments, ANSWER_BYTES_MAX).await
    }

    /// One line of git's.
    async fn line<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Option<String>> {
        let output = self.git(arguments).await?;
        Ok(output.map(|line| String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    /// The branch that a clone checks out. The first that is pushed, where there is none yet.
    pub(crate) async fn default_branch(&self, updates: &[RefUpdate]) -> io::Result<String> {
        let head = self.line(["symbolic-ref", "--quiet", "HEAD"]).await?;
        let head = head.unwrap_or_else(|| format!("refs/heads/{BRANCH_DEFAULT}"));
        let exists = self.line(["rev-parse", "--verify", "--quiet", "HEAD"]).await?.is_some();
        let pushed =
            updates.iter().find(|it| it.name.starts_with("refs/heads/") && !it.is_deleted());
        let head = match pushed {
            Some(pushed) if !exists => {
                // The name begins with refs/heads/, and git has taken it: it is no option.
                self.git(["symbolic-ref", "HEAD", &pushed.name]).await?;
                pushed.name.clone()
            }
            _ => head,
        };
        Ok(head.trim_start_matches("refs/heads/").to_owned())
    }

    /// The commit that an object is or, as a tag, stands for.
    pub(crate) async fn commit(&self, object: &str) -> io::Result<Option<Commit>> {
        let listed = self.log(&["--max-count=1", object]).await?;
        Ok(listed.and_then(|commits| commits.into_iter().next()))
    }

    /// The commits that an update brought, oldest first, the newest of too many; none where their
    /// list is too long.
    pub(crate) async fn commits(&self, update: &RefUpdate) -> io::Result<Vec<Commit>> {
        let max = format!("--max-count={COMMITS_MAX}");
        let (without, exclude);
        let mut revisions = vec!["--reverse", &max, update.after.as_str()];
        if update.is_created() {
            // What no other branch or tag has. A name of a ref has no `*`, `?` and `[`.
            exclude = format!("--exclude={}", update.name);
            revisions.extend(["--not", &exclude, "--all"]);
        } else {
            without = format!("^{}", update.before);
            revisions.push(&without);
        }
        Ok(self.log(&revisions).await?.unwrap_or_default())
    }

    /// Whether an update leaves commits behind.
    pub(crate) async fn is_forced(&self, update: &RefUpdate) -> io::Result<bool> {
        if update.is_created() || update.is_deleted() {
            return Ok(false);
        }
        let descends = ["merge-base", "--is-ancestor", &update.before, &update.after];
        Ok(self.git(descends).await?.is_none())
    }

    async fn log(&self, revisions: &[&str]) -> io::Result<Option<Vec<Commit>>> {
        let options =
            ["log", "-z", "--no-renames", "--name-status", "--diff-merges=first-parent", FORMAT];
        let arguments = options.into_iter().chain(revisions.iter().copied());
        let output = command::output(&self.path, arguments, HISTORY_BYTES_MAX).await?;
        Ok(output.map(|output| commits(&output)))
    }
}

/// Reads what [`FORMAT`] and `--name-status -z` print.
fn commits(output: &[u8]) -> Vec<Commit> {
    let mut parts = output.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut commits: Vec<Commit> = Vec::new();
    while let Some(part) = parts.next() {
        if let Some(id) = part.strip_prefix('\u{1}') {
            let mut next = || parts.next().unwrap_or_default().into_owned();
            commits.push(Commit {
                id: id.to_owned(),
                tree: next(),
                time: next(),
                author: Person { name: next(), email: next() },
                committer: Person { name: next(), email: next() },
                message: next().trim_end().to_owned(),
                added: Vec::new(),
                modified: Vec::new(),
                removed: Vec::new(),
            });
            continue;
        }
        let status = part.trim_start_matches('\n').bytes().next();
        if let (Some(status), Some(commit)) = (status, commits.last_mut()) {
            let files = match status {
                b'A' => &mut commit.added,
                b'D' => &mut commit.removed,
                _ => &mut commit.modified,
            };
            files.extend(parts.next().map(|path| path.into_owned()));
        }
    }
    commits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_commits_with_any_message_and_files() {
        let output = b"\x01aa\0t1\x002026-11-23T10:00:00Z\0A\0a@b\0C\0c@d\0first\n\nA body\n\0\0\nA\0a\0M\0b \"c\0D\0\x01d\0\x01bb\0t2\x002026\0A\0\0C\0\0empty\n\0\0\x01cc\0t3\x002026\0\0\0\0\0\0\0\nT\0x\0";
        let commits = commits(output);
        let ids: Vec<_> = commits.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["aa", "bb", "cc"]);
        assert_eq!(commits[0].message, "first\n\nA body");
        assert_eq!(commits[0].committer.email, "c@d");
        let files = (&commits[0].added, &commits[0].modified, &commits[0].removed);
        assert_eq!(
            files,
            (&vec!["a".to_owned()], &vec!["b \"c".to_owned()], &vec!["\u{1}d".to_owned()])
        );
        assert!(commits[1].added.is_empty());
        assert_eq!(commits[2].modified, ["x"]);
    }
}
