//! GitHub's push webhooks, and those of Gitea and Forgejo, which are like them
//! (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>).

use std::fmt;

use archweld_model::Sequence;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};

use super::{Message, Received, Refusal, believable, malformed};
use crate::{
    address::Address,
    push::{Changed, Delivery, ListedCommit, Push, object, sequence, short},
    signature::Provider,
};

/// How many commits GitHub lists.
const COMMITS_MAX: usize = 2_048;

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "ref")]
    git_ref: String,
    before: String,
    after: String,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    forced: bool,
    head_commit: Option<ListedCommit>,
    commits: Option<Vec<ListedCommit>>,
    /// Gitea lists the newest few commits, and says how many there are.
    total_commits: Option<u64>,
    repository: Repository,
    pusher: Option<Person>,
}

#[derive(Deserialize)]
struct Repository {
    clone_url: String,
    ssh_url: Option<String>,
    pushed_at: Option<Moment>,
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct Person {
    name: Option<String>,
    login: Option<String>,
}

/// Seconds since 1970 in a push's payload, RFC 3339 everywhere else.
struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Moment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970, or a time such as 2026-11-23T10:00:00Z")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Moment, E> {
                let unexpected = de::Unexpected::Unsigned(seconds);
                i64::try_from(seconds)
                    .ok()
                    .and_then(|seconds| Timestamp::from_second(seconds).ok())
                    .map(Moment)
                    .ok_or_else(|| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
                let time = text.parse().map(Moment);
                time.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

pub(super) fn read(received: &Received, latest: Timestamp) -> Result<Message, Refusal> {
    let event = match received.provider() {
        Provider::Gitea => received.header("x-gitea-event").or(received.header("x-forgejo-event")),
        _ => received.header("x-github-event"),
    };
    let event = event.unwrap_or_default();
    if event != "push" {
        return Ok(Message::Ignored(format!("event {:?}", short(event))));
    }
    let payload: Payload = received.json()?;
    let addresses = [Some(&payload.repository.clone_url), payload.repository.ssh_url.as_ref()];
    let addresses: Vec<Address> =
        addresses.into_iter().flatten().filter_map(|url| Address::parse(url)).collect();
    if addresses.is_empty() {
        return Err(malformed("repository.clone_url", "expected the address of a repository"));
    }
    let actor = payload.pusher.and_then(|person| person.name.or(person.login));
    let before = object(&payload.before).map_err(|error| malformed("before", error))?;
    let after = object(&payload.after).map_err(|error| malformed("after", error))?;
    let mut delivery = Delivery {
        id: received.body_id(),
        addresses,
        actor: actor.as_deref().map(short),
        pushes: vec![],
        ignored: vec![],
    };
    let Some(after) = after.filter(|_| !payload.deleted) else {
        delivery.ignored.push(format!("deletion of {:?}", short(&payload.git_ref)));
        return Ok(Message::Push(delivery));
    };
    let head = payload.head_commit;
    // `after` is the tag itself where a tag is annotated.
    let commit = match head.as_ref().and_then(|head| head.id.as_deref()) {
        None => after,
        Some(id) => object(id)
            .and_then(|id| id.ok_or_else(|| "expected a commit".to_owned()))
            .map_err(|error| malformed("head_commit.id", error))?,
    };
    let committed = believable(head.as_ref().and_then(ListedCommit::time), latest);
    // Gitea tells when the repository last changed before this push, and when the commit was first
    // written, however late it is pushed: each push is at least as late as the one before.
    let updated = payload.repository.updated_at.as_deref().and_then(|time| time.parse().ok());
    let updated = believable(updated, latest);
    let is_known = before.is_some()
        && !payload.created
        && !payload.forced
        && payload.git_ref.starts_with("refs/heads/")
        // Gitea before 1.17.4 lists some commits, and does not say of how many.
        && (received.provider() != Provider::Gitea || payload.total_commits.is_some());
    let changed = match payload.commits {
        Some(commits) if is_known => Changed::by(commits, COMMITS_MAX, payload.total_commits),
        _ => Changed::Everything,
    };
    delivery.pushes.push(Push {
        git_ref: payload.git_ref,
        before,
        commit,
        sequence: match payload.repository.pushed_at {
            Some(Moment(pushed)) => pushed_at(pushed, committed),
            None => committed.max(updated).and_then(sequence),
        },
        message: head.and_then(|head| head.message),
        changed,
    });
    Ok(Message::Push(delivery))
}

/// When a push was made: its second, and within that, the younger commit is the later push.
///
/// Two pushes within a second whose commits are of one second, too, are not told apart.
fn pushed_at(pushed: Timestamp, committed: Option<Timestamp>) -> Option<Sequence> {
    const LAST: i64 = 999;
    let whole = Timestamp::from_second(pushed.as_second()).ok()?;
    if whole != pushed {
        return sequence(pushed);
    }
    let age = committed.map_or(LAST, |committed| pushed.as_second() - committed.as_second());
    let within = LAST - age.clamp(0, LAST);
    sequence(Timestamp::from_millisecond(whole.as_millisecond() + within).ok()?)
}
