// The server: JSON on demand, and one stream of what happens.

/** An answer that is not the wanted one. */
export class Refused extends Error {
  constructor(status, { message, problems = [] }) {
    super(message);
    this.status = status;
    /** What is wrong with which field of an input: `{path, message}`. */
    this.problems = problems;
  }
}

async function answer(response) {
  if (response.status === 204) return null;
  const body = await response.json().catch(() => ({ message: `the server answered ${response.status}` }));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

export async function get(path, signal) {
  return answer(await fetch(`/api/${path}`, { signal }));
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return answer(await fetch(`/api/${path}`, { method: "POST", headers, body: JSON.stringify(body), signal }));
}

/** The path of an execution, whose id is `<state machine>/<name>`. */
export const pathOf = (id) => id.split("/").map(encodeURIComponent).join("/");

const KINDS = ["execution", "history", "build", "log", "bus", "delivery", "function", "resync"];

/**
 * What happens, from the moment of `connect` on. After a break the browser says what it saw last and
 * is sent the rest; where that is gone, `resync` says that everything has to be read anew.
 *
 * Browsers have six connections to a server, for all tabs together: one tab listens, and tells the
 * others. When it goes, one of these takes its place.
 */
class Live extends EventTarget {
  #tabs = new BroadcastChannel("archweld-live");
  #isConnected = false;
  #listens = false;

  connect() {
    this.#tabs.addEventListener("message", ({ data: [kind, detail] }) => {
      if (kind !== "ask") this.#hear(kind, detail);
      else if (this.#listens) this.#tell("connection", this.#isConnected);
    });
    this.#tabs.postMessage(["ask"]);
    const isFirst = navigator.locks.query().then(({ held }) => !held.some(({ name }) => name === "archweld-live"));
    navigator.locks.request("archweld-live", async () => {
      this.#listens = true;
      this.#listen();
      // What happened between the tab before and this one is not known.
      if (!(await isFirst)) this.#tell("resync", {});
      // Kept until the tab is gone.
      await new Promise(() => {});
    });
  }

  on(kind, listener, signal) {
    this.addEventListener(kind, (event) => listener(event.detail), { signal });
  }

  #listen() {
    const source = new EventSource("/api/stream");
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => this.#tell(kind, JSON.parse(message.data)));
    }
    source.addEventListener("hello", () => this.#tell("connection", true));
    source.addEventListener("error", () => {
      this.#tell("connection", false);
      // A refusal is final for the browser: a server that starts again is looked for all the same.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#again(), 2000);
    });
  }

  #again() {
    this.#listen();
    this.#tell("resync", {});
  }

  /** Tells all tabs, this one included. */
  #tell(kind, detail) {
    this.#tabs.postMessage([kind, detail]);
    this.#hear(kind, detail);
  }

  #hear(kind, detail) {
    if (kind === "connection") this.#isConnected = detail;
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

export const live = new Live();
