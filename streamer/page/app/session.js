// One session of the page: a client, what it is given, and what is told of it.

import { CnertaClient } from "../client.js";
import { RATE } from "../sources/samples.js";
import { AudioHistory } from "./player.js";

/**
 * @typedef {object} Hooks
 * @property {() => void} onAudio There is more of it.
 * @property {() => void} onChange Something is to be drawn anew.
 * @property {(utterance: import("./store.js").Utterance) => void} onFinal
 * @property {(key: string, values?: Record<string, string | number>, isBad?: boolean) => void} tell
 */

export class Session {
  /** Audio as it was given to the server. */
  history = new AudioHistory();
  state = { state: "connecting", reason: "", since: performance.now() };
  behindMs = null;
  audioUsed = null;
  isRecorded = false;
  #client;
  #store;
  #hooks;
  #sendsAudio;
  #withholding;
  #heardMs = 0;
  #error = "";
  /** Whether audio is withheld from the server. */
  get isTextOnly() {
    return !this.#sendsAudio;
  }

  /**
   * @param {object} settings
   * @param {string} settings.name Unique on this page.
   * @param {boolean} settings.sendsAudio False: the server gets the text alone.
   * @param {string} settings.token
   * @param {boolean} settings.serverWrites The server's recogniser writes the transcript.
   * @param {number} [settings.holdMs] How long text is held back at most.
   * @param {string[]} [settings.mask] Types of names that are hidden.
   * @param {import("./withholding.js").Withholding | null} [settings.withholding] Null: no text is held back.
   * @param {import("./store.js").Store} settings.store
   * @param {Hooks} settings.hooks
   */
  constructor({ name, sendsAudio, serverWrites, token, holdMs, mask = [], withholding = null, store, hooks }) {
    this.name = name;
    this.#store = store;
    this.#hooks = hooks;
    this.#sendsAudio = sendsAudio;
    this.#withholding = withholding;
    const start = { ...(serverWrites && { transcript: "server" }), ...(withholding && { hold_ms: holdMs }) };
    const client = new CnertaClient(location.origin, { audio: { sample_rate: RATE }, ...(token && { token }), start });
    this.#client = client;
    client.on("state", (state) => {
      this.state = { ...state, since: performance.now() };
      if (state.state === "failed") this.#fail(state.reason);
      hooks.onChange();
    });
    client.on("session.ready", ({ recorded, recovered, model }) => {
      const unknown = mask.find((label) => !model.labels.includes(label));
      if (unknown) {
        // Nothing of that type would ever be hidden.
        hooks.tell("unknownMask", { label: unknown, labels: model.labels.join(", ") }, true);
        client.close();
        return;
      }
      this.isRecorded = recorded === true;
      if (recovered !== false) return;
      hooks.tell("anew");
      if (serverWrites) store.giveUp(name); // it will be heard, and written, again
    });
    client.on("transcript.update", (revision) => {
      store.sent(name, revision, this.#heardMs);
      hooks.onChange();
    });
    client.on("caption.update", (message) => {
      const told = withholding ? withholding.caption(message) : message;
      store.release(name, told, this.#heardMs);
      hooks.onChange();
    });
    if (!withholding?.hides) this.#followEntities(client);
    client.on("utterance.final", (message) =>
      this.#heard(message, () => {
        this.audioUsed = message.audio_used;
        hooks.onFinal(store.finish(name, withholding ? withholding.final(message) : message));
      }),
    );
    client.on("error", ({ name: error }) => (this.#error = error));
    client.on("warning", ({ name, detail }) => {
      // After an interruption, what was kept is caught up with: that is as it should be.
      if (name !== "audio_ahead_of_realtime") hooks.tell("warning", { detail });
    });
    client.on("lost", ({ audio_ms }) => hooks.tell("lostAudio", { s: (audio_ms / 1000).toFixed(1) }, true));
  }

  /** Audio so far, sent or withheld, in milliseconds. */
  get audioMs() {
    return this.#heardMs;
  }

  /** Audio that waits for the connection. */
  get backlogMs() {
    return this.#client.backlogMs;
  }

  get isOver() {
    return this.state.state === "finished" || this.state.state === "failed";
  }

  audio(samples) {
    this.#heardMs += (1000 * samples.length) / RATE;
    this.history.push(samples);
    if (this.#sendsAudio && !this.isOver) this.#client.sendAudio(samples);
    this.#hooks.onAudio();
  }

  transcript(transcript) {
    if (this.isOver) return;
    const text = this.#withholding ? this.#withholding.released(transcript.utterance) : transcript.text;
    this.#store.sent(this.name, { ...transcript, text }, this.#heardMs);
    const { start_ms, end_ms, ...untimed } = transcript;
    this.#client.sendTranscript(this.#sendsAudio ? transcript : untimed);
    this.#hooks.onChange();
  }

  /** Have everything answered, then end. */
  async finish() {
    try {
      await this.#client.finish();
    } catch {
      // The state has told it.
    }
    this.#store.giveUp(this.name);
    this.#hooks.onChange();
  }

  #followEntities(client) {
    client.on("entity.upsert", (message) => this.#heard(message, () => this.#store.upsert(this.name, message)));
    client.on("entity.retract", (message) => this.#heard(message, () => this.#store.retract(this.name, message)));
  }

  #heard(message, change) {
    this.behindMs = message.behind_live_ms;
    change();
    this.#hooks.onChange();
  }

  #fail(detail) {
    if (this.#error === "no_recogniser") this.#hooks.tell("no_recogniser", {}, true);
    else this.#hooks.tell("failedBecause", { detail }, true);
    const n = this.#client.unanswered.length;
    if (n) this.#hooks.tell("unanswered", { n }, true);
  }
}
