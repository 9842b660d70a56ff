//! What a local run builds: a folder as it is, or a git repository at a ref.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use archweld_model::{Commit, Digest, GitRef, SourcePath, SourceTree};

use crate::error::Error;

/// What a person should know of a folder that is no commit.
const NOTE_UNCOMMITTED: &str = "the folder has uncommitted changes: everything is built, and tags \
                                that name a commit are left out";

/// What to build, and what is known of its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it is.
    pub(crate) place: Place,
    /// The branch or tag, where it is known.
    pub(crate) git_ref: Option<GitRef>,
    /// The commit, where the source is exactly that.
    pub(crate) commit: Option<Commit>,
    /// What a person should know of the version.
    pub(crate) note: Option<&'static str>,
    /// Where the commit's objects are, where they are on this machine.
    objects: Option<Objects>,
}

/// Where git can look into a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Objects {
    folder: String,
    /// What precedes a path of the source in the repository: empty, or `<folder>/`.
    prefix: String,
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder, taken as it is.
    Folder(PathBuf),
    /// A git repository: an address, or a local folder of which a ref is wanted.
    Repository(String),
}

impl Source {
    /// Finds out what `text` is and which version it has.
    ///
    /// # Errors
    /// When there is no such folder or repository, or no such ref in it.
    pub(crate) fn find(text: &str, git_ref: Option<&GitRef>) -> Result<Self, Error> {
        let remote = text.contains("://") || text.starts_with("git@");
        match git_ref {
            None if !remote => Self::of_folder(Path::new(text)),
            _ => Self::of_repository(text, remote, git_ref),
        }
    }

    /// Stands for the content of these paths of the source, where the commit is on this machine.
    pub(crate) fn tree(&self, paths: &[SourcePath]) -> Option<SourceTree> {
        let Objects { folder, prefix } = self.objects.as_ref()?;
        let commit = self.commit.as_ref()?;
        let object = |path: &SourcePath| {
            // The source as a whole is the prefix itself.
            let path = Some(path.as_str()).filter(|path| *path != ".").unwrap_or_default();
            let name = format!("{commit}:{}", format!("{prefix}{path}").trim_end_matches('/'));
            git(["-C", folder, "rev-parse", "--verify", "--quiet", &name])
        };
        let objects: Vec<String> =
            paths.iter().map(|path| object(path).unwrap_or_default()).collect();
        Digest::of(objects.join("\n").as_bytes()).to_string().strip_prefix("sha256:")?.parse().ok()
    }

    fn of_folder(folder: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Source { place: folder.display().to_string(), reason };
        let folder = folder.canonicalize().map_err(|error| wrong(error.to_string()))?;
        if !folder.is_dir() {
            return Err(wrong("not a folder".to_owned()));
        }
        let folder_text = folder.to_string_lossy().into_owned();
        let git = |arguments: &[&str]| {
            let place = ["-C", &folder_text];
            git(place.iter().chain(arguments).copied())
        };
        // A folder that the surrounding repository ignores altogether is not one of git's.
        let is_tracked = git(&["ls-files", "--", "."]).is_some_and(|list| !list.is_empty());
        if !is_tracked {
            let place = Place::Folder(folder);
            return Ok(Self { place, git_ref: None, commit: None, note: None, objects: None });
        }
        let head = git(&["rev-parse", "--verify", "HEAD"]).and_then(|head| head.parse().ok());
        let git_ref =
            git(&["symbolic-ref", "--quiet", "HEAD"]).and_then(|git_ref| git_ref.parse().ok());
        let clean = git(&["status", "--porcelain", "--", "."]).is_some_and(|list| list.is_empty());
        let (commit, note) = match head {
            None => (None, None),
            Some(commit) if clean => (Some(commit), None),
            Some(_) => (None, Some(NOTE_UNCOMMITTED)),
        };
        let prefix = git(&["rev-parse", "--show-prefix"]);
        let objects = prefix.map(|prefix| Objects { folder: folder_text, prefix });
        Ok(Self { place: Place::Folder(folder), git_ref, commit, note, objects })
    }

    fn of_repository(text: &str, remote: bool, git_ref: Option<&GitRef>) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Source { place: text.to_owned(), reason };
        let address = if remote {
            text.to_owned()
        } else {
            let folder =
                Path::new(text).canonicalize().map_err(|error| wrong(error.to_string()))?;
            folder.to_string_lossy().into_owned()
        };
        // A short name is a branch first and a tag second, as git itself has it for a clone.
        let candidates: Vec<String> = match git_ref {
            None => vec!["HEAD".to_owned()],
            Some(git_ref) if git_ref.as_str().starts_with("refs/") => vec![git_ref.to_string()],
            Some(git_ref) => {
                vec![format!("refs/heads/{git_ref}"), format!("refs/tags/{git_ref}")]
            }
        };
        let list = git(["ls-remote", "--quiet", "--", &address])
            .ok_or_else(|| wrong("git cannot read it".to_owned()))?;
        let (found, commit) = candidates
            .iter()
            .find_map(|candidate| Some((candidate, commit_of(&list, candidate)?)))
            .ok_or_else(|| {
                wrong(format!("no ref {}", git_ref.map_or("HEAD", |git_ref| git_ref.as_str())))
            })?;
        let git_ref = git_ref.and_then(|_| found.parse().ok());
        let objects = (!remote).then(|| Objects { folder: address.clone(), prefix: String::new() });
        let place = Place::Repository(address);
        Ok(Self { place, git_ref, commit: Some(commit), note: None, objects })
    }
}

/// The commit of a ref in the list of `git ls-remote`; an annotated tag's line ends with `^{}`.
fn commit_of(list: &str, git_ref: &str) -> Option<Commit> {
    let commit = |name: &str| {
        let line = list.lines().find(|line| line.split('\t').nth(1) == Some(name))?;
        line.split('\t').next()?.parse().ok()
    };
    commit(&format!("{git_ref}^{{}}")).or_else(|| commit(git_ref))
}

/// What git prints, where it succeeds.
fn git<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Repository(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(folder: &Path, arguments: &[&str]) {
        let place = folder.to_str().unwrap();
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-C", place];
        git(identity.iter().chain(arguments).copied()).unwrap();
    }

    fn commit(folder: &Path, file: &str, content: &str) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        run(folder, &["add", file]);
        run(folder, &["commit", "--quiet", "--message=a commit"]);
    }

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &["init", "--quiet", "--initial-branch=main"]);
        commit(folder.path(), "file", "1");
        run(folder.path(), &["tag", "--annotate", "--message=one", "v1"]);
        folder
    }

    fn tree(place: &Path, git_ref: Option<&str>) -> Option<SourceTree> {
        let paths = ["api", "Dockerfile"].map(|path| path.to_owned().try_into().unwrap());
        let git_ref = git_ref.map(|git_ref| git_ref.parse().unwrap());
        Source::find(place.to_str().unwrap(), git_ref.as_ref()).unwrap().tree(&paths)
    }

    #[test]
    fn a_clean_folder_has_a_commit_and_a_changed_one_has_none() {
        let folder = repository();
        let text = folder.path().to_str().unwrap();
        let clean = Source::find(text, None).unwrap();
        assert!(clean.commit.is_some());
        assert_eq!(clean.git_ref.unwrap().branch(), Some("main"));

        fs::write(folder.path().join("file"), "2").unwrap();
        let changed = Source::find(text, None).unwrap();
        assert_eq!(changed.commit, None);
        assert!(changed.note.unwrap().contains("uncommitted"));
    }

    #[test]
    fn a_ref_of_a_folder_is_its_commit() {
        let folder = repository();
        let text = folder.path().to_str().unwrap();
        let head = Source::find(text, None).unwrap().commit;
        for (short, full) in [("main", "refs/heads/main"), ("v1", "refs/tags/v1")] {
            let source = Source::find(text, Some(&short.parse().unwrap())).unwrap();
            assert_eq!(source.commit, head);
            assert_eq!(source.git_ref.unwrap().as_str(), full);
        }
        let missing = Source::find(text, Some(&"absent".parse().unwrap())).unwrap_err();
        assert!(missing.to_string().ends_with("no ref absent"), "{missing}");
    }

    #[test]
    fn a_tree_changes_with_what_it_is_of_and_with_nothing_else() {
        let folder = repository();
        let place = folder.path();
        commit(place, "api/main.c", "1");
        let first = tree(place, None).unwrap();
        assert_eq!(tree(place, Some("main")), Some(first.clone()));
        commit(place, "README.md", "1");
        assert_eq!(tree(place, None), Some(first.clone()));
        commit(place, "Dockerfile", "1");
        let second = tree(place, None).unwrap();
        assert_ne!(second, first);
        commit(place, "api/main.c", "2");
        assert_ne!(tree(place, None), Some(second));
        assert_ne!(tree(place, Some("v1")), Some(first));

        fs::write(place.join("README.md"), "2").unwrap();
        assert_eq!(tree(place, None), None);
    }

    #[test]
    fn a_folder_within_a_repository_has_the_same_tree_as_the_repository_of_it_alone() {
        let (alone, within) = (repository(), repository());
        commit(alone.path(), "api/main.c", "1");
        commit(within.path(), "services/api/main.c", "1");
        let first = tree(&within.path().join("services"), None);
        assert!(first.is_some());
        assert_eq!(first, tree(alone.path(), None));
        let whole = |place: &Path| {
            let source = Source::find(place.to_str().unwrap(), None).unwrap();
            source.tree(&[".".to_owned().try_into().unwrap()])
        };
        let before = whole(&within.path().join("services"));
        commit(within.path(), "README.md", "1");
        assert_eq!(whole(&within.path().join("services")), before);
        assert_ne!(whole(within.path()), before);
    }

    #[test]
    fn a_folder_that_git_ignores_has_no_commit() {
        let folder = repository();
        commit(folder.path(), ".gitignore", "ignored/");
        let ignored = folder.path().join("ignored");
        fs::create_dir(&ignored).unwrap();
        fs::write(ignored.join("file"), "1").unwrap();
        let source = Source::find(ignored.to_str().unwrap(), None).unwrap();
        assert_eq!((source.commit, source.git_ref), (None, None));
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        assert!(Source::find("/nonexistent", None).is_err());
    }
}
