// The console's own logic without a browser: what a history comes to, and where states stand.

import assert from "node:assert/strict";
import { test } from "node:test";
import { History, sum } from "../../local/console/assets/history.js";
import { layout } from "../../local/console/assets/layout.js";

/** Events from `[type, previous, more]`, with the ids and times that follow from their order. */
const events = (...list) => list.map(([type, previous, more = {}], at) => ({ id: at + 1, previous, at: at * 10, type, ...more }));

/** Two builds in a Map, of which one is retried and the other fails for good. */
const FAILING = events(
  ["ExecutionStarted", 0],
  ["MapStateEntered", 1, { state: "Builds" }],
  ["MapStateStarted", 2, { length: 2 }],
  ["MapIterationStarted", 3, { state: "Builds", index: 0 }],
  ["MapIterationStarted", 3, { state: "Builds", index: 1 }],
  ["TaskStateEntered", 4, { state: "Build" }],
  ["TaskScheduled", 6],
  ["TaskStateEntered", 5, { state: "Build" }],
  ["TaskScheduled", 8],
  ["TaskStarted", 7],
  ["TaskFailed", 10, { error: "Build.Infrastructure", cause: "no machine" }],
  ["TaskScheduled", 11],
  ["TaskFailed", 9, { error: "Build.Failed", cause: "exit 1" }],
  ["MapIterationFailed", 13, { state: "Builds", index: 1 }],
  ["TaskStateAborted", 12],
  ["MapIterationAborted", 15, { state: "Builds", index: 0 }],
  ["MapStateFailed", 13],
  ["MapStateExited", 17, { state: "Builds" }],
  ["PassStateEntered", 18, { state: "Explain" }],
  ["PassStateExited", 19, { state: "Explain" }],
  ["FailStateEntered", 20, { state: "Failed" }],
  ["ExecutionFailed", 21, { error: "Build.Failed" }],
);

test("retries, caught errors and what was stopped on the way are told apart", () => {
  const history = new History(FAILING);
  const builds = history.of("Build");
  assert.deepEqual(builds.map((it) => [it.status, it.retries]), [["aborted", 1], ["failed", 0]]);
  assert.deepEqual(builds[0].errors.map((it) => it.error), ["Build.Infrastructure"]);
  const [map] = history.of("Builds");
  assert.equal(map.status, "caught");
  assert.deepEqual(map.errors.map((it) => it.error), ["Build.Failed"]);
  assert.deepEqual(map.iterations.map((it) => it.status), ["aborted", "failed"]);
  assert.equal(sum(history.of("Explain")).status, "succeeded");
  assert.equal(history.of("Explain")[0].from.state, "Builds");
  assert.equal(sum(history.of("Failed")).status, "failed");
  assert.equal(sum(history.of("Build")).retries, 1);
  assert.equal(sum(history.of("Nothing")).status, "idle");
});

test("a state is lit from its beginning to its end, and while it waits to be tried again", () => {
  const history = new History();
  const status = () => sum(history.of("Build")).status;
  const seen = FAILING.slice(0, 12).map((event) => (history.add(event), status()));
  // From the eighth event on the other iteration is in that state, too.
  assert.deepEqual([seen[4], seen[5], seen[11]], ["idle", "active", "active"]);
  const [first] = new History(FAILING.slice(0, 11)).of("Build");
  assert.equal(first.status, "retrying");
  assert.equal(history.of("Build")[0].status, "active");
  assert.equal(history.add(FAILING[3]), true, "one that is known already");
  assert.equal(history.add(FAILING[20]), false, "one after a gap");
});

test("an execution that is stopped stops what was open", () => {
  const history = new History(events(["ExecutionStarted", 0], ["TaskStateEntered", 1, { state: "Plan" }], ["TaskScheduled", 2], ["ExecutionAborted", 0]));
  assert.deepEqual(history.of("Plan").map((it) => it.status), ["aborted"]);
});

test("an execution that goes on after it was stopped ends what was open", () => {
  const stopped = [["ExecutionStarted", 0], ["TaskStateEntered", 1, { state: "Plan" }], ["TaskScheduled", 2], ["ExecutionAborted", 0]];
  const redriven = [["ExecutionRedriven", 4], ["TaskScheduled", 3], ["TaskSucceeded", 6], ["TaskStateExited", 7, { state: "Plan" }], ["ExecutionSucceeded", 8]];
  const history = new History(events(...stopped, ...redriven));
  assert.deepEqual(history.of("Plan").map((it) => [it.status, it.retries]), [["succeeded", 1]]);
});

const next = (to, kind = "next") => ({ to, kind });
const task = (name, ...edges) => ({ name, kind: "Task", edges, ends: edges.length === 0 });
const GRAPH = {
  workflows: [
    {
      start: "A",
      states: [
        task("A", next("B"), next("No", "catch")),
        { ...task("B", next("C"), next("No", "catch")), kind: "Map", workflows: [1, 2] },
        { ...task("C", next("D", "choice"), next("E", "default")), kind: "Choice" },
        task("D", next("E")),
        task("E", next("C"), next("No", "catch")),
        task("No"),
        task("Beside"),
      ],
    },
    { start: "X", states: [task("X", next("Y", "catch")), task("Y")] },
    { start: "Z", states: [task("Z")] },
  ],
};

test("states stand beside and below each other, never over each other, and edges begin and end at them", () => {
  const check = ({ width, height, nodes, edges }) => {
    for (const it of nodes) {
      assert.ok(it.x >= 0 && it.y >= 0 && it.x + it.width <= width && it.y + it.height <= height, it.state.name);
      for (const other of nodes) {
        const apart = it.x + it.width <= other.x || other.x + other.width <= it.x || it.y + it.height <= other.y || other.y + other.height <= it.y;
        assert.ok(it === other || apart, `${it.state.name} and ${other.state.name}`);
      }
      it.inner.forEach(check);
    }
    for (const { from, to, points } of edges) {
      assert.ok(points.flat().every(Number.isFinite), `${from} to ${to}`);
      const ends = [from, to].map((name) => nodes.find((it) => it.state.name === name));
      [points[0], points.at(-1)].forEach(([x, y], at) => {
        const it = ends[at];
        assert.ok(x >= it.x - 1 && x <= it.x + it.width + 1 && y >= it.y - 1 && y <= it.y + it.height + 1, `${from} to ${to}`);
      });
    }
  };
  const placed = layout(GRAPH);
  check(placed);
  const of = (name) => placed.nodes.find((it) => it.state.name === name);
  assert.ok(of("A").y < of("B").y && of("B").y < of("C").y && of("C").y < of("D").y && of("D").y < of("E").y);
  assert.ok(of("No").x > of("A").x + of("A").width, "what only errors lead to stands beside");
  assert.ok(placed.edges.find((it) => it.from === "E" && it.to === "C").isBack);
});
