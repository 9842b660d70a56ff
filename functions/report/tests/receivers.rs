//! Reports, against a server that answers as the receivers do: GitHub, GitLab, Bitbucket, Slack, SNS,
//! a webhook of anybody's, and the AWS APIs that the function calls.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use archweld_model::Named as _;
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_http_client::{
    Builder,
    tls::{self, rustls_provider::CryptoMode},
};
use aws_types::{SdkConfig, region::Region};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use report::{Clients, Error, Reported, Settings, handle};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:states:us-east-1:000000000000:execution:archweld-multi-arch-build:r1";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "token-of-the-git-server";
const KEY: &str = "a key that webhooks are signed with";

#[derive(Debug, Clone)]
struct Sent {
    path: String,
    headers: HashMap<String, String>,
    body: Value,
    raw: String,
}

/// An answer: status, headers, body.
type Answer = (u16, Vec<(&'static str, &'static str)>, String);

#[derive(Default)]
struct Server {
    /// What `DescribeExecution` answers, one after the other; the last one stays.
    executions: VecDeque<Value>,
    /// What is answered before anything else is, by path.
    answers: BTreeMap<String, VecDeque<Answer>>,
    sent: Vec<Sent>,
}

type Shared = Arc<Mutex<Server>>;

struct World {
    address: String,
    server: Shared,
    folder: tempfile::TempDir,
}

async fn answer(
    State(server): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(method, "POST");
    let mut server = server.lock().unwrap();
    let raw = String::from_utf8(body.to_vec()).unwrap();
    let parsed: Value = serde_json::from_str(&raw).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match header("x-amz-target") {
        Some("AWSStepFunctions.DescribeExecution") => {
            assert_eq!(parsed["executionArn"], ARN);
            let next = server.executions.pop_front().unwrap();
            if server.executions.is_empty() {
                server.executions.push_back(next.clone());
            }
            return next.to_string().into_response();
        }
        Some("secretsmanager.GetSecretValue") => {
            let text = match parsed["SecretId"].as_str().unwrap() {
                "archweld/git" => TOKEN.to_owned(),
                "archweld/key" => KEY.to_owned(),
                "archweld/odd" => "no address".to_owned(),
                other => panic!("no secret {other}"),
            };
            return json!({"SecretString": text}).to_string().into_response();
        }
        Some("AmazonSSM.GetParameter") => {
            let host = header("host").unwrap();
            let value = format!("http://{host}/services/T0/B0/secret-part");
            return json!({"Parameter": {"Value": value}}).to_string().into_response();
        }
        Some(other) => panic!("no operation {other}"),
        None => {}
    }
    let path = uri.path().to_owned();
    let headers = headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    server.sent.push(Sent { path: path.clone(), headers: headers.collect(), body: parsed, raw });
    match server.answers.get_mut(&path).and_then(VecDeque::pop_front) {
        Some((status, headers, body)) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        // https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/
        None if path.starts_with("/services/") => "ok".into_response(),
        None => (StatusCode::CREATED, "{}").into_response(),
    }
}

impl World {
    async fn open() -> Self {
        let server = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, server, folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> SdkConfig {
        let provider = tls::Provider::Rustls(CryptoMode::AwsLc);
        let mut config = SdkConfig::builder()
            .behavior_version(
                aws_smithy_runtime_api::client::behavior_version::BehaviorVersion::v2026_01_12(),
            )
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "a", "b", None, None, "test",
            )))
            .sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new())
            .http_client(Builder::new().tls_provider(provider).build_https());
        config.set_endpoint_url(Some(format!("http://{}", self.address)));
        config.build()
    }

    /// A function with these receivers; `{api}` is the server's address.
    fn function(&self, notify: &str) -> (Settings, Clients) {
        let path = self.folder.path().join("archweld.toml");
        let image = "[[image]]\nname = \"hello\"\nplatforms = [\"linux/arm64\"]\n";
        let notify = notify.replace("{api}", &format!("http://{}", self.address));
        std::fs::write(&path, format!("{image}{notify}")).unwrap();
        let source = "https://github.com/Team/app.git".to_owned();
        (Settings::new(&path, source), Clients::new(&self.config()))
    }

    fn executions(&self, each: impl IntoIterator<Item = Value>) {
        self.server.lock().unwrap().executions = each.into_iter().collect();
    }

    fn answers(&self, path: &str, each: impl IntoIterator<Item = Answer>) {
        let mut server = self.server.lock().unwrap();
        server.answers.insert(path.to_owned(), each.into_iter().collect());
    }

    fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.server.lock().unwrap().sent)
    }
}

fn execution(status: &str) -> Value {
    let input = json!({"ref": "main", "commit": COMMIT, "trigger": {"kind": "push", "id": "d1"}});
    let mut execution = json!({
        "executionArn": ARN, "name": "r1", "status": status, "startDate": 1_795_428_000.5,
        "input": input.to_string(),
    });
    if status != "RUNNING" {
        execution["stopDate"] = 1_795_428_100.5.into();
    }
    if status == "FAILED" {
        execution["error"] = "Build.Failed".into();
        execution["cause"] = "linux/arm64: BUILD failed <1>".into();
    }
    execution
}

fn change(status: &str) -> Value {
    json!({
        "source": "aws.states", "detail-type": "Step Functions Execution Status Change",
        "time": "2026-11-23T10:00:00Z", "detail": {"executionArn": ARN, "status": status},
    })
}

fn result(status: &str) -> Value {
    let mut event = json!({
        "source": "archweld", "detail-type": "Archweld Run State Change",
        "time": "2026-11-23T10:00:00Z", "detail": {"execution": ARN, "status": status, "run": "r1"},
    });
    if status == "FAILED" {
        event["detail"]["error"] = "Build.Failed".into();
        event["detail"]["cause"] = "linux/arm64: BUILD failed <1>".into();
    }
    event
}

const GITHUB: &str =
    "[[notify]]\nkind = \"github\"\napi = \"{api}\"\ntoken = \"secretsmanager:archweld/git\"\n";
const GITHUB_PATH: &str = "/repos/Team/app/statuses/0123456789abcdef0123456789abcdef01234567";
const SLACK: &str = "[[notify]]\nkind = \"slack\"\nurl = \"ssm:/archweld/slack\"\n";

fn states(sent: &[Sent]) -> Vec<&str> {
    sent.iter().map(|sent| sent.body["state"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_commit_at_github_is_pending_and_then_what_the_run_became() {
    let world = World::open().await;
    let (settings, clients) = world.function(GITHUB);
    world.executions([execution("RUNNING")]);
    handle(change("RUNNING"), &settings, &clients).await.unwrap();
    handle(result("FAILED"), &settings, &clients).await.unwrap();
    let sent = world.sent();
    assert_eq!(states(&sent), ["pending", "failure"]);
    let last = &sent[1];
    assert_eq!(last.path, GITHUB_PATH);
    assert_eq!(last.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(last.headers["accept"], "application/vnd.github+json");
    assert!(last.headers.contains_key("user-agent"), "GitHub refuses requests without");
    assert_eq!(last.body["context"], "archweld/hello");
    assert_eq!(last.body["description"], "Build.Failed: linux/arm64: BUILD failed <1>");
    assert!(last.body["target_url"].as_str().unwrap().ends_with("/r1"), "{}", last.body);
}

#[tokio::test]
async fn late_news_of_a_start_never_makes_a_finished_run_pending() {
    let world = World::open().await;
    let (settings, clients) = world.function(GITHUB);
    world.executions([execution("SUCCEEDED")]);
    handle(change("RUNNING"), &settings, &clients).await.unwrap();
    assert_eq!(states(&world.sent()), ["success"]);
    // The run ends just while the status is set to pending, and who told of that was quicker.
    let (settings, clients) = world.function(GITHUB);
    world.executions([execution("RUNNING"), execution("FAILED")]);
    handle(change("RUNNING"), &settings, &clients).await.unwrap();
    assert_eq!(states(&world.sent()), ["pending", "failure"]);
}

#[tokio::test]
async fn gitlab_and_bitbucket_have_their_own_words() {
    let world = World::open().await;
    let more = "token = \"secretsmanager:archweld/git\"\nhost = \"github.com\"\napi = \"{api}";
    let notify = format!(
        "[[notify]]\nkind = \"gitlab\"\n{more}/api/v4\"\n[[notify]]\nkind = \"bitbucket\"\n{more}/2.0\"\n"
    );
    let (settings, clients) = world.function(&notify);
    let path = format!("/api/v4/projects/Team%2Fapp/statuses/{COMMIT}");
    let said = r#"{"message":"Cannot transition status via :run from :running (Reason(s): ...)"}"#;
    world.answers(&path, [(400, vec![], said.to_owned())]);
    world.executions([execution("RUNNING")]);
    handle(change("RUNNING"), &settings, &clients).await.unwrap();
    world.executions([execution("ABORTED")]);
    handle(change("ABORTED"), &settings, &clients).await.unwrap();
    let sent = world.sent();
    let of = |part: &str| -> Vec<Value> {
        let of = sent.iter().filter(|sent| sent.path.contains(part));
        of.map(|sent| sent.body["state"].clone()).collect()
    };
    assert_eq!(of(&path), ["running", "canceled"]);
    assert_eq!(of("/2.0/repositories/Team/app/commit/"), ["INPROGRESS", "STOPPED"]);
    let bitbucket = sent.iter().find(|sent| sent.path.starts_with("/2.0/")).unwrap();
    assert!(bitbucket.path.ends_with("/statuses/build"));
    assert_eq!(bitbucket.body["key"], "archweld/hello");
    assert!(bitbucket.body["url"].is_string());
}

#[tokio::test]
async fn a_token_that_is_not_valid_is_named_and_never_told() {
    let world = World::open().await;
    let (settings, clients) = world.function(&format!("{GITHUB}{SLACK}"));
    let said = format!(r#"{{"message":"Bad credentials {TOKEN}"}}"#);
    world.answers(GITHUB_PATH, [(401, vec![], said)]);
    world.executions([execution("RUNNING")]);
    let error = handle(result("FAILED"), &settings, &clients).await.unwrap_err();
    assert_eq!(error.name().as_str(), "Report.Unauthorized");
    insta::assert_snapshot!(error, @"github: HTTP 401: Bad credentials (secret): the token at secretsmanager:archweld/git is not valid, or may not set statuses");
    let paths: Vec<String> = world.sent().into_iter().map(|sent| sent.path).collect();
    assert_eq!(paths.len(), 2, "Slack is told all the same: {paths:?}");
    // Lambda tries again: who knows is not told twice, and the token is read anew.
    handle(result("FAILED"), &settings, &clients).await.unwrap();
    let again: Vec<String> = world.sent().into_iter().map(|sent| sent.path).collect();
    assert_eq!(again, [GITHUB_PATH]);
}

#[tokio::test]
async fn a_busy_receiver_is_asked_again_when_it_says_and_not_for_ever() {
    let world = World::open().await;
    let (settings, clients) = world.function(GITHUB);
    world.executions([execution("RUNNING")]);
    world.answers(
        GITHUB_PATH,
        [
            (429, vec![("retry-after", "0")], String::new()),
            (502, vec![("retry-after", "0")], String::new()),
        ],
    );
    let reported = handle(result("FAILED"), &settings, &clients).await.unwrap();
    assert_eq!(reported, Reported { told: 1 });
    assert_eq!(states(&world.sent()), ["failure"; 3]);

    let (settings, clients) = world.function(GITHUB);
    let limited = vec![("retry-after", "3600"), ("x-ratelimit-remaining", "0")];
    world.answers(
        GITHUB_PATH,
        [(403, limited, r#"{"message":"API rate limit exceeded"}"#.to_owned())],
    );
    let error = handle(result("FAILED"), &settings, &clients).await.unwrap_err();
    assert_eq!(error.name().as_str(), "Service.Unavailable");
    assert_eq!(error.to_string(), "github: HTTP 403: API rate limit exceeded");
    assert_eq!(world.sent().len(), 1);
}

#[tokio::test]
async fn the_token_goes_to_its_own_host_alone_and_nowhere_without_a_commit() {
    let world = World::open().await;
    let (settings, clients) =
        world.function(&GITHUB.replace("api =", "host = \"git.example\"\napi ="));
    world.executions([execution("RUNNING")]);
    handle(result("FAILED"), &settings, &clients).await.unwrap();
    let (settings, clients) = world.function(GITHUB);
    let mut no_commit = execution("RUNNING");
    no_commit["input"] = "{}".into();
    world.executions([no_commit]);
    handle(result("FAILED"), &settings, &clients).await.unwrap();
    assert_eq!(world.sent().len(), 0);
}

#[tokio::test]
async fn a_message_is_sent_once_for_each_state_that_is_asked_for() {
    let world = World::open().await;
    let (settings, clients) = world.function(SLACK);
    world.executions([execution("RUNNING")]);
    handle(change("RUNNING"), &settings, &clients).await.unwrap();
    handle(result("FAILED"), &settings, &clients).await.unwrap();
    handle(result("FAILED"), &settings, &clients).await.unwrap();
    world.executions([execution("FAILED")]);
    handle(change("FAILED"), &settings, &clients).await.unwrap();
    let sent = world.sent();
    let [sent] = &sent[..] else { panic!("one message: {sent:?}") };
    let text = sent.body["text"].as_str().unwrap();
    let (before, link) = text.rsplit_once('\n').unwrap();
    assert_eq!(
        before,
        ":x: hello (main, 0123456) failed\nBuild.Failed: linux/arm64: BUILD failed &lt;1&gt;"
    );
    assert!(link.starts_with("<http") && link.ends_with("|r1>"), "{link}");

    // No result event tells of a time-out.
    let (settings, clients) = world.function(SLACK);
    world.executions([execution("TIMED_OUT")]);
    handle(change("TIMED_OUT"), &settings, &clients).await.unwrap();
    assert!(world.sent()[0].body["text"].as_str().unwrap().contains("States.Timeout"));
}

#[tokio::test]
async fn a_webhook_is_signed_and_known_again() {
    let world = World::open().await;
    let notify = "[[notify]]\nkind = \"webhook\"\nurl = \"{api}/hook\"\nsecret = \"secretsmanager:archweld/key\"\non = [\"failed\"]\n";
    let mut ids = vec![];
    for _ in 0..2 {
        // Another instance each.
        let (settings, clients) = world.function(notify);
        world.executions([execution("RUNNING")]);
        handle(result("FAILED"), &settings, &clients).await.unwrap();
        let sent = world.sent().pop().unwrap();
        let (id, time) = (&sent.headers["webhook-id"], &sent.headers["webhook-timestamp"]);
        let mut mac =
            <hmac::Hmac<sha2::Sha256> as hmac::Mac>::new_from_slice(KEY.as_bytes()).unwrap();
        hmac::Mac::update(&mut mac, format!("{id}.{time}.{}", sent.raw).as_bytes());
        let signature = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            hmac::Mac::finalize(mac).into_bytes(),
        );
        assert_eq!(sent.headers["webhook-signature"], format!("v1,{signature}"));
        assert_eq!(sent.body["type"], "run.failed");
        assert_eq!(sent.body["data"]["commit"], COMMIT);
        assert_eq!(sent.body["data"]["error"], "Build.Failed");
        ids.push(id.clone());
    }
    assert_eq!(ids[0], ids[1], "the same news has the same id");
}

#[tokio::test]
async fn a_topic_gets_words_for_people() {
    let world = World::open().await;
    let topic = "arn:aws:sns:us-east-1:000000000000:archweld-people";
    let (settings, clients) =
        world.function(&format!("[[notify]]\nkind = \"sns\"\ntopic = \"{topic}\"\n"));
    world.executions([execution("RUNNING")]);
    handle(result("FAILED"), &settings, &clients).await.unwrap();
    let sent = world.sent().pop().unwrap();
    let form: HashMap<String, String> =
        form_urlencoded::parse(sent.raw.as_bytes()).into_owned().collect();
    assert_eq!(form["Action"], "Publish");
    assert_eq!(form["TopicArn"], topic);
    assert_eq!(form["Subject"], "hello (main, 0123456) failed");
    assert_eq!(form["MessageAttributes.entry.1.Value.StringValue"], "failed");
    assert!(sent.headers["authorization"].contains("/us-east-1/sns/aws4_request"));
}

#[tokio::test]
async fn an_address_that_is_none_is_not_told() {
    let world = World::open().await;
    let (settings, clients) =
        world.function("[[notify]]\nkind = \"slack\"\nurl = \"secretsmanager:archweld/odd\"\n");
    world.executions([execution("RUNNING")]);
    let error = handle(result("FAILED"), &settings, &clients).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "secretsmanager:archweld/odd: the secret is no URL, expected https://HOST/PATH"
    );
    let malformed = handle(json!({"source": "archweld", "time": ""}), &settings, &clients).await;
    assert!(matches!(malformed, Err(Error::Malformed(_))));
}
