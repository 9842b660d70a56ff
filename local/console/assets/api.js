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
 */
class Live extends EventTarget {
  connected = false;

  connect() {
    const source = new EventSource("/api/stream");
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => this.#tell(kind, JSON.parse(message.data)));
    }
    source.addEventListener("hello", () => this.#state(true));
    source.addEventListener("error", () => {
      this.#state(false);
      // A refusal is final for the browser: a server that starts again is looked for all the same.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#reconnect(), 2000);
    });
  }

  #reconnect() {
    this.connect();
    this.#tell("resync", {});
  }

  #state(connected) {
    this.connected = connected;
    this.#tell("connection", connected);
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  on(kind, listener, signal) {
    this.addEventListener(kind, (event) => listener(event.detail), { signal });
  }
}

export const live = new Live();
