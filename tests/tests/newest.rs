//! Moving tags end at the newest run, whatever the order of the calls and wherever a run crashes.
//!
//! Each actor's calls to ECR wait at a gate, and the test decides which goes on. For two runs every
//! order is tried, with a crash of either or both at every step, before a call, after its effect or
//! between; `reconcile` follows each crash, and its calls, too, mix with those of the runs that go
//! on. For three runs, orders are drawn.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use archweld_model::Digest;
use archweld_tests::{Door, Gates, World, plan_of, repository};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The runs, the oldest first, and what reconciles each after a crash.
const RUNS: [(&str, &str); 3] =
    [("first", "after-first"), ("second", "after-second"), ("third", "after-third")];
const CONFIG: &str = "[[image]]\nname = \"hello\"\nplatforms = [\"linux/amd64\"]\n\
                      tags = [\"{sha7}\", \"latest\"]\ncheck_executable = false\n";
/// Longer than ECR takes to let the next image be put.
const STEP: Duration = Duration::from_millis(150);
/// Longer than a run waits before it looks again.
const REST: Duration = Duration::from_secs(2);

/// How many orders of three runs are tried.
const SAMPLES: u64 = 150;

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    /// A call is made and answered.
    Call(&'static str, String),
    /// A call is made, and its actor crashes before it hears the answer.
    CallUnheard(&'static str, String),
    /// An actor crashes while all its calls wait.
    Crash(&'static str),
}

/// One way through the calls of some runs.
struct Path<'a> {
    world: &'a World,
    kind: Kind,
    gates: Gates,
    actors: BTreeMap<&'static str, JoinHandle<()>>,
    ran: BTreeSet<&'static str>,
    crashed: BTreeSet<&'static str>,
    taken: Vec<Choice>,
}

/// What decides about everything that follows.
type State = (
    BTreeMap<String, Digest>,
    Vec<(&'static str, Vec<(String, Digest)>)>,
    Vec<(&'static str, String)>,
    BTreeSet<&'static str>,
);

/// What runs do: as few calls as there are, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A manifest build has set the run's own tag, and there is no other but the moving one.
    MovingTagOnly,
    /// The run sets its own tag and a fixed one, then its marker, and its record.
    EveryTag,
}

fn input(run: &str, kind: Kind) -> Value {
    let sequence = 1 + RUNS.iter().position(|(known, _)| *known == run).unwrap();
    let trigger = json!({"sequence": sequence});
    match kind {
        Kind::MovingTagOnly => json!({"trigger": trigger}),
        Kind::EveryTag => {
            let commit = format!("{sequence:0<40}");
            json!({"trigger": trigger, "commit": commit, "publisher": "lambda"})
        }
    }
}

impl<'a> Path<'a> {
    /// Runs that have built their images and are about to publish them.
    async fn new(world: &'a World, kind: Kind, runs: &[(&'static str, &'static str)]) -> Self {
        let gates = Gates::default();
        let mut actors = BTreeMap::new();
        for (run, _) in runs {
            let plan = plan_of(CONFIG, run, input(run, kind));
            let request = world.publish_request(plan, |_| {}).await;
            let clients = publish::Clients::new(&gates.gate(run, &world.cloud.sdk_config()));
            let publishing = async move {
                publish::handle(request, &clients).await.unwrap();
            };
            actors.insert(*run, tokio::spawn(publishing));
        }
        let ran = actors.keys().copied().collect();
        let (crashed, taken) = (BTreeSet::new(), vec![]);
        let mut path = Self { world, kind, gates, actors, ran, crashed, taken };
        path.settle().await;
        path
    }

    /// Waits until every actor waits for a call, or is done.
    async fn settle(&mut self) {
        // Time goes on only when nobody has anything else to do.
        tokio::time::sleep(STEP).await;
    }

    /// What may happen next; nothing when all is over.
    async fn choices(&mut self) -> Vec<Choice> {
        if self.gates.waiting().is_empty() {
            tokio::time::sleep(REST).await;
        }
        let waiting = self.gates.waiting();
        let is_run = |actor: &str| RUNS.iter().any(|(run, _)| *run == actor);
        let mut choices = Vec::new();
        for (actor, call) in &waiting {
            choices.push(Choice::Call(actor, call.clone()));
            if is_run(actor) {
                choices.push(Choice::CallUnheard(actor, call.clone()));
            }
        }
        let actors: BTreeSet<_> = waiting.iter().map(|(actor, _)| *actor).collect();
        choices.extend(actors.into_iter().filter(|actor| is_run(actor)).map(Choice::Crash));
        choices
    }

    async fn take(&mut self, choice: Choice) {
        match &choice {
            Choice::Call(actor, call) => self.gates.let_through(actor, call, true),
            Choice::CallUnheard(actor, call) => {
                self.gates.let_through(actor, call, false);
                self.settle().await;
                self.crash(actor);
            }
            Choice::Crash(actor) => self.crash(actor),
        }
        self.taken.push(choice);
        self.settle().await;
        self.check_tag();
    }

    /// Ends a run where it is, for good; its execution fails, and `reconcile` hears of it.
    fn crash(&mut self, run: &'static str) {
        self.actors.remove(run).unwrap().abort();
        self.gates.forget(run);
        self.crashed.insert(run);
        let (_, after) = RUNS.iter().find(|(known, _)| *known == run).unwrap();
        let clients =
            reconcile::Clients::new(&self.gates.gate(after, &self.world.cloud.sdk_config()));
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("archweld.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let settings = reconcile::Settings::new(vec![], String::new(), &config);
        let event = json!({
            "detail-type": "Step Functions Execution Status Change",
            "detail": {
                "executionArn": format!("arn:aws:states:us-east-1:123456789012:execution:m:{run}"),
                "name": run, "status": "FAILED", "startDate": 1_795_428_000_000_u64,
                "input": input(run, self.kind).to_string(),
            },
        });
        let reconciling = async move {
            reconcile::handle(event, &settings, &clients).await.unwrap();
        };
        self.actors.insert(after, tokio::spawn(reconciling));
    }

    fn tags(&self) -> BTreeMap<String, Digest> {
        self.world.all_tags()
    }

    fn state(&self) -> State {
        let actors = self.actors.keys();
        (
            self.tags(),
            actors.map(|actor| (*actor, self.gates.heard(actor))).collect(),
            self.gates.waiting(),
            self.crashed.clone(),
        )
    }

    /// The indexes that a marker vouches for, the oldest first.
    fn announced(&self) -> Vec<Digest> {
        let tags = self.tags();
        let marker = |sequence: usize| tags.get(&format!("archweld.latest.{sequence}")).copied();
        (1..=RUNS.len()).filter_map(marker).collect()
    }

    /// The tag is at an index that was verified, at every moment.
    fn check_tag(&self) {
        if let Some(latest) = self.tags().get("latest") {
            assert!(self.announced().contains(latest), "{:#?}", self.taken);
        }
    }

    /// When all is over, the tag is at the newest.
    async fn check_end(mut self) {
        for (actor, handle) in std::mem::take(&mut self.actors) {
            assert!(handle.is_finished(), "{actor} goes on: {:#?}", self.taken);
            handle.await.unwrap();
        }
        let newest = self.announced().last().copied();
        assert_eq!(self.tags().get("latest").copied(), newest, "{:#?}", self.taken);
        for (run, sequence) in RUNS.iter().map(|(run, _)| run).zip(1..) {
            let marker = self.tags().get(&format!("archweld.latest.{sequence}")).copied();
            if self.ran.contains(run) && !self.crashed.contains(run) {
                assert!(marker.is_some(), "{:#?}", self.taken);
                assert_eq!(self.tags().get(*run).copied(), marker, "{:#?}", self.taken);
            }
        }
        self.give_up().await;
    }

    /// Leaves an empty repository behind.
    async fn give_up(self) {
        for actor in self.actors.into_values() {
            actor.abort();
        }
        let registry = self.world.cloud.registry();
        registry.delete_repository(&repository(), true).await.unwrap();
        self.world.cloud.ensure_repository(&repository()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn two_runs_in_every_order_with_a_crash_at_every_step() {
    let world = World::open(Door::InProcess).await;
    let (mut seen, mut paths, mut ends) = (HashSet::new(), 0, 0);
    // What is yet to be tried: the choices up to a state, and the one to take there.
    let mut untried: Vec<Vec<Choice>> = vec![vec![]];
    while let Some(beginning) = untried.pop() {
        let mut path = Path::new(&world, Kind::MovingTagOnly, &RUNS[..2]).await;
        paths += 1;
        for choice in beginning {
            path.take(choice).await;
        }
        loop {
            if !seen.insert(path.state()) {
                path.give_up().await;
                break;
            }
            let mut choices = path.choices().await;
            let Some(next) = choices.pop() else {
                path.check_end().await;
                ends += 1;
                break;
            };
            for other in choices {
                let beginning = path.taken.iter().cloned().chain([other]);
                untried.push(beginning.collect());
            }
            path.take(next).await;
        }
    }
    // A test that tries nothing proves nothing.
    assert!(seen.len() > 500 && ends > 100, "{paths} paths, {} states, {ends} ends", seen.len());
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn three_runs_in_many_orders_with_crashes() {
    let world = World::open(Door::InProcess).await;
    for seed in 0..SAMPLES {
        let mut random = StdRng::seed_from_u64(seed);
        let mut path = Path::new(&world, Kind::EveryTag, &RUNS).await;
        loop {
            let choices = path.choices().await;
            let crash = random.random_bool(0.05);
            let wanted = |choice: &&Choice| crash != matches!(choice, Choice::Call(..));
            let some: Vec<&Choice> = choices.iter().filter(wanted).collect();
            let Some(next) = some.choose(&mut random).copied().or(choices.first()) else { break };
            path.take(next.clone()).await;
        }
        path.check_end().await;
    }
    world.cloud.shutdown().await;
}
