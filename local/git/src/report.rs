//! What the pusher reads of a webhook's answer.

use serde::Deserialize;
use serde_json::Value;

use crate::Answer;

/// How much of an answer that says nothing known is shown, in characters.
const SHOWN_MAX: usize = 300;

/// The answer of `trigger-run`, as far as it is told.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    started: Vec<Entry>,
    skipped: Vec<Entry>,
    superseded: Vec<Entry>,
    failed: Vec<Entry>,
    ignored: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    image: String,
    execution: Option<String>,
    reason: Option<String>,
    note: Option<String>,
    by: Option<String>,
}

/// The lines of one branch or tag.
pub(crate) fn lines(name: &str, answer: &Answer) -> Vec<String> {
    let name = short(name);
    let Answer { status, body } = answer;
    let told = serde_json::from_slice::<Value>(body)
        .ok()
        .filter(Value::is_object)
        .and_then(|body| serde_json::from_value::<Told>(body).ok());
    let mut lines = Vec::new();
    match told {
        Some(told) => {
            lines.extend(told.lines());
            match &told.error {
                Some(error) => lines.push(format!("the webhook was answered {status}: {error}")),
                None if !(200..300).contains(status) => {
                    lines.push(format!("the webhook was answered {status}"));
                }
                None if lines.is_empty() => lines.push("nothing to start".to_owned()),
                None => {}
            }
        }
        None => {
            let text = String::from_utf8_lossy(body);
            let text: String = text.chars().take(SHOWN_MAX).collect();
            lines.push(format!("the webhook was answered {status}: {text}"));
        }
    }
    lines.iter().map(|line| harmless(&format!("archweld: {name}: {line}"))).collect()
}

impl Told {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Entry { image, execution, note, .. } in &self.started {
            let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            lines.push(format!("{image} started: {}{note}", execution_name(execution)));
        }
        for Entry { image, execution, by, .. } in &self.superseded {
            let (old, new) = (execution_name(execution), execution_name(by));
            lines.push(format!("{image} superseded: {old} stopped, for {new}"));
        }
        for (entries, what) in [(&self.skipped, "skipped"), (&self.failed, "failed")] {
            for Entry { image, reason, execution, .. } in entries {
                let reason = reason.as_deref().unwrap_or("no reason given");
                let execution = execution
                    .as_ref()
                    .map(|_| format!(" ({})", execution_name(execution)))
                    .unwrap_or_default();
                lines.push(format!("{image} {what}: {reason}{execution}"));
            }
        }
        lines.extend(self.ignored.iter().map(|what| format!("ignored: {what}")));
        lines
    }
}

/// The last part of an ARN.
fn execution_name(arn: &Option<String>) -> &str {
    arn.as_deref().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default()
}

/// A branch or tag as people call it.
pub(crate) fn short(name: &str) -> &str {
    let kinds = ["refs/heads/", "refs/tags/"];
    kinds.iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name)
}

/// Without anything that a terminal would act on.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, body: Value) -> Vec<String> {
        let body = body.to_string().into();
        lines("refs/heads/main", &Answer { status, body })
    }

    #[test]
    fn tells_what_was_started_skipped_and_stopped() {
        let arn = |name: &str| format!("arn:aws:states:us-east-1:0:execution:m:{name}");
        let body = json!({
            "started": [{"image": "api", "execution": arn("api-1"), "note": "new"}],
            "skipped": [{"image": "web", "reason": "nothing of web/ changed"}],
            "superseded": [{"image": "api", "execution": arn("api-0"), "by": arn("api-1")}],
            "failed": [{"image": "db", "reason": "throttled"}],
        });
        assert_eq!(
            told(200, body),
            [
                "archweld: main: api started: api-1 (new)",
                "archweld: main: api superseded: api-0 stopped, for api-1",
                "archweld: main: web skipped: nothing of web/ changed",
                "archweld: main: db failed: throttled",
            ]
        );
        assert_eq!(told(200, json!({})), ["archweld: main: nothing to start"]);
    }

    #[test]
    fn tells_of_an_error() {
        assert_eq!(
            told(401, json!({"error": "signature"})),
            ["archweld: main: the webhook was answered 401: signature"]
        );
        assert_eq!(told(502, json!({})), ["archweld: main: the webhook was answered 502"]);
        let answer = Answer { status: 502, body: "Internal\nServer \u{1b}[31mError".into() };
        assert_eq!(
            lines("refs/tags/v1", &answer),
            ["archweld: v1: the webhook was answered 502: Internal Server  [31mError"]
        );
    }
}
