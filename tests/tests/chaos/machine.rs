//! A machine with `archweld up` on it, a project, and clients.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use archweld_model::Digest;
use archweld_tests::{binaries, commit, root};
use aws_sdk_sfn::{
    config::{BehaviorVersion, Credentials, Region},
    types::ExecutionStatus,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

use crate::{
    checks::Run,
    processes::{self, Kind},
};

/// The images, and who makes the index of each.
pub(crate) const IMAGES: [&str; 2] = ["assembled", "welded"];
const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";
/// How long the server may take to listen.
const START_MAX: Duration = Duration::from_secs(20);
/// How long a killed server's processes may live.
const ORPHANS_MAX: Duration = Duration::from_secs(2);
/// How long a run may take: builds take seconds, and what is retried waits a minute twice at most.
const RUN_MAX: Duration = Duration::from_secs(240);
/// How long a process that is to be killed is waited for.
const VICTIM_MAX: Duration = Duration::from_secs(3);
/// How often the world is looked at.
const TICK: Duration = Duration::from_millis(50);
/// The payload of a cut upload, in bytes; half of them are sent.
const CUT_BYTES: usize = 400_000;
/// When the first push was made, in seconds since 1970.
const PUSHED_AT: u64 = 1_795_427_000;

/// How a machine differs from others.
#[derive(Default)]
pub(crate) struct Options {
    /// The state folder, where it is not to be with the project.
    pub(crate) state: Option<PathBuf>,
    /// The size of a layer; 0 for the script's own.
    pub(crate) layer_bytes: usize,
}

pub(crate) struct Machine {
    folder: TempDir,
    state: PathBuf,
    port: u16,
    server: Option<Child>,
    last_push: Option<Push>,
}

/// A push, as a provider tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    delivery: String,
    payload: PathBuf,
}

impl Machine {
    pub(crate) fn new(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        fs::create_dir(&project).unwrap();
        let push = root().join("tests/chaos/push.py");
        let layer = match options.layer_bytes {
            0 => String::new(),
            bytes => format!("CHAOS_LAYER_BYTES={bytes} "),
        };
        let buildspec = |what: &str| {
            let command = format!("{layer}python3 {} {what}", push.display());
            json!({"version": 0.2, "phases": {"build": {"commands": [command]}}}).to_string()
        };
        fs::write(project.join("buildspec.yml"), buildspec("image")).unwrap();
        fs::write(project.join("buildspec-manifest.yml"), buildspec("index")).unwrap();
        let image = |name: &str, publisher: &str| {
            format!(
                "[[image]]\nname = \"{name}\"\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n\
                 tags = [\"{{sha7}}\", \"latest\"]\npublisher = \"{publisher}\"\n\
                 supersede = false\nretries = 5\n"
            )
        };
        let config = image(IMAGES[0], "lambda") + &image(IMAGES[1], "build");
        fs::write(project.join("archweld.toml"), config).unwrap();
        let state = options.state.unwrap_or_else(|| folder.path().join("state"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        Self { folder, state, port, server: None, last_push: None }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Starts `archweld up`, and waits until it serves.
    pub(crate) async fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let server = Command::new(binaries().join("archweld"))
            .args(["up", "--port", &self.port.to_string(), "--state"])
            .arg(&self.state)
            .arg("--config")
            .arg(self.folder.path().join("project/archweld.toml"))
            .arg("--template")
            .arg(root().join("infra/template.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut server = server;
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let ended = server.try_wait().unwrap();
            assert!(ended.is_none(), "archweld up ended: {ended:?}\n{}", self.log());
            assert!(began.elapsed() < START_MAX, "archweld up does not listen\n{}", self.log());
            sleep(TICK).await;
        }
        self.server = Some(server);
    }

    /// Kills the server; what it started must be gone with it. Gives how many executions ran.
    pub(crate) async fn kill(&mut self) -> usize {
        let running = self.list(Some(ExecutionStatus::Running)).await.len();
        let mut server = self.server.take().unwrap();
        server.kill().await.unwrap();
        self.assert_no_orphans().await;
        running
    }

    async fn assert_no_orphans(&self) {
        let began = Instant::now();
        loop {
            let left = processes::of(&self.endpoint());
            let Some(first) = left.first() else { return };
            assert!(began.elapsed() < ORPHANS_MAX, "outlives its server: {}", first.command);
            sleep(TICK).await;
        }
    }

    /// Ends the server in order.
    pub(crate) async fn stop(&mut self) {
        let mut server = self.server.take().unwrap();
        let pid = server.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM).unwrap();
        let status = server.wait().await.unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
        assert!(!self.said("panicked"), "{}", self.log());
        assert!(!self.said("could not be read and is left out"), "{}", self.log());
        let left: Vec<String> =
            processes::of(&self.endpoint()).into_iter().map(|process| process.command).collect();
        assert_eq!(left, [""; 0]);
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    /// What the server printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn said(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// Waits until the server has printed something.
    pub(crate) async fn says(&self, text: &str) {
        let began = Instant::now();
        while !self.said(text) {
            assert!(began.elapsed() < START_MAX, "does not say {text:?}\n{}", self.log());
            sleep(TICK).await;
        }
    }

    /// Kills one process of a kind, if there is one; says which.
    pub(crate) fn kill_one(&self, kind: Kind, of: u64) -> String {
        let mut processes = processes::of(&self.endpoint());
        processes.retain(|process| process.kind == kind);
        let Some(nth) = (of as usize).checked_rem(processes.len()) else {
            return "there is none".to_owned();
        };
        processes[nth].kill();
        processes[nth].command.clone()
    }

    /// The same, for which it waits a moment.
    pub(crate) async fn kill_next(&self, kind: Kind, of: u64) -> String {
        let began = Instant::now();
        loop {
            let there = processes::of(&self.endpoint()).iter().any(|process| process.kind == kind);
            if there || began.elapsed() > VICTIM_MAX {
                return self.kill_one(kind, of);
            }
            sleep(TICK).await;
        }
    }

    /// Waits until so many builds run their commands.
    pub(crate) async fn building(&self, builds: usize) {
        let began = Instant::now();
        loop {
            let processes = processes::of(&self.endpoint());
            let pushes = processes.iter().filter(|process| {
                process.kind == Kind::Build && process.command.contains("push.py")
            });
            if pushes.count() >= builds {
                return;
            }
            assert!(began.elapsed() < RUN_MAX, "{builds} builds do not run\n{}", self.log());
            sleep(TICK).await;
        }
    }

    /// Another push to `main`.
    pub(crate) fn push(&mut self, number: u64) -> Push {
        let url = format!("{}/git/project.git", self.endpoint());
        let mut payload = archweld_tests::Push::of(&commit(number), PUSHED_AT + number).payload();
        payload["repository"]["clone_url"] = url.into();
        let path = self.folder.path().join(format!("push-{number}.json"));
        fs::write(&path, payload.to_string()).unwrap();
        let push = Push { delivery: format!("delivery-{number}"), payload: path };
        self.last_push = Some(push.clone());
        push
    }

    pub(crate) fn last_push(&self) -> Push {
        self.last_push.clone().unwrap()
    }

    /// Sends the webhook of a push; gives the executions that it started.
    pub(crate) async fn deliver(&self, push: &Push) -> Vec<String> {
        self.try_deliver(push).await.unwrap_or_else(|said| panic!("{said}\n{}", self.log()))
    }

    /// The same, which may be refused. As providers do, it is sent again where that can help.
    pub(crate) async fn try_deliver(&self, push: &Push) -> Result<Vec<String>, String> {
        let output = Command::new(binaries().join("archweld"))
            .args(["trigger", "--provider", "github", "--delivery", &push.delivery])
            .args(["--port", &self.port.to_string(), "--payload"])
            .arg(&push.payload)
            .arg("--template")
            .arg(root().join("infra/template.yaml"))
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(said + &String::from_utf8_lossy(&output.stderr));
        }
        let answer: Value = serde_json::from_str(&said).map_err(|_| said)?;
        let started = answer["started"].as_array().unwrap().iter();
        Ok(started.map(|run| run["execution"].as_str().unwrap().to_owned()).collect())
    }

    /// Kills the server while it is told of a push, and starts another; gives the answer.
    pub(crate) async fn deliver_and_kill(&mut self, push: &Push, wait: Duration) -> String {
        let mut server = self.server.take().unwrap();
        let (answer, ()) = tokio::join!(self.try_deliver(push), async {
            sleep(wait).await;
            server.kill().await.unwrap();
        });
        self.assert_no_orphans().await;
        self.start().await;
        match answer {
            Ok(started) => format!("{} executions were confirmed", started.len()),
            Err(_) => "no answer".to_owned(),
        }
    }

    /// Sends half of a layer and hangs up; nothing of it may ever be served.
    pub(crate) async fn cut_upload(&self, of: u64) -> String {
        let content: Vec<u8> = of.to_le_bytes().into_iter().cycle().take(CUT_BYTES).collect();
        let digest = Digest::of(&content);
        let image = IMAGES[0];
        let login = self.login().await;
        let begin = self
            .http("POST", &format!("/v2/{image}/blobs/uploads/"), &login, b"", 0)
            .await
            .expect("an upload begins");
        let location = begin.header("location").unwrap().to_owned();
        let answer =
            self.http("PATCH", &location, &login, &content[..CUT_BYTES / 2], CUT_BYTES).await;
        assert!(answer.is_none(), "half a body has no answer");
        let blob = self.get(&format!("/v2/{image}/blobs/{digest}")).await;
        assert_eq!(blob.status, 404, "half a blob");
        format!("of {digest}")
    }

    async fn login(&self) -> String {
        let answer = self.ecr().get_authorization_token().send().await.unwrap();
        let token = answer.authorization_data().first().unwrap().authorization_token().unwrap();
        format!("Authorization: Basic {token}\r\n")
    }

    /// What a path of the registry holds.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.http("GET", path, "", b"", 0).await.expect("an answer")
    }

    /// One request on a connection of its own, which is shut once `body` is sent: it may promise more
    /// than that.
    async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
        promised: usize,
    ) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\
             Accept: */*\r\nContent-Length: {promised}\r\n{headers}\r\n",
            self.port
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        if body.len() < promised {
            return None;
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().unwrap();
        Some(Answer { status, head, body: answer.split_off(end + 4) })
    }

    fn sfn(&self) -> aws_sdk_sfn::Client {
        let config = aws_sdk_sfn::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(self.endpoint());
        aws_sdk_sfn::Client::from_conf(config.build())
    }

    pub(crate) fn ecr(&self) -> aws_sdk_ecr::Client {
        let config = aws_sdk_ecr::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(self.endpoint());
        aws_sdk_ecr::Client::from_conf(config.build())
    }

    /// All executions.
    pub(crate) async fn executions(&self) -> Vec<String> {
        self.list(None).await
    }

    async fn list(&self, status: Option<ExecutionStatus>) -> Vec<String> {
        let machine =
            format!("arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:archweld-multi-arch-build");
        let list = self.sfn().list_executions().state_machine_arn(machine);
        let list = list.set_status_filter(status).max_results(1000).send().await.unwrap();
        list.executions.into_iter().map(|execution| execution.execution_arn).collect()
    }

    /// Waits for the end of an execution, which comes within its time.
    pub(crate) async fn ended(&self, execution: &str) -> Run {
        let (sfn, began) = (self.sfn(), Instant::now());
        loop {
            let described = sfn.describe_execution().execution_arn(execution).send().await.unwrap();
            if described.status != ExecutionStatus::Running {
                let history = sfn.get_execution_history().execution_arn(execution);
                let history = history.max_results(1000).send().await.unwrap();
                return Run::new(&described, &history.events);
            }
            assert!(began.elapsed() < RUN_MAX, "{execution} does not end\n{}", self.log());
            sleep(TICK).await;
        }
    }

    /// What the builds of a run printed.
    pub(crate) async fn build_logs(&self, run: &Run) -> String {
        let mut logs = String::new();
        for entry in fs::read_dir(self.state.join("codebuild/builds")).unwrap() {
            let record = entry.unwrap().path();
            if fs::read_to_string(&record).unwrap().contains(&run.name) {
                let log = record.file_stem().unwrap().to_str().unwrap().to_owned() + ".log";
                logs += &fs::read_to_string(self.state.join("codebuild/logs").join(log)).unwrap();
            }
        }
        logs
    }

    /// Waits until nothing is under way any more: no build, no event, no invocation.
    pub(crate) async fn settled(&self) {
        let began = Instant::now();
        loop {
            let builds = processes::of(&self.endpoint());
            let builds = builds.iter().filter(|process| process.kind == Kind::Build).count();
            let under_way: Vec<usize> =
                ["events", "lambda", "work"].map(|name| files(&self.state.join(name)).len()).into();
            if builds == 0 && under_way.iter().all(|files| *files == 0) {
                return;
            }
            assert!(
                began.elapsed() < RUN_MAX,
                "{builds} processes of builds, files {under_way:?} under way\n{}",
                self.log()
            );
            sleep(TICK).await;
        }
    }

    /// After a start nothing that was being written is left, and no upload.
    pub(crate) fn assert_nothing_half_written(&self) {
        assert_eq!(files(&self.state.join("registry/uploads")), Vec::<PathBuf>::new());
        let half = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(".tmp") || name.ends_with(".new")
        };
        let left: Vec<PathBuf> = files(&self.state).into_iter().filter(half).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("archweld up said:\n{}", self.log());
        }
    }
}

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
