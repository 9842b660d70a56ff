//! Pushes, as a provider tells of them.

use archweld_git::Provider;
use archweld_model::Digest;
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::World;

/// A push to the deployment's repository.
#[derive(Debug, Clone)]
pub struct Push {
    /// The branch or tag, in full.
    pub git_ref: String,
    /// What it was at.
    pub before: String,
    /// What it is at now.
    pub after: String,
    /// When it was pushed, in seconds since 1970.
    pub pushed_at: u64,
    /// The files that it changed.
    pub modified: Vec<String>,
    /// How many commits the payload has.
    pub commits: usize,
}

impl Push {
    /// A push of a commit to `main`.
    pub fn of(commit: &str, pushed_at: u64) -> Self {
        Self {
            git_ref: "refs/heads/main".to_owned(),
            before: format!("{:040}", 7),
            after: commit.to_owned(),
            pushed_at,
            modified: vec!["Dockerfile".to_owned()],
            commits: 1,
        }
    }

    /// The payload, as GitHub sends it
    /// (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>).
    pub fn payload(&self) -> Value {
        let time = jiff::Timestamp::from_second(i64::try_from(self.pushed_at).unwrap()).unwrap();
        let commit = json!({
            "id": self.after, "timestamp": time.to_string(), "message": "a change",
            "added": [], "removed": [], "modified": self.modified,
        });
        json!({
            "ref": self.git_ref, "before": self.before, "after": self.after,
            "created": false, "deleted": false, "forced": false, "base_ref": null,
            "repository": {
                "full_name": "archweld/hello",
                "clone_url": "https://github.com/archweld/hello.git",
                "pushed_at": self.pushed_at, "default_branch": "main",
            },
            "pusher": {"name": "kim"},
            "head_commit": commit,
            "commits": vec![commit.clone(); self.commits],
        })
    }
}

impl World {
    /// Sends a webhook to the function's URL, signed with the deployment's secret; gives the status
    /// and the answer.
    pub async fn deliver(&self, delivery: &str, payload: &Value) -> (u16, Value) {
        let [secret] = &self.cloud.stack().secrets[..] else { panic!("one secret") };
        let secret = json!({"SecretId": secret.settings.arn});
        let secret = self.cloud.secrets().call("GetSecretValue", secret).await.unwrap();
        let secret = secret["SecretString"].as_str().unwrap();
        self.deliver_signed(secret, delivery, payload).await
    }

    /// The same with another secret.
    pub async fn deliver_signed(
        &self,
        secret: &str,
        delivery: &str,
        payload: &Value,
    ) -> (u16, Value) {
        let body = Bytes::from(payload.to_string());
        let mut request = Request::post("/");
        for (name, value) in Provider::GitHub.headers("push", delivery, secret.as_bytes(), &body) {
            request = request.header(name, value);
        }
        let functions = &self.cloud.stack().functions;
        let function = functions.iter().find(|function| function.binary == "trigger-run").unwrap();
        let request = request.body(body).unwrap();
        let answer = self.cloud.lambda().handle_url(&function.name, "/", request).await;
        let body = serde_json::from_slice(answer.body()).unwrap_or_default();
        (answer.status().as_u16(), body)
    }
}

/// A commit of that number.
pub fn commit(number: u64) -> String {
    Digest::of(&number.to_le_bytes()).to_string()["sha256:".len()..][..40].to_owned()
}
