//! GitLab's push webhooks
//! (<https://docs.gitlab.com/user/project/integrations/webhook_events/>).

use jiff::Timestamp;
use serde::Deserialize;

use super::{Message, Received, Refusal, believable, malformed};
use crate::{
    address::Address,
    push::{Changed, Delivery, ListedCommit, Push, object, sequence, short},
};

/// How many commits GitLab lists.
const COMMITS_MAX: usize = 20;

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "ref")]
    git_ref: String,
    before: String,
    after: String,
    /// The commit, also where `after` is an annotated tag; none in a deletion.
    checkout_sha: Option<String>,
    user_username: Option<String>,
    user_name: Option<String>,
    project: Project,
    commits: Option<Vec<ListedCommit>>,
    total_commits_count: Option<u64>,
}

#[derive(Deserialize)]
struct Project {
    git_http_url: String,
    git_ssh_url: Option<String>,
    web_url: Option<String>,
}

pub(super) fn read(received: &Received, latest: Timestamp) -> Result<Message, Refusal> {
    let event = received.header("x-gitlab-event").unwrap_or_default();
    if !["Push Hook", "Tag Push Hook"].contains(&event) {
        return Ok(Message::Ignored(format!("event {:?}", short(event))));
    }
    let payload: Payload = received.json()?;
    let Project { git_http_url, git_ssh_url, web_url } = payload.project;
    let addresses: Vec<Address> = [Some(git_http_url), git_ssh_url, web_url]
        .into_iter()
        .flatten()
        .filter_map(|url| Address::parse(&url))
        .collect();
    if addresses.is_empty() {
        return Err(malformed("project.git_http_url", "expected the address of a repository"));
    }
    let actor = payload.user_username.or(payload.user_name);
    let mut delivery = Delivery {
        // Of these, only the first is signed, and only where GitLab signs.
        id: received.id(&["webhook-id", "idempotency-key", "x-gitlab-event-uuid"]),
        addresses,
        actor: actor.as_deref().map(short),
        pushes: vec![],
        ignored: vec![],
    };
    let before = object(&payload.before).map_err(|error| malformed("before", error))?;
    let after = object(&payload.after).map_err(|error| malformed("after", error))?;
    let Some(after) = after else {
        delivery.ignored.push(format!("deletion of {:?}", short(&payload.git_ref)));
        return Ok(Message::Push(delivery));
    };
    let commit = match payload.checkout_sha {
        None => after,
        Some(id) => object(&id)
            .and_then(|id| id.ok_or_else(|| "expected a commit".to_owned()))
            .map_err(|error| malformed("checkout_sha", error))?,
    };
    let commits = payload.commits.unwrap_or_default();
    let head = commits.iter().find(|listed| listed.id.as_deref() == Some(commit.as_str()));
    // GitLab says when a webhook is sent, and never when a push was made.
    let committed = believable(head.and_then(ListedCommit::time), latest);
    let message = head.and_then(|head| head.message.clone());
    // A renamed file is among those that were added, and the path that it had is in no list.
    let may_rename = commits.iter().any(ListedCommit::adds);
    let is_known = before.is_some() && !may_rename && payload.git_ref.starts_with("refs/heads/");
    let changed = if is_known {
        Changed::by(commits, COMMITS_MAX, payload.total_commits_count)
    } else {
        Changed::Everything
    };
    delivery.pushes.push(Push {
        git_ref: payload.git_ref,
        before,
        commit,
        sequence: committed.and_then(sequence),
        message,
        changed,
    });
    Ok(Message::Push(delivery))
}
