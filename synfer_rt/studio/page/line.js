// One request is under way at a time, and of each kind only the newest waits. What a slider has
// passed in the meantime is never made, and the image of where it stands is always the next.

const ORDER = ["now", "before", "strip", "copies"];
const GIVES_WAY = 500; // milliseconds after which a request is broken off for a newer "now"

export class Line {
  #waiting = new Map();
  #underWay = null;
  #send;

  // `send(kind, body, signal)` is a promise of an answer.
  constructor(send) {
    this.#send = send;
  }

  ask(kind, body, done, failed) {
    this.#waiting.set(kind, { kind, body, done, failed });
    const current = this.#underWay;
    if (kind === "now" && current && performance.now() - current.begun > GIVES_WAY) current.abort.abort();
    this.#next();
  }

  async #next() {
    const kind = ORDER.find((each) => this.#waiting.has(each));
    if (this.#underWay || !kind) return;
    const task = this.#waiting.get(kind);
    this.#waiting.delete(kind);
    this.#underWay = task;
    task.abort = new AbortController();
    task.begun = performance.now();
    try {
      task.done(await this.#send(kind, task.body, task.abort.signal));
    } catch (error) {
      if (error.name !== "AbortError") task.failed(error);
      else if (kind !== "now" && !this.#waiting.has(kind)) this.#waiting.set(kind, task);
    } finally {
      this.#underWay = null;
      this.#next();
    }
  }
}
