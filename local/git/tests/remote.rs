//! The remote, with the real git against its HTTP door.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use archweld_git::{Answer, Deliver, Delivery, GitServer, GitSettings, RefUpdate};
use archweld_local_api::Host;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinHandle,
};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    folder: TempDir,
    server: GitServer,
    address: String,
    task: JoinHandle<()>,
    deliveries: Arc<Mutex<Vec<Value>>>,
}

/// What a command of git's said.
struct Said {
    success: bool,
    text: String,
}

fn started() -> Result<Answer, String> {
    let execution = "arn:aws:states:us-east-1:000000000000:execution:m:hello-1";
    let body = json!({"started": [{"image": "hello", "execution": execution}], "skipped": []});
    Ok(Answer { status: 200, body: body.to_string().into() })
}

impl World {
    async fn new() -> Self {
        Self::answering(started).await
    }

    async fn answering(answer: fn() -> Result<Answer, String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, address, task, deliveries) = serve(folder.path(), answer).await;
        let world = Self { folder, server, address, task, deliveries };
        let work = world.work();
        fs::create_dir(&work).unwrap();
        world.git(&["init", "--quiet", "--initial-branch=main"]).await.ok();
        world.git(&["remote", "add", "archweld", world.server.url()]).await.ok();
        world
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    async fn git(&self, arguments: &[&str]) -> Said {
        git(&self.work(), arguments).await
    }

    /// Writes files, and commits them.
    async fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.work().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.git(&["add", "--all"]).await.ok();
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]).await.ok();
        self.git(&["rev-parse", "HEAD"]).await.ok().trim().to_owned()
    }

    async fn push(&self, arguments: &[&str]) -> Said {
        self.git(&[&["push", "archweld"], arguments].concat()).await
    }

    /// The payloads since the last call.
    fn payloads(&self) -> Vec<Value> {
        std::mem::take(&mut *self.deliveries.lock().unwrap())
    }

    async fn request(&self, head: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let length = body.len();
        let head =
            format!("{head} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Said {
    fn ok(self) -> String {
        assert!(self.success, "{}", self.text);
        self.text
    }
}

async fn serve(
    folder: &Path,
    answer: fn() -> Result<Answer, String>,
) -> (GitServer, String, JoinHandle<()>, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let deliveries = Arc::new(Mutex::new(Vec::new()));
    let seen = deliveries.clone();
    let deliver: Deliver = Arc::new(move |Delivery { event, body, .. }| {
        assert_eq!(event, "push");
        seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        async move { answer() }.boxed()
    });
    let settings = GitSettings {
        name: "hello".to_owned(),
        folder: folder.join("hello.git"),
        url: format!("http://{address}/git/hello.git"),
    };
    let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
    let server = GitServer::new(host, settings, deliver).unwrap();
    let router = server.router();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (server, address, task, deliveries)
}

/// Git as a person has it, of whom nothing is known but a name.
async fn git(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Said { success: output.status.success(), text }
}

#[tokio::test]
async fn a_push_is_told_as_github_tells_it_and_answered_on_the_terminal() {
    let world = World::new().await;
    let first = world.commit("first", &[("a", "1"), ("d/b \"x\"", "1")]).await;
    let said = world.push(&["main"]).await.ok();
    assert!(said.contains("remote: archweld: main: hello started: hello-1"), "{said}");
    let [created] = world.payloads().try_into().unwrap();
    assert_eq!(created["ref"], "refs/heads/main");
    assert_eq!(created["before"], "0".repeat(40));
    assert_eq!((&created["after"], &created["created"]), (&json!(first), &json!(true)));
    assert_eq!(created["head_commit"]["added"], json!(["a", "d/b \"x\""]));
    assert_eq!(created["repository"]["clone_url"], world.server.url());
    assert_eq!(created["repository"]["default_branch"], "main");
    assert_eq!(created["repository"]["full_name"], "local/hello");
    assert_eq!(created["pusher"], json!({"name": "Ada", "email": "ada@example.com"}));
    assert!(created["repository"]["pushed_at"].is_u64());

    fs::remove_file(world.work().join("a")).unwrap();
    let second = world.commit("second\n\nA body: \"x\"", &[("c", "1")]).await;
    let third = world.commit("third", &[("c", "2")]).await;
    world.push(&["main"]).await.ok();
    let [updated] = world.payloads().try_into().unwrap();
    assert_eq!((&updated["before"], &updated["after"]), (&json!(first), &json!(third)));
    assert_eq!((&updated["created"], &updated["forced"]), (&json!(false), &json!(false)));
    let commits: Vec<_> = updated["commits"].as_array().unwrap().iter().collect();
    assert_eq!(commits.iter().map(|it| &it["id"]).collect::<Vec<_>>(), [&second, &third]);
    assert_eq!(commits[0]["message"], "second\n\nA body: \"x\"");
    assert_eq!(
        (&commits[0]["added"], &commits[0]["removed"], &commits[1]["modified"]),
        (&json!(["c"]), &json!(["a"]), &json!(["c"]))
    );
    assert_eq!(commits[1]["author"]["username"], "ada");
    assert!(commits[1]["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());

    let clone = world.folder.path().join("clone");
    git(world.folder.path(), &["clone", "--quiet", world.server.url(), "clone"]).await.ok();
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]).await.ok().trim(), third);
}

#[tokio::test]
async fn forced_pushes_branches_tags_and_deletions_are_told_apart() {
    let world = World::new().await;
    let first = world.commit("first", &[("a", "1")]).await;
    let left = world.commit("left behind", &[("a", "2")]).await;
    world.push(&["main"]).await.ok();
    world.git(&["reset", "--quiet", "--hard", &first]).await.ok();
    let other = world.commit("instead", &[("b", "1")]).await;
    assert!(!world.push(&["main"]).await.success);
    world.payloads().truncate(0);
    world.push(&["--force", "main"]).await.ok();
    let [forced] = world.payloads().try_into().unwrap();
    assert_eq!((&forced["forced"], &forced["before"]), (&json!(true), &json!(left)));
    assert_eq!(forced["commits"].as_array().unwrap().len(), 1);

    world.git(&["tag", "--annotate", "--message=one", "v1"]).await.ok();
    let said = world.push(&["v1", "main:refs/heads/side"]).await.ok();
    assert!(said.contains("archweld: v1:") && said.contains("archweld: side:"), "{said}");
    let payloads = world.payloads();
    let tag = payloads.iter().find(|it| it["ref"] == "refs/tags/v1").unwrap();
    assert_ne!(tag["after"], tag["head_commit"]["id"], "an annotated tag is an object itself");
    assert_eq!((&tag["head_commit"]["id"], &tag["commits"]), (&json!(other), &json!([])));
    let side = payloads.iter().find(|it| it["ref"] == "refs/heads/side").unwrap();
    assert_eq!((&side["created"], &side["commits"]), (&json!(true), &json!([])));

    world.push(&["--delete", "side"]).await.ok();
    let [deleted] = world.payloads().try_into().unwrap();
    assert_eq!((&deleted["deleted"], &deleted["head_commit"]), (&json!(true), &Value::Null));
    assert_eq!(deleted["after"], "0".repeat(40));

    // Nothing moves, nothing is told.
    world.push(&["main"]).await.ok();
    assert_eq!(world.payloads(), Vec::<Value>::new());

    // A build may ask for a commit that no branch has any more.
    git(world.folder.path(), &["clone", "--quiet", world.server.url(), "clone"]).await.ok();
    let clone = world.folder.path().join("clone");
    git(&clone, &["fetch", "--quiet", "origin", &left]).await.ok();
}

#[tokio::test]
async fn a_push_stays_taken_when_its_webhook_fails() {
    for (answer, told) in [
        (
            (|| Err("no function has a URL\u{1b}[2J".to_owned())) as fn() -> Result<Answer, String>,
            "remote: archweld: main: no function has a URL",
        ),
        (
            || Ok(Answer { status: 502, body: "Internal Server Error".into() }),
            "remote: archweld: main: the webhook was answered 502: Internal Server Error",
        ),
    ] {
        let world = World::answering(answer).await;
        let commit = world.commit("first", &[("a", "1")]).await;
        let said = world.push(&["main"]).await.ok();
        assert!(said.contains(told) && !said.contains("\u{1b}[2J"), "{said}");
        let list = world.git(&["ls-remote", "archweld", "refs/heads/main"]).await.ok();
        assert!(list.starts_with(&commit), "{list}");
    }
}

#[tokio::test]
async fn names_that_try_to_break_out_are_names() {
    let world = World::new().await;
    world.commit("first", &[("a", "1")]).await;
    let names = [
        "refs/heads/$(touch${IFS}x)",
        "refs/heads/`touch${IFS}x`",
        "refs/heads/x;touch${IFS}x",
        "refs/heads/x|touch${IFS}x",
        "refs/heads/--upload-pack=touch",
        "refs/heads/-x",
        "refs/heads/'x\"",
        "refs/heads/größe-→-🚀",
        "refs/heads/%0a%00",
        "refs/tags/&&x",
    ];
    for name in names {
        world.push(&[&format!("HEAD:{name}")]).await.ok();
        let [payload] = world.payloads().try_into().unwrap();
        assert_eq!(payload["ref"], name);
        assert_eq!(payload["head_commit"]["message"], "first");
    }
    let long = format!("refs/heads/{}", "x".repeat(200));
    world.push(&[&format!("HEAD:{long}")]).await.ok();
    assert_eq!(world.payloads().len(), 1);
    let bare = world.folder.path().join("hello.git");
    for folder in [&bare, &world.work(), &std::env::current_dir().unwrap()] {
        assert!(!folder.join("x").exists());
    }
    // The first that was pushed is the default branch, whatever its name.
    let head = fs::read_to_string(bare.join("HEAD")).unwrap();
    assert_eq!(head.trim(), format!("ref: {}", names[0]));
}

#[tokio::test]
async fn what_git_refuses_is_told_to_nobody() {
    let world = World::new().await;
    let commit = world.commit("first", &[("a", "1")]).await;
    world.push(&["main"]).await.ok();
    world.payloads();
    let zeros = "0".repeat(40);
    let names = [
        "refs/heads/a\nb",
        "refs/heads/../../x",
        "refs/heads/..",
        "refs/heads/a b",
        "refs/heads/a..b",
        "HEAD~1",
        "../x",
        "refs/heads/main",
    ];
    for name in names.into_iter().chain(["refs/heads/fine"]) {
        let command = format!("{zeros} {commit} {name}\0 report-status");
        let mut body = format!("{:04x}{command}0000", command.len() + 4).into_bytes();
        // A pack without objects.
        body.extend(b"PACK\0\0\0\x02\0\0\0\0");
        body.extend([
            0x02, 0x9d, 0x08, 0x82, 0x3b, 0xd8, 0xa8, 0xea, 0xb5, 0x10, 0xad, 0x6a, 0xc7, 0x5c,
            0x82, 0x3c, 0xfd, 0x3e, 0xd3, 0x1e,
        ]);
        let answer = world.request("POST /git/hello.git/git-receive-pack", &body).await;
        // The last shows that the rest of the request is well-formed.
        let fine = name == "refs/heads/fine";
        assert_eq!(answer.contains(&format!("ok {name}")), fine, "{answer}");
        assert_eq!(world.payloads().len(), usize::from(fine), "{name}");
    }
    let refs = fs::read_dir(world.folder.path().join("hello.git/refs/heads")).unwrap().count();
    assert_eq!(refs, 2);
}

#[tokio::test]
async fn a_schedule_finds_a_branchs_commit_as_with_any_provider() {
    let world = World::new().await;
    let commit = world.commit("first", &[("a", "1")]).await;
    world.push(&["main"]).await.ok();
    let answer = world.request("GET /git/hello.git/info/refs?service=git-upload-pack", b"").await;
    assert!(answer.contains("application/x-git-upload-pack-advertisement"), "{answer}");
    assert!(answer.contains("001e# service=git-upload-pack\n0000"), "{answer}");
    assert!(answer.contains(&format!("003d{commit} refs/heads/main\n")), "{answer}");
}

#[tokio::test]
async fn requests_that_are_none_of_gits_are_refused() {
    let world = World::new().await;
    let cases: [(&str, &[u8], &str); 8] = [
        ("GET /git/other.git/info/refs?service=git-upload-pack", b"", "404"),
        ("GET /git/..%2fx/info/refs?service=git-upload-pack", b"", "404"),
        ("GET /git/hello.git/info/refs", b"", "403"),
        ("GET /git/hello.git/info/refs?service=git-shell", b"", "403"),
        ("GET /git/hello.git/HEAD", b"", "404"),
        ("POST /git/other.git/git-receive-pack", b"0000", "404"),
        ("POST /git/hello.git/git-receive-pack", b"hello", "400"),
        ("GET /git/hello.git/git-receive-pack", b"", "405"),
    ];
    for (head, body, status) in cases {
        let answer = world.request(head, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.0 {status}")), "{head}: {answer}");
    }
    for name in ["", "../x", "a/b", "-x", "a b", ".git"] {
        let settings = GitSettings {
            name: name.to_owned(),
            folder: world.folder.path().join("other"),
            url: String::new(),
        };
        let host = Host::seeded("000000000000", "us-east-1", Timestamp::UNIX_EPOCH, 7);
        let deliver: Deliver = Arc::new(|_| async { started() }.boxed());
        assert!(GitServer::new(host, settings, deliver).is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn of_many_tags_at_once_none_is_told() {
    let world = World::new().await;
    world.commit("first", &[("a", "1")]).await;
    for tag in ["v1", "v2", "v3", "v4"] {
        world.git(&["tag", tag]).await.ok();
    }
    let said = world.push(&["main", "--tags"]).await.ok();
    assert!(said.contains("archweld: 4 tags at once start nothing"), "{said}");
    let [payload] = world.payloads().try_into().unwrap();
    assert_eq!(payload["ref"], "refs/heads/main");
}

#[tokio::test]
async fn two_pushes_within_a_second_keep_their_order() {
    let world = World::new().await;
    for message in ["first", "second", "third"] {
        world.commit(message, &[]).await;
        world.push(&["main"]).await.ok();
    }
    let pushed: Vec<_> =
        world.payloads().iter().map(|it| it["repository"]["pushed_at"].as_u64().unwrap()).collect();
    assert!(pushed.windows(2).all(|pair| pair[0] < pair[1]), "{pushed:?}");
}

#[tokio::test]
async fn a_restart_keeps_the_repository() {
    let world = World::new().await;
    let commit = world.commit("first", &[("a", "1")]).await;
    world.push(&["main"]).await.ok();
    world.server.shutdown().await;
    let (server, _, task, deliveries) = serve(world.folder.path(), started).await;
    let list = world.git(&["ls-remote", server.url(), "refs/heads/main"]).await.ok();
    assert!(list.starts_with(&commit), "{list}");
    world.commit("second", &[("a", "2")]).await;
    world.git(&["push", server.url(), "main"]).await.ok();
    assert_eq!(deliveries.lock().unwrap()[0]["before"], commit);
    task.abort();
}

#[tokio::test]
async fn a_large_push_arrives_whole() {
    let world = World::new().await;
    // Nothing that compresses: more than git sends in one piece.
    let mut state = 7_u64;
    let noise: String = (0..3_000_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b' ' + u8::try_from((state >> 33) % 90).unwrap())
        })
        .collect();
    world.commit("large", &[("noise", &noise)]).await;
    world.push(&["main"]).await.ok();
    git(world.folder.path(), &["clone", "--quiet", world.server.url(), "clone"]).await.ok();
    let cloned = fs::read_to_string(world.folder.path().join("clone/noise")).unwrap();
    assert_eq!(cloned, noise);
}

/// The processes of git's that this one has started.
fn children() -> Vec<String> {
    let own = format!(" {} ", std::process::id());
    let processes = fs::read_dir("/proc").unwrap().filter_map(|it| it.ok());
    let stats = processes.filter_map(|it| fs::read_to_string(it.path().join("stat")).ok());
    stats.filter(|stat| stat.contains("(git)") && stat.contains(&own)).collect()
}

#[tokio::test]
async fn a_push_that_never_ends_leaves_no_process_behind() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    let head = "POST /git/hello.git/git-receive-pack HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n00";
    stream.write_all(head.as_bytes()).await.unwrap();
    let seen = async {
        while children().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    tokio::time::timeout(PATIENCE, world.server.shutdown()).await.unwrap();
    let gone = async {
        while !children().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[test]
fn an_update_says_what_it_is() {
    let (some, none) = ("1".repeat(40), "0".repeat(40));
    let update = |before: &str, after: &str| RefUpdate {
        name: "refs/heads/main".to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    assert!(update(&none, &some).is_created() && update(&some, &none).is_deleted());
    assert!(!update(&some, &some).is_created() && !update(&some, &some).is_deleted());
}
