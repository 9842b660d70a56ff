//! One world: a cloud, what people do to it, and its end.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use archweld_cloud::{Builds, Cloud, Functions, OpenError, Seams, Settings};
use archweld_git::Provider;
use archweld_lambda::InProcessHandler;
use archweld_local_api::Host;
use archweld_model::{Config, Digest, RepositoryName};
use archweld_registry::TagMutability;
use archweld_template::{Definition as DefinitionText, Deployment, Stack};
use aws_sdk_sfn::Client;
use bytes::Bytes;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    builds::SimulatedBuilds,
    checks::Model,
    events,
    faults::{Fault, FaultPlan, mix, unit},
    functions, lambdas,
    logs::Logs,
    network::Network,
    state::{Event, Injected, Planned, Shared, Violation, between_ms},
};

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";
const STACK: &str = "archweld";
/// The period of the template's `ReconcileSchedule`.
const RECONCILE_PERIOD: Duration = Duration::from_mins(5);
/// How long a pass takes at most where nothing fails.
const PASS_MAX: Duration = Duration::from_mins(3);
/// How many builds CodeBuild runs at a time.
const BUILDS_MAX: usize = 16;
/// How long people are at work.
const AT_WORK_MS: u64 = 20 * 60 * 1_000;
/// How long nothing happens before it is over: longer than Lambda waits before it tries again.
const QUIET: Duration = Duration::from_mins(5);
/// How long before the nightly schedule's time a world begins, at most.
const BEFORE_NIGHT_MS: u64 = 10 * 60 * 1_000;

/// What is built: one image whose index a build makes and whose newer pushes stop older runs, and one
/// that `publish` makes, whose runs all go on. Short time-outs make short worlds.
const CONFIG: &str = r#"
[[image]]
name = "hello"
platforms = ["linux/amd64", "linux/arm64"]
tags = ["{sha7}", "latest", "{branch}"]
refs = ["main", "release"]
schedule = "nightly"
build_timeout_minutes = 6
queue_timeout_minutes = 5

[[image]]
name = "tools"
platforms = ["linux/amd64", "linux/arm64"]
tags = ["{sha7}", "latest", "{branch}"]
refs = ["main", "release"]
publisher = "lambda"
supersede = false
schedule = "nightly"
build_timeout_minutes = 6
queue_timeout_minutes = 5
"#;
const REPOSITORIES: [&str; 2] = ["hello", "tools"];
/// The repository whose tags ECR keeps in place, but for these.
pub(crate) const IMMUTABLE: &str = "tools";
const MOVING_TAGS: [&str; 4] = ["archweld.*", "latest", "main", "release"];
const REFS: [&str; 2] = ["main", "release"];

/// What is put in place of parts of archweld, to show that the simulation finds what is wrong with
/// it. Shipped code puts nothing.
#[derive(Clone, Default)]
pub struct Alterations {
    /// Gives another handler for a function, by the name of its binary.
    pub handler: Option<Arc<AlterHandler>>,
    /// Gives another text of the state machine's definition.
    pub definition: Option<fn(String) -> String>,
}

/// Takes a binary's name, its handler and a configuration for clients of its own.
pub type AlterHandler =
    dyn Fn(&str, InProcessHandler, &aws_types::SdkConfig) -> InProcessHandler + Send + Sync;

/// Why there is no world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The template or the configuration cannot be written down.
    #[error("write the simulated deployment")]
    Write(#[from] io::Error),
    /// The template or the definition is wrong.
    #[error("open the simulated cloud")]
    Open(#[from] OpenError),
    /// The deployment is not what the simulation expects.
    #[error("simulated deployment: {0}")]
    Deployment(String),
}

/// What came of a world.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How many executions began and ended in it.
    pub runs: u32,
    /// How many of them published.
    pub published: u32,
    /// How many calls of AWS APIs were made in it.
    pub calls: u64,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// What happened, where it was asked for.
    pub trace: Vec<Event>,
    pub(crate) injected: Vec<Injected>,
}

/// The deployment that every world of this process has.
pub(crate) struct Fixture {
    folder: PathBuf,
    stack: Stack,
    config: Config,
    /// How long an execution may take.
    pub(crate) time_max: SignedDuration,
    /// How long `publish` may take.
    publish_max: SignedDuration,
}

impl Fixture {
    /// Written once: it is the same for every world.
    pub(crate) fn get() -> Result<&'static Self, WorldError> {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        match FIXTURE.get() {
            Some(fixture) => Ok(fixture),
            None => {
                let fixture = Self::new()?;
                Ok(FIXTURE.get_or_init(|| fixture))
            }
        }
    }

    fn new() -> Result<Self, WorldError> {
        let wrong = |problem: String| WorldError::Deployment(problem);
        let files = [
            ("infra/archweld.toml", CONFIG),
            ("infra/template.yaml", include_str!("../../../infra/template.yaml")),
            (
                "state-machine/multi-arch-build.asl.json",
                include_str!("../../../state-machine/multi-arch-build.asl.json"),
            ),
        ];
        // One folder for all processes that simulate the same.
        let of_all = Digest::of(files.map(|(_, text)| text).concat().as_bytes()).to_string();
        let name = format!("archweld-simulation-{}", of_all.replace(':', "-"));
        let folder = std::env::temp_dir().join(name);
        for (path, text) in files {
            ensure_file(&folder.join(path), text)?;
        }
        let infra = folder.join("infra");
        let deployment = Deployment {
            stack_name: STACK.to_owned(),
            account: ACCOUNT.to_owned(),
            region: REGION.to_owned(),
            parameters: BTreeMap::new(),
        };
        let read = Stack::read(&infra.join("template.yaml"), &deployment);
        let mut stack = read.map_err(|error| wrong(error.to_string()))?;
        let config = Config::parse(CONFIG).map_err(|error| wrong(error.to_string()))?;
        let mut time_max = SignedDuration::ZERO;
        for state_machine in &mut stack.state_machines {
            let text = state_machine.definition_text().map_err(|error| wrong(error.to_string()))?;
            let definition = archweld_states::Definition::parse(&text)
                .map_err(|errors| wrong(errors.to_string()))?;
            let timeout = config.images().iter().map(|image| image.task_timeout_seconds()).max();
            let bound = definition.time_max(&|_| timeout);
            let bound = bound.ok_or_else(|| wrong("executions may last for ever".to_owned()))?;
            time_max = time_max.max(bound.try_into().unwrap_or(SignedDuration::MAX));
            // The substitutions are made once.
            let value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            state_machine.definition = DefinitionText::Inline(value);
            state_machine.substitutions.clear();
        }
        let publish = stack.functions.iter().find(|function| function.binary == "publish");
        let publish_max = publish.map(|function| function.timeout.try_into().unwrap_or_default());
        let publish_max = publish_max.unwrap_or_default();
        Ok(Self { folder, stack, config, time_max, publish_max })
    }
}

/// Writes a file unless it is there, whole at once: others may do the same.
fn ensure_file(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// Something that a person, a provider or a schedule does.
#[derive(Debug, Clone)]
enum Action {
    Push { number: u64, at_ms: u64, burst: Option<Planned> },
    Redeliver { number: u64, fault: Planned },
    Forge { number: u64, fault: Planned },
    Console,
    StopExecution { fault: Planned },
    Redrive { fault: Planned },
    TakeMachines { fault: Planned },
    FireAgain { fault: Planned },
    Rerun { number: u64, fault: Planned },
}

/// Everything that happens follows from the seed and the plan.
///
/// # Errors
/// When the deployment cannot be opened, which has nothing to do with the seed.
pub fn simulate(
    seed: u64,
    plan: &FaultPlan,
    alterations: &Alterations,
    traced: bool,
) -> Result<Outcome, WorldError> {
    let fixture = Fixture::get()?;
    // The SDK draws the waits between its tries from here.
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let world = World::open(fixture, seed, plan, alterations, traced).await?;
        let logs = Logs { shared: world.shared.clone() };
        let _until_the_end = tracing::subscriber::set_default(logs);
        world.live().await;
        Ok(world.end())
    })
}

struct World {
    shared: Shared,
    network: Network,
    cloud: Cloud,
    sfn: Client,
    seed: u64,
    /// How far the clock of whoever pushes is ahead, and why.
    skew_seconds: i64,
    skew: Option<Planned>,
    state_machine: String,
    trigger_run: String,
}

impl World {
    async fn open(
        fixture: &Fixture,
        seed: u64,
        plan: &FaultPlan,
        alterations: &Alterations,
        traced: bool,
    ) -> Result<Self, WorldError> {
        let night: i64 =
            "2026-11-24T03:00:00Z".parse::<Timestamp>().map_or(0, |it| it.as_millisecond());
        let before = unit(mix(seed, 1, 0)) * BEFORE_NIGHT_MS as f64;
        let origin = Timestamp::from_millisecond(night - before as i64).unwrap_or_default();
        let host = Host::seeded(ACCOUNT, REGION, origin, seed);
        let times = (fixture.time_max, fixture.publish_max);
        let model = Model::new(fixture.config.clone(), times, origin);
        let shared = Shared::new(host.clone(), seed, plan.clone(), traced, model);
        let skew = shared.plan(Fault::ClockSkew);
        let skew_seconds = skew.map_or(0, |skew| ((skew.size * 2.0 - 1.0) * 20.0) as i64);
        let network = Network::new(shared.clone());
        let builds = Arc::new(SimulatedBuilds {
            shared: shared.clone(),
            network: network.clone(),
            registry: OnceLock::new(),
        });
        let mut stack = fixture.stack.clone();
        if let Some(alter) = alterations.definition {
            for state_machine in &mut stack.state_machines {
                let text = state_machine.definition_text().unwrap_or_default();
                let value = serde_json::from_str(&alter(text)).unwrap_or_default();
                state_machine.definition = DefinitionText::Inline(value);
            }
        }
        let (of_functions, of_events, of_tasks) = (shared.clone(), shared.clone(), shared.clone());
        let (on, alter) = (network.clone(), alterations.handler.clone());
        let functions = Functions::InProcess(Box::new(move |function, environment, config| {
            let config = on.config(config);
            let mut handler = functions::in_process(function, environment, &config);
            if let Some(alter) = &alter {
                handler = alter(&function.binary, handler, &config);
            }
            lambdas::wrap(of_functions.clone(), &function.binary, handler)
        }));
        let seams = Seams {
            stack: Some(stack),
            events: Box::new(move |sink| events::wrap(of_events, sink)),
            integrations: Box::new(move |inner| {
                Arc::new(lambdas::Tasks { shared: of_tasks, inner })
            }),
            codebuild: archweld_codebuild::Settings {
                concurrent_builds_max: BUILDS_MAX,
                queued_builds_max: 5 * BUILDS_MAX,
                folder: None,
            },
            codebuild_ahead: SignedDuration::from_secs(skew_seconds),
        };
        let settings = Settings {
            host,
            template: fixture.folder.join("infra/template.yaml"),
            stack_name: STACK.to_owned(),
            parameters: BTreeMap::new(),
            layers: BTreeMap::from([("ConfigLayer".to_owned(), fixture.folder.join("infra"))]),
            state: None,
            port: None,
            registry_bytes_max: None,
            git: None,
            functions,
            builds: Builds::Worker(builds.clone()),
        };
        let cloud = Cloud::open_with(settings, seams).await?;
        for name in REPOSITORIES {
            let name: RepositoryName = name
                .parse()
                .map_err(|error| WorldError::Deployment(format!("repository {name}: {error}")))?;
            cloud.ensure_repository(&name).await?;
            if name.as_str() == IMMUTABLE {
                let but = MOVING_TAGS.map(str::to_owned).to_vec();
                let kept = TagMutability::ImmutableWithExclusion(but);
                let set = cloud.registry().set_tag_mutability(&name, kept).await;
                set.map_err(|error| WorldError::Deployment(format!("{name}: {error}")))?;
            }
        }
        drop(builds.registry.set(cloud.registry().clone()));
        let stack = cloud.stack();
        let state_machine = stack.state_machines.first().map(|it| it.arn.clone());
        let functions = &stack.functions;
        let trigger_run = functions.iter().find(|function| function.binary == "trigger-run");
        let trigger_run = trigger_run.map(|function| function.name.clone());
        let sfn = Client::new(&network.config(&cloud.sdk_config()));
        let missing = || WorldError::Deployment("trigger-run or the state machine".to_owned());
        let world = Self {
            sfn,
            seed,
            skew_seconds,
            skew,
            state_machine: state_machine.ok_or_else(missing)?,
            trigger_run: trigger_run.ok_or_else(missing)?,
            shared,
            network,
            cloud,
        };
        let secret = world.secret().await;
        world.shared.state().model.secret = secret;
        Ok(world)
    }

    /// People work, schedules fire; then all comes to its end.
    async fn live(&self) {
        let actions = self.actions();
        let work = actions.into_iter().map(|(at, action)| async move {
            tokio::time::sleep(at).await;
            self.act(action).await;
        });
        futures_util::future::join_all(work).await;
        // What is asynchronous may still start a run, such as a retry.
        let bound: Duration =
            Fixture::get().map_or(Duration::ZERO, |it| it.time_max.try_into().unwrap_or_default());
        let deadline = tokio::time::Instant::now() + bound + bound;
        let mut quiet = Duration::ZERO;
        while quiet < QUIET && !self.shared.is_violated() {
            let step = Duration::from_mins(1);
            tokio::time::sleep(step).await;
            quiet = if self.shared.is_busy() { Duration::ZERO } else { quiet + step };
            if tokio::time::Instant::now() > deadline {
                break;
            }
        }
        // From now on all goes well: what is left to put right is put right.
        self.shared.end_faults();
        tokio::time::sleep(RECONCILE_PERIOD + PASS_MAX).await;
        if !self.shared.is_violated() {
            self.check_end().await;
        }
    }

    async fn check_end(&self) {
        for repository in REPOSITORIES {
            let Ok(name) = repository.parse::<RepositoryName>() else { continue };
            let tags = self.cloud.registry().tags(&name).unwrap_or_default();
            let tags: BTreeMap<String, String> = tags
                .into_iter()
                .map(|(tag, digest)| (tag.to_string(), digest.to_string()))
                .collect();
            self.shared.check(|model, now| model.at_end(repository, &tags, now));
        }
    }

    fn end(self) -> Outcome {
        if let Some(fault) = self.skew {
            self.shared.hit(fault, Model::all_runs);
        }
        let mut state = self.shared.state();
        let executions = state.model.executions.values();
        let published = executions.filter(|execution| execution.digest().is_some()).count();
        let ended = state.model.executions.values().filter(|it| it.ended.is_some()).count();
        Outcome {
            runs: u32::try_from(ended).unwrap_or(u32::MAX),
            published: u32::try_from(published).unwrap_or(u32::MAX),
            calls: state.calls,
            violation: state.violation.take(),
            trace: state.trace.take().unwrap_or_default(),
            injected: std::mem::take(&mut state.injected),
        }
    }

    /// What people do, and when.
    fn actions(&self) -> Vec<(Duration, Action)> {
        let shared = &self.shared;
        let mut actions = Vec::new();
        let pushes = 6 + (shared.draw() * 6.0) as u64;
        let mut number = 0;
        let mut push = |at: Duration, burst, actions: &mut Vec<(Duration, Action)>| {
            number += 1;
            let at_ms = u64::try_from(at.as_millis()).unwrap_or_default();
            actions.push((at, Action::Push { number, at_ms, burst }));
            if let Some(fault) = shared.plan(Fault::WebhookRedelivered) {
                // Most within minutes, a few after the run is over.
                let later = between_ms(fault.size.powi(3), 200, 1_200_000);
                actions.push((at + later, Action::Redeliver { number, fault }));
            }
            if let Some(fault) = shared.plan(Fault::SignatureForged) {
                actions.push((at, Action::Forge { number, fault }));
            }
            if let Some(fault) = shared.plan(Fault::ExecutionStopped) {
                let later = between_ms(fault.size, 2_000, 400_000);
                actions.push((at + later, Action::StopExecution { fault }));
            }
            if let Some(fault) = shared.plan(Fault::ExecutionRedriven) {
                let later = between_ms(fault.size, 30_000, 1_200_000);
                actions.push((at + later, Action::Redrive { fault }));
            }
            if let Some(fault) = shared.plan(Fault::Rerun) {
                let later = between_ms(fault.size, 60_000, 900_000);
                actions.push((at + later, Action::Rerun { number, fault }));
            }
            if let Some(fault) = shared.plan(Fault::BuildQueued) {
                actions.push((at, Action::TakeMachines { fault }));
            }
        };
        for _ in 0..pushes {
            let at = shared.draw_ms(0, AT_WORK_MS);
            let burst = shared.plan(Fault::Burst);
            push(at, burst, &mut actions);
            if let Some(fault) = burst {
                for _ in 0..2 + (fault.size * 3.0) as u64 {
                    push(at + shared.draw_ms(0, 8_000), burst, &mut actions);
                }
            }
        }
        if shared.draw() < 0.4 {
            actions.push((shared.draw_ms(0, AT_WORK_MS), Action::Console));
        }
        if let Some(fault) = shared.plan(Fault::ScheduleDoubled) {
            let night = Duration::from_millis(BEFORE_NIGHT_MS);
            actions.push((night + between_ms(fault.size, 1, 900_000), Action::FireAgain { fault }));
        }
        actions
    }

    async fn act(&self, action: Action) {
        self.shared.trace(|| ("world".to_owned(), format!("{action:?}")));
        match action {
            Action::Push { number, at_ms, burst } => {
                let (git_ref, commit) = (self.git_ref(number), self.commit(number));
                self.network.set_head(&git_ref, &commit);
                let payload = self.payload(number, at_ms);
                drop(self.deliver(number, &payload, None).await);
                if let Some(fault) = burst {
                    self.shared.hit(fault, |model| model.runs_of(&commit));
                }
            }
            Action::Redeliver { number, fault } => {
                // The same payload as before, whenever.
                let at_ms = self.actions_at(number);
                let payload = self.payload(number, at_ms);
                drop(self.deliver(number, &payload, None).await);
                self.shared.hit(fault, |model| model.runs_of(&self.commit(number)));
            }
            Action::Forge { number, fault } => {
                let payload = self.payload(1_000 + number, 0);
                self.shared.state().model.forged.insert(self.commit(1_000 + number));
                let (status, answer) =
                    self.deliver(1_000 + number, &payload, Some("a guess")).await;
                self.shared.check(|model, _| model.forged_answered(status, &answer));
                self.shared.hit(fault, |model| model.runs(None));
            }
            Action::Console => self.start("console", "{}").await,
            Action::StopExecution { fault } => {
                let arn = pick(self.shared.state().model.running(), fault.size)
                    .map(|(arn, _)| arn.clone());
                if let Some(arn) = arn {
                    self.shared.hit(fault, |model| model.runs(Some(&arn)));
                    drop(self.sfn.stop_execution().execution_arn(arn).send().await);
                }
            }
            Action::Redrive { fault } => {
                let arn = pick(self.shared.state().model.unsuccessful(), fault.size).cloned();
                if let Some(arn) = arn {
                    self.shared.hit(fault, |model| model.runs(Some(&arn)));
                    drop(self.sfn.redrive_execution().execution_arn(arn).send().await);
                }
            }
            Action::TakeMachines { fault } => {
                for _ in 0..BUILDS_MAX {
                    let start = json!({"projectName": "archweld-amd64"});
                    drop(self.cloud.codebuild().call("StartBuild", start).await);
                }
                self.shared.hit(fault, |model| model.runs(None));
            }
            Action::FireAgain { fault } => {
                let slot = "2026-11-24T03:00:00Z".parse().unwrap_or_default();
                drop(self.cloud.scheduler().fire("archweld-nightly", slot).await);
                self.shared.hit(fault, |model| model.runs(None));
            }
            Action::Rerun { number, fault } => {
                let input = {
                    let state = self.shared.state();
                    let mut all: Vec<_> = state.model.executions.values().collect();
                    all.sort_by_key(|execution| execution.number);
                    pick(all.into_iter(), fault.size).map(|execution| {
                        let mut input = execution.input.clone();
                        // What starts it is no delivery.
                        if let Some(trigger) = input["trigger"].as_object_mut() {
                            trigger.remove("id");
                        }
                        input.to_string()
                    })
                };
                if let Some(input) = input {
                    let name = format!("rerun-{number}");
                    self.start(&name, &input).await;
                    self.shared.hit(fault, |model| model.runs_named(&name));
                }
            }
        }
    }

    async fn start(&self, name: &str, input: &str) {
        let start = self.sfn.start_execution().state_machine_arn(&self.state_machine);
        drop(start.name(name).input(input).send().await);
    }

    fn git_ref(&self, number: u64) -> String {
        let at = (unit(mix(self.seed, 2, number)) * 1.4) as usize;
        format!("refs/heads/{}", REFS[at.min(1)])
    }

    fn commit(&self, number: u64) -> String {
        let of = format!("{} {number}", self.seed);
        let digest = Digest::of(of.as_bytes()).to_string();
        digest["sha256:".len()..].chars().take(40).collect()
    }

    /// When a push was made, in milliseconds after the world began.
    fn actions_at(&self, number: u64) -> u64 {
        self.shared.state().model.pushes.get(&number).copied().unwrap_or_default()
    }

    /// A push as GitHub tells of it
    /// (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>).
    fn payload(&self, number: u64, at_ms: u64) -> Value {
        self.shared.state().model.pushes.insert(number, at_ms);
        let began = self.shared.state().model.origin;
        let pushed_at = began.as_second() + i64::try_from(at_ms / 1_000).unwrap_or_default();
        let pushed_at = pushed_at + self.skew_seconds;
        let time = Timestamp::from_second(pushed_at).unwrap_or_default();
        let commit = json!({
            "id": self.commit(number), "timestamp": time.to_string(), "message": "a change",
            "added": [], "removed": [], "modified": ["Dockerfile"],
        });
        json!({
            "ref": self.git_ref(number), "before": self.commit(number.saturating_sub(1)),
            "after": self.commit(number),
            "created": false, "deleted": false, "forced": false, "base_ref": null,
            "repository": {
                "full_name": "archweld/hello",
                "clone_url": "https://github.com/archweld/hello.git",
                "pushed_at": pushed_at, "default_branch": "main",
            },
            "pusher": {"name": "kim"},
            "head_commit": commit,
            "commits": [commit],
        })
    }

    async fn secret(&self) -> String {
        let Some(secret) = self.cloud.stack().secrets.first() else { return String::new() };
        let secret = json!({"SecretId": secret.settings.arn});
        let secret = self.cloud.secrets().call("GetSecretValue", secret).await;
        let secret = secret.unwrap_or_default();
        secret["SecretString"].as_str().unwrap_or_default().to_owned()
    }

    /// Delivers a webhook; gives the status and the answer. A provider tries again where there is no
    /// answer.
    async fn deliver(&self, number: u64, payload: &Value, secret: Option<&str>) -> (u16, String) {
        let body = Bytes::from(payload.to_string());
        let own = self.shared.state().model.secret.clone();
        let secret = secret.unwrap_or(&own).as_bytes();
        let delivery = delivery(self.seed, number);
        let mut last = (0, String::new());
        for _ in 0..2 {
            let mut request = Request::post("/");
            for (name, value) in Provider::GitHub.headers("push", &delivery, secret, &body) {
                request = request.header(name, value);
            }
            let Ok(request) = request.body(body.clone()) else { break };
            let answer = self.cloud.lambda().handle_url(&self.trigger_run, "/", request).await;
            let text = String::from_utf8_lossy(answer.body()).into_owned();
            last = (answer.status().as_u16(), text);
            if last.0 < 500 {
                break;
            }
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        last
    }
}

/// One of these, by a number from 0 to 1; none of none.
fn pick<T>(from: impl Iterator<Item = T>, number: f64) -> Option<T> {
    let mut all: Vec<T> = from.collect();
    let at = (number * all.len() as f64) as usize;
    (at < all.len()).then(|| all.swap_remove(at))
}

fn delivery(seed: u64, number: u64) -> String {
    let bits = mix(seed, 3, number);
    format!("{:08x}-{:04x}-4000-8000-{bits:012x}", bits as u32, number as u16)
}
