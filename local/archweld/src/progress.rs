//! How a run shows itself: one line a build on a terminal, plain lines elsewhere, JSON on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use archweld_model::Plan;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

/// How many of a build's last log lines are kept for the case that it fails.
const LOG_LINES_MAX: usize = 400;
/// What precedes every command in a build's log.
const COMMAND_MARK: &str = "Running command ";

/// What is shown of an image that is not built.
const REUSED: &str = "reused, built by an earlier run";

/// What stands where a bar has its spinner.
const MARGIN: &str = "  ";

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
    building: Building,
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
    log: VecDeque<String>,
    failed: bool,
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
        Self { display, began, builds: BTreeMap::new(), building: Building::default() }
    }

    /// Says something about the run as a whole.
    pub(crate) fn say(&self, line: &str) {
        match &self.display {
            // An output that cannot be written to must not end the run.
            Display::Terminal(bars) => drop(bars.println(line)),
            Display::Plain => drop(writeln!(io::stderr(), "{line}")),
            Display::Json => self.json("note", &json!({"text": line})),
        }
    }

    /// Shows what a plan leaves out, for no build will tell of it.
    pub(crate) fn planned(&self, plan: &Plan) {
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

    /// Shows what happened to a build.
    pub(crate) fn update(&mut self, build_id: &str, target: &str, change: Change<'_>) {
        if !self.builds.contains_key(build_id) {
            self.add(build_id, target);
        }
        let Some(build) = self.builds.get_mut(build_id) else { return };
        match change {
            Change::Phase(phase) => phase.clone_into(&mut build.phase),
            Change::Log(line) => {
                if build.log.len() == LOG_LINES_MAX {
                    build.log.pop_front();
                }
                build.log.push_back(line.to_owned());
            }
            Change::Ended { status } => {
                status.clone_into(&mut build.phase);
                // A build that was stopped failed because of another one.
                build.failed = !["SUCCEEDED", "STOPPED"].contains(&status);
                self.building.end();
            }
        }
        let elapsed = build.began.elapsed();
        match &self.display {
            Display::Terminal(_) => build.draw(change),
            Display::Plain => {
                if !matches!(change, Change::Log(_)) {
                    let line = format!(
                        "{:<14} {:<17} {:>6.1}s",
                        build.target,
                        build.phase,
                        elapsed.as_secs_f64()
                    );
                    drop(writeln!(io::stderr(), "{line}"));
                }
            }
            Display::Json => {
                let (kind, field, text) = match change {
                    Change::Phase(phase) => ("phase", "phase", phase),
                    Change::Log(line) => ("log", "line", line),
                    Change::Ended { status } => ("build", "status", status),
                };
                self.json(kind, &json!({"target": target, "build_id": build_id, field: text}));
            }
        }
    }

    fn add(&mut self, build_id: &str, target: &str) {
        let bar = match &self.display {
            Display::Terminal(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg}") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Display::Plain | Display::Json => None,
        };
        let build = Build {
            target: target.to_owned(),
            bar,
            phase: "SUBMITTED".to_owned(),
            began: Instant::now(),
            log: VecDeque::new(),
            failed: false,
        };
        self.builds.insert(build_id.to_owned(), build);
        self.building.start();
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
            drop(writeln!(io::stderr(), "{MARGIN}{}", bar.prefix()));
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
    fn draw(&self, change: Change<'_>) {
        let Some(bar) = &self.bar else { return };
        let elapsed = self.began.elapsed().as_secs();
        bar.set_prefix(format!("{:<14} {:<16} {elapsed:>4}s", self.target, self.phase));
        match change {
            Change::Log(line) => bar.set_message(line.to_owned()),
            Change::Ended { .. } => bar.abandon_with_message(""),
            Change::Phase(_) => {}
        }
    }
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
            progress.update("p:1", "linux/arm64", Change::Log(line));
        }
        progress.update("p:2", "linux/amd64", Change::Log("Running command make"));
        progress.update("p:1", "linux/arm64", Change::Ended { status: "FAILED" });
        progress.update("p:2", "linux/amd64", Change::Ended { status: "STOPPED" });
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
}
