//! A push as GitHub tells it.
//!
//! <https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    RefUpdate,
    repository::{Commit, Person},
};

/// Who owns the repository: nobody has a name here.
pub(crate) const OWNER: &str = "local";
/// How many files of one commit are listed, as GitHub has it.
pub(crate) const FILES_MAX: usize = 3_000;

/// Everything that a payload is made of.
pub(crate) struct Push<'a> {
    /// The name of the repository.
    pub(crate) name: &'a str,
    /// The address that it is cloned from.
    pub(crate) url: &'a str,
    pub(crate) default_branch: &'a str,
    pub(crate) pushed: Timestamp,
    pub(crate) update: &'a RefUpdate,
    pub(crate) forced: bool,
    pub(crate) head: Option<&'a Commit>,
    pub(crate) commits: &'a [Commit],
}

impl Push<'_> {
    pub(crate) fn payload(&self) -> Value {
        let RefUpdate { name, before, after } = self.update;
        let unknown = Person { name: OWNER.to_owned(), email: format!("{OWNER}@localhost") };
        let pusher = self.head.map_or(&unknown, |head| &head.committer);
        let html = self.url.trim_end_matches(".git");
        json!({
            "ref": name,
            "before": before,
            "after": after,
            "repository": {
                "id": 1,
                "name": self.name,
                "full_name": format!("{OWNER}/{}", self.name),
                "private": true,
                "owner": {"name": OWNER, "login": OWNER, "id": 1, "type": "User"},
                "html_url": html,
                "url": html,
                "git_url": self.url,
                "clone_url": self.url,
                "fork": false,
                "pushed_at": self.pushed.as_second(),
                "default_branch": self.default_branch,
                "master_branch": self.default_branch,
            },
            "pusher": {"name": pusher.name, "email": pusher.email},
            "sender": {"login": pusher.name, "id": 1, "type": "User"},
            "created": self.update.is_created(),
            "deleted": self.update.is_deleted(),
            "forced": self.forced,
            "base_ref": null,
            "compare": format!("{html}/compare/{before}...{after}"),
            "commits": self.commits.iter().map(|it| self.commit(it)).collect::<Vec<_>>(),
            "head_commit": self.head.map(|it| self.commit(it)),
        })
    }

    fn commit(&self, commit: &Commit) -> Value {
        let mut room = FILES_MAX;
        let mut listed = |files: &[String]| {
            let files = &files[..files.len().min(room)];
            room -= files.len();
            json!(files)
        };
        let html = self.url.trim_end_matches(".git");
        json!({
            "id": commit.id,
            "tree_id": commit.tree,
            "distinct": true,
            "message": commit.message,
            "timestamp": commit.time,
            "url": format!("{html}/commit/{}", commit.id),
            "author": person(&commit.author),
            "committer": person(&commit.committer),
            "added": listed(&commit.added),
            "modified": listed(&commit.modified),
            "removed": listed(&commit.removed),
        })
    }
}

/// The part of the address before the `@` stands for the account that a provider would know.
fn person(person: &Person) -> Value {
    let username = person.email.split('@').next();
    json!({"name": person.name, "email": person.email, "username": username})
}
