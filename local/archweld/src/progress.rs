//! How a run shows itself: one line a build on a terminal, plain lines elsewhere, JSON on demand.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use archweld_model::{Plan, Published};
use console::{Color, strip_ansi_codes, style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::{error::Error, estimate::Estimate, runs::MANIFEST};

/// How many of a build's last log lines are kept for the case that it fails.
const LOG_LINES_MAX: usize = 400;
/// What precedes every command in a build's log.
const COMMAND_MARK: &str = "Running command ";

/// What is shown of an image that is not built.
const REUSED: &str = "reused, built by an earlier run";
/// What marks the platform that the others wait for.
const SLOWEST: &str = "slowest";

/// What stands where a bar has its spinner.
const MARGIN: &str = "  ";
/// How many cells show how much of the usual time has passed.
const CELLS: u32 = 12;

/// What happened to a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// It is in this phase now.
    Phase(&'a str),
    /// It wrote a line.
    Log(&'a str),
    /// It is over.
    Ended {
        /// CodeBuild's word for how.
        status: &'a str,
        /// How long it took, where CodeBuild says; else it is measured here.
        took: Option<Duration>,
    },
}

/// A build that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure<'a> {
    /// `<project>:<uuid>`.
    pub(crate) build_id: &'a str,
    /// What it was to build.
    pub(crate) target: &'a str,
    /// The output of its last command.
    pub(crate) lines: Vec<&'a str>,
}

/// The display of one run.
pub(crate) struct Progress {
    display: Display,
    began: Instant,
    builds: BTreeMap<String, Build>,
    estimates: BTreeMap<String, Estimate>,
    building: Building,
    said: BTreeSet<&'static str>,
    runs: usize,
}

enum Display {
    Terminal(MultiProgress),
    Plain,
    Json,
}

struct Build {
    target: String,
    bar: Option<ProgressBar>,
    phase: String,
    began: Instant,
    took: Option<Duration>,
    succeeded: bool,
    failed: bool,
    log: VecDeque<String>,
    line: String,
}

/// The time during which at least one build was in progress.
#[derive(Default)]
struct Building {
    running: usize,
    since: Option<Instant>,
    total: Duration,
}

impl Progress {
    /// A display that fits where the output goes.
    pub(crate) fn new(json: bool, began: Instant) -> Self {
        let display = match json {
            true => Display::Json,
            false if io::stderr().is_terminal() => Display::Terminal(MultiProgress::new()),
            false => Display::Plain,
        };
        let (builds, estimates) = (BTreeMap::new(), BTreeMap::new());
        let (building, said) = (Building::default(), BTreeSet::new());
        Self { display, began, builds, estimates, building, said, runs: 0 }
    }

    /// Says something about the run as a whole.
    pub(crate) fn say(&self, line: &str) {
        match &self.display {
            // An output that cannot be written to must not end the run.
            Display::Terminal(bars) => drop(bars.println(plain(line))),
            Display::Plain => drop(writeln!(io::stderr(), "{}", plain(line))),
            Display::Json => self.json("note", &json!({"text": line})),
        }
    }

    /// Says something once, however often it is so.
    pub(crate) fn say_once(&mut self, line: &'static str) {
        if self.said.insert(line) {
            self.say(line);
        }
    }

    /// Shows what a plan leaves out, for no build will tell of it.
    pub(crate) fn planned(&mut self, plan: &Plan) {
        self.runs += 1;
        for planned in &plan.platforms {
            let Some(built) = &planned.reused else { continue };
            match &self.display {
                Display::Json => self.json(
                    "reused",
                    &json!({"target": planned.build.target, "digest": built.digest}),
                ),
                Display::Terminal(_) => {
                    self.say(&format!("{MARGIN}{:<14} {REUSED}", planned.build.target));
                }
                Display::Plain => self.say(&format!("{:<14} {REUSED}", planned.build.target)),
            }
        }
    }

    /// Takes in how long the builds of each target usually take.
    pub(crate) fn estimated(&mut self, estimates: BTreeMap<String, Estimate>) {
        for (target, Estimate { took, builds }) in &estimates {
            match &self.display {
                // The bars show it.
                Display::Terminal(_) => {}
                Display::Plain => {
                    let builds = if *builds == 1 { "1 build" } else { &format!("{builds} builds") };
                    let took = shown(*took);
                    self.say(&format!("{target:<14} usually takes {took} (median of {builds})"));
                }
                Display::Json => self.json(
                    "estimate",
                    &json!({"target": target, "took_ms": milliseconds(*took), "builds": builds}),
                ),
            }
        }
        self.estimates = estimates;
        self.draw();
    }

    /// Shows what happened to a build that was started `ago`.
    pub(crate) fn update(
        &mut self,
        build_id: &str,
        target: &str,
        ago: Duration,
        change: Change<'_>,
    ) {
        if !self.builds.contains_key(build_id) {
            self.add(build_id, target, ago);
        }
        let Some(build) = self.builds.get_mut(build_id) else { return };
        match change {
            Change::Phase(phase) => phase.clone_into(&mut build.phase),
            Change::Log(line) => {
                if build.log.len() == LOG_LINES_MAX {
                    build.log.pop_front();
                }
                build.log.push_back(line.to_owned());
                build.line = plain(line);
            }
            Change::Ended { status, took } => {
                status.clone_into(&mut build.phase);
                build.took = Some(took.unwrap_or_else(|| build.began.elapsed()));
                build.succeeded = status == "SUCCEEDED";
                // A build that was stopped failed because of another one.
                build.failed = !["SUCCEEDED", "STOPPED"].contains(&status);
                self.building.end();
            }
        }
        let took = build.took.unwrap_or_else(|| build.began.elapsed());
        match &self.display {
            Display::Terminal(_) => self.draw(),
            Display::Plain => {
                if !matches!(change, Change::Log(_)) {
                    let (phase, took_s) = (&build.phase, took.as_secs_f64());
                    let line = format!("{:<14} {phase:<17} {took_s:>6.1}s", build.target);
                    drop(writeln!(io::stderr(), "{line}"));
                }
            }
            Display::Json => {
                let (kind, field, text) = match change {
                    Change::Phase(phase) => ("phase", "phase", phase),
                    Change::Log(line) => ("log", "line", line),
                    Change::Ended { status, .. } => ("build", "status", status),
                };
                let mut event = json!({"target": target, "build_id": build_id, field: text});
                if kind == "build" {
                    event["took_ms"] = milliseconds(took).into();
                }
                self.json(kind, &event);
            }
        }
    }

    fn add(&mut self, build_id: &str, target: &str, ago: Duration) {
        let bar = match &self.display {
            Display::Terminal(bars) => {
                let bar = bars.add(ProgressBar::new_spinner().with_elapsed(ago));
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Display::Plain | Display::Json => None,
        };
        let now = Instant::now();
        let build = Build {
            target: target.to_owned(),
            bar,
            phase: "SUBMITTED".to_owned(),
            began: now.checked_sub(ago).unwrap_or(now),
            took: None,
            succeeded: false,
            failed: false,
            log: VecDeque::new(),
            line: String::new(),
        };
        self.builds.insert(build_id.to_owned(), build);
        self.building.start();
    }

    /// The build of a platform that the others wait for: the one that is expected to end last, where
    /// there are estimates of all that go on; at last the one that took longest.
    fn slowest(&self) -> Option<&str> {
        let platforms = || self.builds.iter().filter(|(_, build)| build.target != MANIFEST);
        let running = || platforms().filter(|(_, build)| build.took.is_none());
        let others = platforms().any(|(_, build)| {
            platforms().next().is_some_and(|(_, first)| first.target != build.target)
        });
        // Builds of several runs are no race.
        let found = if !others || self.runs > 1 {
            None
        } else if running().next().is_some() {
            let ends = running().map(|(id, build)| {
                Some((build.began + self.estimates.get(&build.target)?.took, id))
            });
            ends.collect::<Option<Vec<_>>>()?.into_iter().max().map(|(_, id)| id)
        } else {
            let took = platforms().filter_map(|(id, build)| Some((build.took?, id)));
            took.max().map(|(_, id)| id)
        };
        found.map(String::as_str)
    }

    fn draw(&self) {
        if matches!(self.display, Display::Terminal(_)) {
            let slowest = self.slowest();
            for (id, build) in &self.builds {
                build.draw(self.estimates.get(&build.target), slowest == Some(id));
            }
        }
    }

    /// How long the builds of a published image took: the last of each target that succeeded.
    pub(crate) fn took(&self, published: &Published) -> Took {
        let of = |target: &str| {
            let builds = self.builds.values().filter(|it| it.succeeded && it.target == target);
            builds.max_by_key(|build| build.began)?.took
        };
        let platforms: Vec<_> =
            published.platforms.iter().map(|image| of(&image.platform.to_string())).collect();
        let several = platforms.iter().flatten().count() > 1;
        let slowest = platforms.iter().zip(&published.platforms).filter(|_| several);
        let slowest = slowest.filter_map(|(took, image)| Some(((*took)?, image.platform)));
        Took {
            slowest: slowest.max_by_key(|(took, _)| *took).map(|(_, platform)| platform),
            platforms,
            manifest: of(MANIFEST),
        }
    }

    /// The output of the commands that made builds fail: each build with the lines since its last
    /// command began.
    pub(crate) fn failures(&self) -> Vec<Failure<'_>> {
        let failed = self.builds.iter().filter(|(_, build)| build.failed);
        failed
            .map(|(build_id, build)| {
                let marks = build.log.iter().enumerate();
                let from = marks
                    .filter(|(_, line)| line.contains(COMMAND_MARK))
                    .map(|(index, _)| index)
                    .next_back()
                    .unwrap_or_default();
                let lines = build.log.iter().skip(from).map(String::as_str).collect();
                Failure { build_id, target: &build.target, lines }
            })
            .collect()
    }

    /// The time since the run began, and how much of it no build was in progress.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        let wall = self.began.elapsed();
        (wall, wall.saturating_sub(self.building.total()))
    }

    /// Ends JSON output with why nothing was published.
    pub(crate) fn summarize_failure(&self, error: &Error, wall: Duration, own: Duration) {
        if !self.is_json() {
            return;
        }
        let (name, cause) = match error {
            Error::Run { error, cause } => (error.clone(), cause.clone()),
            other => ("Interrupted".to_owned(), other.to_string()),
        };
        let (wall_ms, own_ms) = (milliseconds(wall), milliseconds(own));
        self.json(
            "summary",
            &json!({
                "status": "FAILED", "error": name, "cause": cause,
                "wall_ms": wall_ms, "own_ms": own_ms,
            }),
        );
    }

    /// Whether the display is JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.display, Display::Json)
    }

    /// Takes the bars down and leaves a line of each build; what follows is plain lines.
    pub(crate) fn finish(&mut self) {
        let Display::Terminal(bars) = &self.display else { return };
        drop(bars.clear());
        // A bar that goes would draw those that stay once more.
        bars.set_draw_target(ProgressDrawTarget::hidden());
        for bar in self.builds.values().filter_map(|build| build.bar.as_ref()) {
            drop(writeln!(io::stderr(), "{MARGIN}{}", bar.prefix().trim_end()));
        }
        self.display = Display::Plain;
    }

    /// Writes a line of JSON to the standard output.
    pub(crate) fn json(&self, kind: &str, value: &impl Serialize) {
        let mut line = json!({"type": kind, "at_ms": milliseconds(self.began.elapsed())});
        if let (Some(line), Ok(serde_json::Value::Object(fields))) =
            (line.as_object_mut(), serde_json::to_value(value))
        {
            line.extend(fields);
        }
        drop(writeln!(io::stdout(), "{line}"));
    }
}

impl Build {
    fn draw(&self, estimate: Option<&Estimate>, slowest: bool) {
        let Some(bar) = &self.bar else { return };
        let colour = match (self.took, self.succeeded, self.failed) {
            (Some(_), true, _) => Some(Color::Green),
            (Some(_), _, true) => Some(Color::Red),
            _ => None,
        };
        let phase = style(format!("{:<16}", self.phase)).for_stderr();
        let phase = colour.map_or(phase.clone(), |colour| phase.fg(colour));
        let mark =
            if slowest { style(SLOWEST).for_stderr().yellow().to_string() } else { String::new() };
        let mut prefix = format!("{:<14} {phase}", self.target);
        let estimate = estimate.map(|estimate| estimate.took);
        let template = match self.took {
            Some(took) => {
                prefix += &format!(" {:>7} {mark}", shown(took));
                "{spinner} {prefix}"
            }
            None => "{spinner} {prefix} {time} {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            let time = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                // The bar is a text: there is nothing that could not be written to.
                let _ = text.write_str(&time(state.elapsed(), estimate));
            };
            bar.set_style(style.with_key("time", time));
        }
        bar.set_prefix(prefix);
        match self.took {
            Some(_) if !bar.is_finished() => bar.abandon_with_message(""),
            Some(_) => bar.tick(),
            None => {
                bar.set_message(format!("{mark}{}{}", if slowest { "  " } else { "" }, self.line))
            }
        }
    }
}

/// The time since a build began, beside how long it usually takes where that is known.
fn time(elapsed: Duration, estimate: Option<Duration>) -> String {
    let mut text = format!("{:>7}", shown(Duration::from_secs(elapsed.as_secs())));
    if let Some(estimate) = estimate {
        let part = (elapsed.as_secs_f64() / estimate.as_secs_f64().max(0.001)).min(1.0);
        let full = (0..CELLS).filter(|cell| f64::from(*cell) < part * f64::from(CELLS)).count();
        let empty = CELLS as usize - full;
        let cells = format!("{}{}", "━".repeat(full), "─".repeat(empty));
        text += &format!(" {cells} of about {}", shown(estimate));
    }
    text
}

/// A duration for people, such as `0.42s`, `7.3s`, `42s` or `1m 05s`.
pub(crate) fn shown(duration: Duration) -> String {
    let (whole_s, exact_s) = (duration.as_secs(), duration.as_secs_f64());
    match whole_s {
        0 if exact_s > 0.0 => format!("{exact_s:.2}s"),
        1..10 if duration.subsec_millis() > 0 => format!("{exact_s:.1}s"),
        0..60 => format!("{whole_s}s"),
        60..3_600 => format!("{}m {:02}s", whole_s / 60, whole_s % 60),
        _ => format!("{}h {:02}m", whole_s / 3_600, whole_s / 60 % 60),
    }
}

/// A line of a build's without what would move the cursor or change colours.
pub(crate) fn plain(line: &str) -> String {
    // What a command drew over is not shown: progress bars rewrite their line.
    let line = line.trim_end_matches(['\r', '\n']);
    let line = line.rsplit('\r').next().unwrap_or(line);
    strip_ansi_codes(line).chars().filter(|c| *c == '\t' || !c.is_control()).collect()
}

/// How long the builds of a published image took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    /// Each platform's, in the order of the index's entries; none of those that were not built.
    pub(crate) platforms: Vec<Option<Duration>>,
    /// The manifest build's.
    pub(crate) manifest: Option<Duration>,
    /// The platform that took longest of several.
    pub(crate) slowest: Option<archweld_model::Platform>,
}

impl Building {
    fn start(&mut self) {
        self.running += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
        if self.running == 0 {
            self.total += self.since.take().map(|since| since.elapsed()).unwrap_or_default();
        }
    }

    fn total(&self) -> Duration {
        self.total + self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

/// A duration in whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_output_of_the_command_that_failed_and_not_of_the_stopped_build() {
        let mut progress = Progress::new(true, Instant::now());
        for line in ["Running command make", "ok", "Running command make test", "error: no"] {
            progress.update("p:1", "linux/arm64", Duration::ZERO, Change::Log(line));
        }
        let log = Change::Log("Running command make");
        progress.update("p:2", "linux/amd64", Duration::ZERO, log);
        for (id, target, status) in
            [("p:1", "linux/arm64", "FAILED"), ("p:2", "linux/amd64", "STOPPED")]
        {
            progress.update(id, target, Duration::ZERO, Change::Ended { status, took: None });
        }
        assert_eq!(
            progress.failures(),
            [Failure {
                build_id: "p:1",
                target: "linux/arm64",
                lines: vec!["Running command make test", "error: no"],
            }]
        );
    }

    #[test]
    fn own_time_leaves_out_the_time_in_which_a_build_was_in_progress() {
        let mut building = Building::default();
        building.start();
        building.start();
        building.end();
        assert!(building.since.is_some());
        building.end();
        assert!(building.since.is_none());
        let total = building.total();
        assert_eq!(building.total(), total);
    }

    fn estimate(seconds: u64) -> Estimate {
        Estimate { took: Duration::from_secs(seconds), builds: 3 }
    }

    #[test]
    fn the_slowest_is_expected_to_end_last_and_nothing_is_made_up() {
        let mut progress = Progress::new(true, Instant::now());
        let begin = |progress: &mut Progress, id, target, ago_s| {
            let ago = Duration::from_secs(ago_s);
            progress.update(id, target, ago, Change::Phase("BUILD"));
        };
        begin(&mut progress, "p:1", "linux/amd64", 60);
        assert_eq!(progress.slowest(), None, "there is nothing to compare it with");
        begin(&mut progress, "p:2", "linux/arm64", 10);
        assert_eq!(progress.slowest(), None, "nobody knows");
        progress.estimated(BTreeMap::from([("linux/amd64".to_owned(), estimate(100))]));
        assert_eq!(progress.slowest(), None, "one of them is not known");
        let estimates =
            [("linux/amd64".to_owned(), estimate(100)), ("linux/arm64".to_owned(), estimate(70))];
        progress.estimated(BTreeMap::from(estimates));
        assert_eq!(progress.slowest(), Some("p:2"), "in 60 s, and the other in 40 s");

        for (id, target, took_s) in [("p:1", "linux/amd64", 90), ("p:2", "linux/arm64", 80)] {
            let took = Some(Duration::from_secs(took_s));
            let ended = Change::Ended { status: "SUCCEEDED", took };
            progress.update(id, target, Duration::ZERO, ended);
        }
        begin(&mut progress, "p:3", MANIFEST, 500);
        assert_eq!(progress.slowest(), Some("p:1"), "it took longer after all");
    }

    #[test]
    fn durations_are_as_exact_as_they_are_long() {
        let shown = |ms| shown(Duration::from_millis(ms));
        let all = [0, 420, 7_300, 8_000, 42_900, 65_000, 3_600_000, 7_384_000].map(shown);
        assert_eq!(all, ["0s", "0.42s", "7.3s", "8s", "42s", "1m 05s", "1h 00m", "2h 03m"]);
    }

    #[test]
    fn the_time_is_shown_beside_what_is_usual() {
        let time = |elapsed, usual: Option<u64>| {
            time(Duration::from_secs(elapsed), usual.map(Duration::from_secs))
        };
        assert_eq!(time(42, None), "    42s");
        assert_eq!(time(45, Some(90)), "    45s ━━━━━━────── of about 1m 30s");
        assert_eq!(time(200, Some(90)), " 3m 20s ━━━━━━━━━━━━ of about 1m 30s");
    }

    #[test]
    fn lines_of_builds_cannot_move_the_cursor() {
        let line = "\u{1b}[2K\u{1b}[31m#5 10%\r#5 \u{1b}[1mdone\u{1b}[0m\u{7}\u{1b}]0;x\u{7}\n";
        assert_eq!(plain(line), "#5 done");
        assert_eq!(plain("a\tb\r\n"), "a\tb");
    }
}
