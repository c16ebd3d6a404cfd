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
   * @param {import("./store.js").Store} settings.store
   * @param {Hooks} settings.hooks
   */
  constructor({ name, sendsAudio, serverWrites, token, store, hooks }) {
    this.name = name;
    this.#store = store;
    this.#hooks = hooks;
    this.#sendsAudio = sendsAudio;
    const client = new CnertaClient(location.origin, {
      audio: { sample_rate: RATE },
      ...(token && { token }),
      ...(serverWrites && { start: { transcript: "server" } }),
    });
    this.#client = client;
    client.on("state", (state) => {
      this.state = { ...state, since: performance.now() };
      if (state.state === "failed") this.#fail(state.reason);
      hooks.onChange();
    });
    client.on("session.ready", ({ recorded, recovered }) => {
      this.isRecorded = recorded === true;
      if (recovered !== false) return;
      hooks.tell("anew");
      if (serverWrites) store.giveUp(name); // it will be heard, and written, again
    });
    client.on("transcript.update", (revision) => {
      store.sent(name, revision, this.#heardMs);
      hooks.onChange();
    });
    client.on("entity.upsert", (message) => this.#heard(message, () => store.upsert(name, message)));
    client.on("entity.retract", (message) => this.#heard(message, () => store.retract(name, message)));
    client.on("utterance.final", (message) =>
      this.#heard(message, () => {
        this.audioUsed = message.audio_used;
        hooks.onFinal(store.finish(name, message));
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
    this.#store.sent(this.name, transcript, this.#heardMs);
    const { start_ms, end_ms, ...text } = transcript;
    this.#client.sendTranscript(this.#sendsAudio ? transcript : text);
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
