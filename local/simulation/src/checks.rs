//! The invariants: a model of what was asked for and built, held against what archweld does.
//!
//! The model learns only from outside: which builds pushed which images, what Step Functions says of
//! executions, which tags were put. It shares no code with what it checks but the names of things.
//!
//! Numbers are those of the invariants in `docs/reliability.md`.

use std::collections::{BTreeMap, BTreeSet};

use archweld_model::{Config, ImageConfig, variable};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    state::{Runs, short},
    world::IMMUTABLE,
};

/// What is wrong, and the number of the invariant.
type Checked = Result<(), (u8, String)>;

/// How long before a pass is due something must have happened for the pass to put it right.
const SETTLED: SignedDuration = SignedDuration::from_secs(100);

pub(crate) struct Model {
    config: Config,
    /// How long an execution may take, from the definition.
    bound: SignedDuration,
    /// How long `publish` may take.
    publish_max: SignedDuration,
    pub(crate) executions: BTreeMap<String, Execution>,
    pub(crate) builds: BTreeMap<String, Build>,
    /// The task tokens, and the builds that carry them.
    tokens: BTreeMap<String, String>,
    /// The images that builds pushed, by digest.
    pushed: BTreeMap<String, Pushed>,
    /// When each digest or tag was pushed by a build.
    pub(crate) pushed_at: BTreeMap<String, Timestamp>,
    /// Indexes that were looked at, each with the name of the run whose images it holds.
    indexes: BTreeMap<(String, String), String>,
    /// What each tag that never moves is at, and since when it has been set.
    fixed: BTreeMap<(String, String), (String, Timestamp)>,
    /// What was told of user failures: execution and target.
    failed: BTreeSet<(String, String)>,
    /// How many infrastructure failures were told, by execution and target.
    infrastructure: BTreeMap<(String, String), u32>,
    deliveries: BTreeMap<(String, String), String>,
    /// The commits of deliveries that were forged.
    pub(crate) forged: BTreeSet<String>,
    /// What must appear nowhere.
    pub(crate) secret: String,
    /// When the world began.
    pub(crate) origin: Timestamp,
    /// When each push was made, in milliseconds after that.
    pub(crate) pushes: BTreeMap<u64, u64>,
}

pub(crate) struct Execution {
    /// Its number among those of the world.
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) began: Timestamp,
    /// When it last went on after its end.
    redriven: Option<Timestamp>,
    pub(crate) ended: Option<Ended>,
    pub(crate) input: Value,
}

pub(crate) struct Ended {
    pub(crate) at: Timestamp,
    pub(crate) status: String,
    pub(crate) output: Value,
}

/// How a build really ended, whatever anybody makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    Pushed,
    UsersFault,
    NotUsersFault,
}

pub(crate) struct Build {
    execution: String,
    target: String,
    pub(crate) began: Timestamp,
    pub(crate) is_running: bool,
    pub(crate) truth: Option<Truth>,
}

struct Pushed {
    execution: String,
    platform: String,
}

/// An index, as far as it is looked at.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    platform: Option<EntryPlatform>,
}

#[derive(Deserialize)]
struct EntryPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl EntryPlatform {
    fn name(&self) -> String {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            // As containerd normalises it.
            ("arm64", Some("v8")) | (_, None) => format!("{}/{}", self.os, self.architecture),
            (architecture, Some(variant)) => format!("{}/{architecture}/{variant}", self.os),
        }
    }
}

/// What kind of tag it is.
enum Kind {
    Own,
    Fixed,
    Moving,
    Marker,
    OfPlatform,
}

impl Model {
    pub(crate) fn new(
        config: Config,
        (bound, publish_max): (SignedDuration, SignedDuration),
        origin: Timestamp,
    ) -> Self {
        Self {
            config,
            bound,
            publish_max,
            executions: BTreeMap::new(),
            builds: BTreeMap::new(),
            tokens: BTreeMap::new(),
            pushed: BTreeMap::new(),
            pushed_at: BTreeMap::new(),
            indexes: BTreeMap::new(),
            fixed: BTreeMap::new(),
            failed: BTreeSet::new(),
            infrastructure: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            forged: BTreeSet::new(),
            secret: String::new(),
            origin,
            pushes: BTreeMap::new(),
        }
    }

    /// The runs that something concerns: one, or all that run now.
    pub(crate) fn runs(&self, execution: Option<&str>) -> Runs {
        match execution {
            Some(arn) => self.executions.get(arn).map(|it| it.number).into_iter().collect(),
            None => self.running().map(|(_, execution)| execution.number).collect(),
        }
    }

    /// The runs of a commit.
    pub(crate) fn runs_of(&self, commit: &str) -> Runs {
        let of_it = self.executions.values().filter(|it| it.input["commit"] == commit);
        of_it.map(|execution| execution.number).collect()
    }

    /// The executions that ended without success.
    pub(crate) fn unsuccessful(&self) -> impl Iterator<Item = &String> {
        let is_unsuccessful =
            |it: &Execution| it.ended.as_ref().is_some_and(|ended| ended.status != "SUCCEEDED");
        self.executions.iter().filter(move |(_, it)| is_unsuccessful(it)).map(|(arn, _)| arn)
    }

    /// The runs of a name.
    pub(crate) fn runs_named(&self, name: &str) -> Runs {
        let named = self.executions.values().filter(|it| it.name == name);
        named.map(|execution| execution.number).collect()
    }

    pub(crate) fn all_runs(&self) -> Runs {
        self.executions.values().map(|execution| execution.number).collect()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (&String, &Execution)> {
        self.executions.iter().filter(|(_, execution)| execution.ended.is_none())
    }

    /// `Step Functions Execution Status Change`.
    pub(crate) fn execution_changed(&mut self, detail: &Value, now: Timestamp) -> Checked {
        let text = |field: &str| detail[field].as_str().unwrap_or_default();
        let arn = text("executionArn");
        if text("status") == "RUNNING" {
            if self.executions.contains_key(arn) {
                self.execution_redriven(arn, now);
                return Ok(());
            }
            return self.execution_began(arn, text("name"), text("input"), now);
        }
        let output = serde_json::from_str(detail["output"].as_str().unwrap_or("null"));
        let Some(execution) = self.executions.get_mut(arn) else { return Ok(()) };
        let took = now.duration_since(execution.redriven.unwrap_or(execution.began));
        execution.ended = Some(Ended {
            at: now,
            status: text("status").to_owned(),
            output: output.unwrap_or_default(),
        });
        if took > self.bound {
            let (name, bound) = (short(arn), self.bound);
            return Err((6, format!("{name} took {took:#}, its bound is {bound:#}")));
        }
        for field in ["error", "cause", "output"] {
            self.look_for_secrets(|| format!("the {field} of {}", short(arn)), text(field))?;
        }
        Ok(())
    }

    fn execution_began(&mut self, arn: &str, name: &str, input: &str, now: Timestamp) -> Checked {
        let number = u32::try_from(self.executions.len()).unwrap_or(u32::MAX);
        let input: Value = serde_json::from_str(input).unwrap_or_default();
        let trigger = &input["trigger"];
        let id = trigger["id"].as_str().unwrap_or_default().to_owned();
        let image = input["image"].as_str().unwrap_or_default().to_owned();
        let is_own = trigger["kind"].is_string() && !id.is_empty();
        let is_forged = input["commit"].as_str().is_some_and(|it| self.forged.contains(it));
        let execution = Execution {
            number,
            name: name.to_owned(),
            began: now,
            redriven: None,
            ended: None,
            input,
        };
        self.executions.insert(arn.to_owned(), execution);
        self.look_for_secrets(|| "an execution's name".to_owned(), name)?;
        if is_forged {
            return Err((10, format!("{name} was started by a forged delivery")));
        }
        if is_own && let Some(first) = self.deliveries.insert((id.clone(), image), name.to_owned())
        {
            return Err((8, format!("delivery {id} started {first} and {name}")));
        }
        Ok(())
    }

    /// What ended goes on: whoever has it go on wants what failed to be built again.
    fn execution_redriven(&mut self, arn: &str, now: Timestamp) {
        if let Some(execution) = self.executions.get_mut(arn) {
            execution.redriven = Some(now);
            execution.ended = None;
        }
        self.failed.retain(|(of, _)| of != arn);
        self.infrastructure.retain(|(of, _), _| of != arn);
    }

    /// `CodeBuild Build State Change`.
    pub(crate) fn build_changed(&mut self, detail: &Value, now: Timestamp) -> Checked {
        let id = detail["build-id"].as_str().unwrap_or_default();
        let id = id.rsplit_once("build/").map_or(id, |(_, id)| id);
        if detail["build-status"] != "IN_PROGRESS" {
            if let Some(build) = self.builds.get_mut(id) {
                build.is_running = false;
            }
            return Ok(());
        }
        let variables = &detail["additional-information"]["environment"]["environment-variables"];
        let variable = |name: &str| {
            let mut all = variables.as_array().into_iter().flatten();
            all.find(|variable| variable["name"] == name)
                .and_then(|variable| variable["value"].as_str())
        };
        let Some(execution) = variable(variable::EXECUTION) else { return Ok(()) };
        let target = variable(variable::IMAGE_PLATFORM).unwrap_or("manifest");
        if let Some(token) = variable(variable::TASK_TOKEN) {
            self.tokens.insert(token.to_owned(), id.to_owned());
        }
        let task = (execution.to_owned(), target.to_owned());
        let build = Build {
            execution: task.0.clone(),
            target: task.1.clone(),
            began: now,
            is_running: true,
            truth: None,
        };
        self.builds.insert(id.to_owned(), build);
        if self.failed.contains(&task) {
            let name = short(execution);
            return Err((9, format!("{name}: {target} is built again after its build failed")));
        }
        Ok(())
    }

    /// A build pushed an image.
    pub(crate) fn image_pushed(
        &mut self,
        (digest, tag): (&str, &str),
        execution: &str,
        platform: &str,
        now: Timestamp,
    ) {
        let pushed = Pushed { execution: execution.to_owned(), platform: platform.to_owned() };
        self.pushed.insert(digest.to_owned(), pushed);
        self.pushed_at.insert(digest.to_owned(), now);
        self.pushed_at.insert(tag.to_owned(), now);
    }

    /// A tag was put: invariants 1 to 4.
    pub(crate) fn tag_put(
        &mut self,
        repository: &str,
        tag: &str,
        digest: &str,
        manifest: &str,
        now: Timestamp,
    ) -> Checked {
        let kind = self.kind(tag);
        if matches!(kind, Kind::OfPlatform) {
            return Ok(());
        }
        let key = (repository.to_owned(), digest.to_owned());
        if !self.indexes.contains_key(&key) {
            let run = self.index_is_whole(repository, tag, manifest)?;
            self.indexes.insert(key, run);
        }
        if matches!(kind, Kind::Fixed | Kind::Own) {
            let key = (repository.to_owned(), tag.to_owned());
            let (first, since) = self.fixed.entry(key).or_insert_with(|| (digest.to_owned(), now));
            if first != digest {
                // ECR has no put-if-absent for a tag that may move: of two runs of one commit that
                // publish at the same moment, both find it free.
                let is_race = matches!(kind, Kind::Fixed)
                    && repository != IMMUTABLE
                    && now.duration_since(*since) <= self.publish_max;
                if !is_race {
                    return Err((4, format!("fixed tag {tag} moves from {first} to {digest}")));
                }
                digest.clone_into(first);
            }
        }
        Ok(())
    }

    fn kind(&self, tag: &str) -> Kind {
        let is_sha = tag.len() == 7 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        match tag {
            "latest" | "main" | "release" => Kind::Moving,
            _ if tag.starts_with("archweld.") => Kind::Marker,
            _ if is_sha => Kind::Fixed,
            _ if tag.ends_with("-amd64") || tag.ends_with("-arm64v8") => Kind::OfPlatform,
            _ => Kind::Own,
        }
    }

    fn image(&self, repository: &str) -> Option<&ImageConfig> {
        self.config.images().iter().find(|image| image.repository.as_str() == repository)
    }

    /// Gives the name of the run whose images they are.
    fn index_is_whole(
        &self,
        repository: &str,
        tag: &str,
        manifest: &str,
    ) -> Result<String, (u8, String)> {
        let index: Index = serde_json::from_str(manifest)
            .map_err(|error| (1, format!("tag {tag} points at no index: {error}")))?;
        let mut platforms = BTreeSet::new();
        let mut runs = BTreeSet::new();
        for entry in &index.manifests {
            let digest = &entry.digest;
            let stated = entry.platform.as_ref().map(EntryPlatform::name).unwrap_or_default();
            let Some(pushed) = self.pushed.get(digest) else {
                return Err((1, format!("tag {tag}: no build pushed {digest} for {stated}")));
            };
            if pushed.platform != stated {
                let platform = &pushed.platform;
                return Err((3, format!("tag {tag}: {digest} is of {platform}, not {stated}")));
            }
            platforms.insert(stated);
            runs.insert(short(&pushed.execution));
        }
        let planned: BTreeSet<String> = self
            .image(repository)
            .into_iter()
            .flat_map(|image| &image.platforms)
            .map(ToString::to_string)
            .collect();
        if platforms != planned {
            return Err((1, format!("tag {tag} points at {platforms:?}, planned are {planned:?}")));
        }
        if runs.len() > 1 {
            return Err((2, format!("tag {tag} points at an index of {runs:?}")));
        }
        Ok(runs.first().copied().unwrap_or_default().to_owned())
    }

    /// The state machine took a failure.
    pub(crate) fn failure_told(&mut self, token: &str, error: &str, cause: &str) -> Checked {
        let Some(build) = self.tokens.get(token).and_then(|id| self.builds.get(id)) else {
            return Ok(());
        };
        let task = (build.execution.clone(), build.target.clone());
        let name = short(&build.execution).to_owned();
        match error {
            "Build.Infrastructure" if build.truth == Some(Truth::UsersFault) => {
                return Err((9, format!("{name}: {} failed, and is tried again", task.1)));
            }
            "Build.Infrastructure" => {
                let retries = self.config.images().iter().map(|image| image.retries).max();
                let told = self.infrastructure.entry(task.clone()).or_default();
                *told += 1;
                if *told > retries.unwrap_or_default() {
                    let times = *told;
                    return Err((9, format!("{name}: {} is tried again {times} times", task.1)));
                }
            }
            "Build.Failed" => {
                self.failed.insert(task);
            }
            _ => {}
        }
        self.look_for_secrets(|| format!("the cause of {name}"), cause)
    }

    /// A scheduled pass of `reconcile` has succeeded.
    pub(crate) fn pass_done(&self, due: Timestamp) -> Checked {
        let settled = due.saturating_sub(SETTLED).unwrap_or(due);
        self.no_orphans(settled, "a pass")
    }

    fn no_orphans(&self, settled: Timestamp, after: &str) -> Checked {
        for (id, build) in self.builds.iter().filter(|(_, build)| build.is_running) {
            let execution = self.executions.get(&build.execution);
            let ended = execution.and_then(|execution| execution.ended.as_ref());
            if build.began < settled && ended.is_some_and(|ended| ended.at < settled) {
                let name = short(&build.execution);
                return Err((7, format!("{id} of {name} still runs after {after}")));
            }
        }
        Ok(())
    }

    /// What a delivery with a wrong signature was answered.
    pub(crate) fn forged_answered(&self, status: u16, answer: &str) -> Checked {
        if (200..300).contains(&status) {
            return Err((10, format!("a forged delivery was answered {status}")));
        }
        self.look_for_secrets(|| "the answer to a forged delivery".to_owned(), answer)
    }

    /// Something that people may read.
    pub(crate) fn look_for_secrets(&self, place: impl FnOnce() -> String, text: &str) -> Checked {
        if !self.secret.is_empty() && text.contains(&self.secret) {
            return Err((10, format!("{} holds the webhook's secret", place())));
        }
        // Tokens are hundreds of characters of base64: a shorter text holds none.
        if text.len() > 500
            && let Some(id) = self.tokens.iter().find(|(token, _)| text.contains(*token))
        {
            return Err((10, format!("{} holds the task token of {}", place(), id.1)));
        }
        Ok(())
    }

    /// Liveness, when all is over: invariants 5, 6 and 7. `tags` are those of one repository.
    pub(crate) fn at_end(
        &self,
        repository: &str,
        tags: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Checked {
        if let Some((arn, _)) = self.running().next() {
            return Err((6, format!("{} never ends", short(arn))));
        }
        self.no_orphans(now, "all was over")?;
        let Some(image) = self.image(repository) else { return Ok(()) };
        let is_first = self.config.images().first().is_some_and(|first| first.name == image.name);
        let of_image = |execution: &&Execution| match execution.input["image"].as_str() {
            Some(name) => name == image.name.as_str(),
            None => is_first,
        };
        for tag in ["latest", "main", "release"] {
            let sets = |execution: &&Execution| {
                let branch = execution.input["ref"].as_str().unwrap_or_default();
                tag == "latest" || branch == tag || branch.strip_prefix("refs/heads/") == Some(tag)
            };
            let candidates = || self.executions.values().filter(of_image).filter(sets);
            let succeeded = candidates().filter(|execution| {
                execution.ended.as_ref().is_some_and(|ended| ended.status == "SUCCEEDED")
            });
            let Some(newest) = succeeded.max_by_key(|execution| execution.rank()) else { continue };
            let at = tags.get(tag);
            // A run counts from its announcement on, though it may have failed later.
            let is_right = candidates().any(|execution| {
                execution.rank() >= newest.rank() && at.is_some() && tags.get(&execution.name) == at
            });
            if !is_right {
                let (newest, image) = (&newest.name, &image.name);
                let key = at.map(|at| (repository.to_owned(), at.clone()));
                let made_by = key.and_then(|key| self.indexes.get(&key));
                let of = made_by.map_or("nothing known", String::as_str);
                return Err((5, format!("{image}: {tag} is at {of}, the newest run is {newest}")));
            }
        }
        Ok(())
    }
}

impl Execution {
    /// Where it stands among others: its sequence, and when it began where it builds all anew.
    fn rank(&self) -> (i64, i64) {
        let began = self.began.as_millisecond();
        let sequence = self.input["trigger"]["sequence"].as_i64().unwrap_or(began);
        let rebuilt = if self.input["force"] == true { began } else { 0 };
        (sequence, rebuilt)
    }

    /// The digest that it published.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.ended.as_ref()?.output["digest"].as_str()
    }
}
