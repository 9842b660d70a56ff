// From an execution's history to what every state came to. Pure: events in, states out.
//
// https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html

const FAILED = /^(TaskFailed|TaskTimedOut|TaskStartFailed|TaskSubmitFailed|LambdaFunction(Failed|TimedOut|StartFailed|ScheduleFailed)|EvaluationFailed)$/;

/** A visit to a state: it may be visited more than once, and once in each iteration. */
class Visit {
  status = "active";
  attempts = 0;
  ended = null;
  errors = [];
  iterations = [];

  constructor(state, kind, at, iteration) {
    Object.assign(this, { state, kind, started: at, iteration });
  }

  get retries() {
    return Math.max(0, this.attempts - 1);
  }

  end(status, at) {
    if (this.ended !== null) return;
    this.status = status;
    this.ended = at;
  }
}

/**
 * Follows one execution, event by event. A history event names the one that led to it; by that each is
 * known to belong to a visit, though most do not name their state.
 */
export class History {
  /** All visits, in order. */
  visits = [];
  lastId = 0;
  #visitOf = new Map();

  constructor(events = []) {
    for (const event of events) this.add(event);
  }

  /** Takes the next event; false for one that does not follow on the last. */
  add(event) {
    if (event.id !== this.lastId + 1) return event.id <= this.lastId;
    this.lastId = event.id;
    this.#visitOf.set(event.id, this.#take(event));
    return true;
  }

  /** The visits of a state. */
  of(state) {
    return this.visits.filter((visit) => visit.state === state);
  }

  #take(event) {
    const before = this.#visitOf.get(event.previous) ?? null;
    const { type, at, state } = event;
    const entered = type.match(/^(\w+)StateEntered$/);
    if (entered) return this.#enter(event, entered[1], before);
    if (type.endsWith("StateExited")) return this.#exit(event, before);
    if (type.startsWith("MapIteration")) return this.#iterate(event, before);
    if (/^(Task|LambdaFunction)Scheduled$/.test(type) && before) {
      before.attempts += 1;
      before.status = "active";
    } else if (FAILED.test(type) && before) {
      before.errors.push({ error: event.error, cause: event.cause, at });
      before.status = "retrying";
    } else if (type === "MapStateStarted" && before) {
      before.iterations = Array.from({ length: event.length ?? 0 }, (_, index) => ({ index, status: "idle", started: null, ended: null }));
    } else if (/^(Map|Parallel)StateFailed$/.test(type)) {
      const visit = this.#open((it) => it.kind === type.replace("StateFailed", "")) ?? before;
      visit?.errors.push(before?.errors.at(-1) ?? { error: event.error, cause: event.cause, at });
      return visit;
    } else if (/StateAborted$/.test(type)) {
      const kind = type.replace("StateAborted", "");
      const visit = before?.kind === kind ? before : this.#open((it) => it.kind === kind);
      visit?.end("aborted", at);
      return visit;
    } else if (/^Execution(Failed|Aborted|TimedOut|Succeeded)$/.test(type)) {
      this.#finish(type, at);
    } else if (type === "ExecutionRedriven") {
      this.#goOn();
    }
    return state && before?.state !== state ? (this.#open((it) => it.state === state) ?? before) : before;
  }

  #enter(event, kind, before) {
    // Where the last event was the start of an iteration, the visit is in that.
    const visit = new Visit(event.state, kind, event.at, before?.inside ?? before?.iteration ?? null);
    visit.from = before;
    if (kind === "Fail") visit.end("failed", event.at);
    this.visits.push(visit);
    return visit;
  }

  #exit({ state, at }, before) {
    const visit = before?.state === state && before.ended === null ? before : this.#open((it) => it.state === state);
    visit?.end(visit.status === "retrying" || (visit.errors.length && visit.kind !== "Task") ? "caught" : "succeeded", at);
    return visit ?? before;
  }

  #iterate({ type, state, index, at }, before) {
    const map = this.#open((it) => it.state === state && it.kind === "Map");
    if (!map) return before;
    const iteration = (map.iterations[index] ??= { index, status: "idle", started: null, ended: null });
    iteration.map = map;
    if (type === "MapIterationStarted") {
      Object.assign(iteration, { status: "active", started: at });
      return { inside: iteration, state: map.state, kind: "Iteration", errors: [], ended: at };
    }
    const status = { MapIterationSucceeded: "succeeded", MapIterationFailed: "failed", MapIterationAborted: "aborted" }[type];
    Object.assign(iteration, { status, ended: at });
    for (const visit of this.visits) if (visit.iteration === iteration) visit.end(status, at);
    return before;
  }

  /** How the execution ended is how whatever was open in it ended. */
  #finish(type, at) {
    const status = { ExecutionFailed: "failed", ExecutionTimedOut: "failed", ExecutionAborted: "aborted", ExecutionSucceeded: "succeeded" }[type];
    for (const visit of this.visits) {
      visit.end(status, at);
      for (const iteration of visit.iterations) if (iteration.status === "active") Object.assign(iteration, { status, ended: at });
    }
  }

  /** What was cut off by the end goes on: https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html */
  #goOn() {
    const wasCutOff = (it) => it.status === "failed" || it.status === "aborted";
    for (const visit of this.visits) {
      for (const it of [visit, ...visit.iterations]) if (wasCutOff(it)) Object.assign(it, { status: "active", ended: null });
    }
  }

  #open(isIt) {
    return this.visits.findLast((visit) => visit.ended === null && isIt(visit));
  }
}

const WORST = ["active", "retrying", "failed", "aborted", "caught", "succeeded"];

/** What a state came to, over all its visits: its status, retries, errors and time. */
export function sum(visits) {
  if (visits.length === 0) return { status: "idle", retries: 0, errors: [], visits: 0 };
  const status = WORST.find((it) => visits.some((visit) => visit.status === it)) ?? "active";
  return {
    status,
    visits: visits.length,
    done: visits.filter((visit) => visit.ended !== null).length,
    retries: visits.reduce((retries, visit) => retries + visit.retries, 0),
    errors: visits.flatMap((visit) => visit.errors),
    started: Math.min(...visits.map((visit) => visit.started)),
    ended: visits.every((visit) => visit.ended !== null) ? Math.max(...visits.map((visit) => visit.ended)) : null,
  };
}
