//! Bitbucket Cloud's push webhooks
//! (<https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/#Push>).

use jiff::Timestamp;
use serde::Deserialize;

use super::{Message, Received, Refusal, believable, malformed};
use crate::{
    address::Address,
    push::{Changed, Delivery, Push, object, sequence, short},
};

#[derive(Deserialize)]
struct Payload {
    push: Changes,
    repository: Repository,
    actor: Option<Actor>,
}

#[derive(Deserialize)]
struct Changes {
    changes: Vec<Change>,
}

/// A branch or tag that was made, moved or deleted.
#[derive(Deserialize)]
struct Change {
    old: Option<State>,
    new: Option<State>,
}

#[derive(Deserialize)]
struct State {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Target,
    /// When an annotated tag was made.
    date: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    hash: String,
    message: Option<String>,
    date: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
    links: Option<Links>,
}

#[derive(Deserialize)]
struct Links {
    html: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

#[derive(Deserialize)]
struct Actor {
    nickname: Option<String>,
    display_name: Option<String>,
}

pub(super) fn read(received: &Received, latest: Timestamp) -> Result<Message, Refusal> {
    let event = received.header("x-event-key").unwrap_or_default();
    if event != "repo:push" {
        return Ok(Message::Ignored(format!("event {:?}", short(event))));
    }
    let payload: Payload = received.json()?;
    let named = format!("https://bitbucket.org/{}", payload.repository.full_name);
    let shown = payload.repository.links.and_then(|links| links.html).map(|link| link.href);
    let addresses: Vec<Address> =
        [Some(named), shown].into_iter().flatten().filter_map(|url| Address::parse(&url)).collect();
    if addresses.is_empty() {
        return Err(malformed("repository.full_name", "expected the name of a repository"));
    }
    let actor = payload.actor.and_then(|actor| actor.nickname.or(actor.display_name));
    let mut delivery = Delivery {
        id: received.id(&["x-request-uuid"]),
        addresses,
        actor: actor.as_deref().map(short),
        pushes: vec![],
        ignored: vec![],
    };
    for (index, change) in payload.push.changes.into_iter().enumerate() {
        let hash = |name: &str, state: &State| {
            let field = format!("push.changes[{index}].{name}.target.hash");
            object(&state.target.hash)
                .and_then(|object| object.ok_or_else(|| "expected a commit".to_owned()))
                .map_err(|error| malformed(&field, error))
        };
        let Some(new) = change.new else {
            let name = change.old.map(|old| short(&old.name)).unwrap_or_default();
            delivery.ignored.push(format!("deletion of {name:?}"));
            continue;
        };
        let folder = match new.kind.as_str() {
            "branch" => "refs/heads",
            "tag" => "refs/tags",
            other => {
                delivery.ignored.push(format!("{:?} {:?}", short(other), short(&new.name)));
                continue;
            }
        };
        let commit = hash("new", &new)?;
        let before = change.old.map(|old| hash("old", &old)).transpose()?;
        // Bitbucket tells the times of commits and of annotated tags, and never that of a push.
        let date = new.date.as_deref().or(new.target.date.as_deref());
        let time = believable(date.and_then(|date| date.parse().ok()), latest);
        delivery.pushes.push(Push {
            git_ref: format!("{folder}/{}", new.name),
            before,
            commit,
            sequence: time.and_then(sequence),
            message: new.target.message,
            // It lists no files.
            changed: Changed::Everything,
        });
    }
    Ok(Message::Push(delivery))
}
