// The JavaScript client of cnerta-stream, for browsers and Node (22 or newer). No dependencies.
// An example: docs/how-to/browser.md.
//
// What it promises, across lost connections and restarted servers: every final transcript gets
// exactly one `utterance.final`; `seq` rises by one with every event; times are on the clock of the
// audio that the application gave. What is lost all the same is told by the event `lost`.

import { Ledger } from "./ledger.js";

/** @typedef {import("./ledger.js").Transcript} Transcript */

/**
 * @typedef {object} AudioFormat
 * @property {"pcm_s16le" | "pcm_f32le" | "mulaw" | "alaw"} [encoding]
 * @property {number} [sample_rate] In Hz, 8000 to 48000.
 * @property {number} [channels] Interleaved, 1 to 8.
 */

/**
 * @typedef {object} Entity See `Entity` in docs/reference/messages.md.
 * @property {string} id
 * @property {number} version
 * @property {"tentative" | "stable" | "final"} status
 * @property {string} label
 * @property {string} text
 * @property {number} start
 * @property {number} end
 * @property {number} start_utf16
 * @property {number} end_utf16
 * @property {string | null} parent
 * @property {number | null} start_ms
 * @property {number | null} end_ms
 * @property {"alignment" | "transcript" | "none"} time_source
 * @property {number} confidence
 * @property {boolean} audio_used
 */

/**
 * @typedef {object} ClientOptions
 * @property {AudioFormat} [audio] 16 kHz, one channel, 16-bit unless said otherwise.
 * @property {string} [token] Opens the session, where the server asks for one.
 * @property {object} [start] Further fields of `session.start`: labels, nested, interim,
 *   min_status, max_delay_ms, hold_ms, readings, glossary; `transcript: "server"` where the server has a recogniser.
 * @property {number} [keepMs] Audio that is remembered for a server that must be told again.
 * @property {number} [silentMs] A server that owes something and says nothing for so long is
 *   `silent`.
 * @property {number} [deadMs] For so long, and the connection is given up.
 * @property {number} [attempts] Attempts in a row before the client gives up.
 * @property {typeof WebSocket} [WebSocket] Another than the global one.
 * @property {() => number} [now] Milliseconds that only rise.
 * @property {() => number} [random] From 0 to 1.
 */

/** @typedef {"connecting" | "live" | "silent" | "waiting" | "finished" | "failed"} State */

const PATH = "/v1/stream";
const SUBPROTOCOL = "cnerta.v1";
const FRAME_MS = 100;
const TICK_MS = 100;
const OPEN_TIMEOUT_MS = 10_000;
/** What may wait in the socket itself. */
const MOST_BUFFERED_BYTES = 64 * 1024;
/** Audio that may wait in the client before `sendAudio` asks for patience. */
const MOST_BACKLOG_MS = 1_000;
/** Of the lead over real time that the server allows, how much is used. */
const AHEAD_SHARE = 0.5;
/** The server acknowledges audio about once a second. */
const UNACKNOWLEDGED_MS = 1_050;
const BACKOFF_MS = 250;
const LONGEST_BACKOFF_MS = 15_000;
const SAMPLE_BYTES = { pcm_s16le: 2, pcm_f32le: 4, mulaw: 1, alaw: 1 };
/** Closes of the transport that would only happen again. */
const HOPELESS = new Set([1002, 1003, 1007, 1009, 1010]);
/** Errors of a resume: a new session is begun in its place. */
const NOT_RESUMED = new Set(["unknown_session", "invalid_last_seq"]);

/** Why a session ended before its time, and what of it is unanswered. */
export class CnertaError extends Error {
  /**
   * @param {string} message
   * @param {{code?: number, name?: string, unanswered?: string[], audioMs?: number}} about
   */
  constructor(message, { code = 0, name = "", unanswered = [], audioMs = 0 } = {}) {
    super(message);
    this.name = "CnertaError";
    /** The code of the close, 0 where there was none. */
    this.code = code;
    /** Of the error in the protocol. */
    this.error = name;
    /** Utterances whose final transcript got no answer. */
    this.unanswered = unanswered;
    /** Audio that the application had given. */
    this.audioMs = audioMs;
  }
}

/**
 * How long to wait before an attempt: doubling, with jitter, so that the clients of a server that
 * comes back do not all come at once.
 * @param {number} attempt From 0.
 * @param {number} random From 0 to 1.
 * @param {number} [atLeastMs] What the server asked for.
 */
export function backoffMs(attempt, random, atLeastMs = 0) {
  const full = Math.min(LONGEST_BACKOFF_MS, BACKOFF_MS * 2 ** attempt);
  return Math.max(atLeastMs, full / 2) + (random * full) / 2;
}

/** One session with a server, over as many connections as it takes. */
export class CnertaClient {
  #urls;
  #options;
  #ledger;
  #format;
  #listeners = /** @type {Map<string, Set<Function>>} */ (new Map());
  #socket = /** @type {WebSocket | null} */ (null);
  #state = /** @type {State} */ ("connecting");
  #server = /** @type {any} */ (null); // the session.ready of this connection
  #hadSession = false;
  #resume = /** @type {{token: string, ttl_s: number} | null} */ (null);
  #lastSeq = 0; // of the server's session
  #seq = 0; // as the application sees it
  #session = 0; // sessions of servers so far
  #shown = /** @type {Map<string, Map<string, any>>} */ (new Map()); // entities by utterance
  #sentAgain = /** @type {Set<string>} */ (new Set());
  #totals = { utterances: 0, entities: 0 };
  #attempt = 0;
  #lastError = /** @type {any} */ (null);
  #toldLostMs = 0;
  #ackedMs = 0; // on the session's clock
  #readyAt = 0;
  #startedAt = 0;
  #heardAt = 0;
  #unackedSince = 0;
  #owedSince = 0;
  #sentAt = 0;
  #closing = false; // the application wants no more
  #finishing = /** @type {{promise: Promise<any>, resolve: Function, reject: Function} | null} */ (null);
  #finishSent = false;
  #room = /** @type {(() => void)[]} */ ([]);
  #timer;
  #retry = /** @type {any} */ (null);

  /**
   * Connect; what is sent before the session is ready waits for it.
   * @param {string | URL | (string | URL)[]} url One address, or several to be tried in turn.
   * @param {ClientOptions} [options]
   */
  constructor(url, options = {}) {
    this.#urls = (Array.isArray(url) ? url : [url]).map(address);
    this.#options = {
      keepMs: 60_000,
      silentMs: 1_700,
      deadMs: 8_000,
      attempts: Infinity,
      WebSocket: globalThis.WebSocket,
      now: () => performance.now(),
      random: Math.random,
      ...options,
    };
    if (!this.#options.WebSocket) {
      throw new TypeError("expected a WebSocket (browsers, Node 22), got none: pass one as option");
    }
    this.#format = { encoding: "pcm_s16le", sample_rate: 16_000, channels: 1, ...options.audio };
    this.#ledger = new Ledger({
      sampleRate: this.#format.sample_rate,
      frameBytes: SAMPLE_BYTES[this.#format.encoding] * this.#format.channels,
      keepMs: this.#options.keepMs,
    });
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#connect();
  }

  // --- for the application ---

  /**
   * Listen. Messages of the server come under their `type`, all of them under `message`; `state`
   * comes as `{state, reason, retryInMs}`, and `lost` as `{audio_ms, reason}`.
   * @param {string} type
   * @param {(message: any) => void} listener
   * @returns {() => void} Ends it.
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** Utterances whose final transcript is not answered yet. */
  get unanswered() {
    return this.#ledger.unanswered;
  }

  /** Audio that was given, in milliseconds: the clock of all times. */
  get audioMs() {
    return this.#ledger.audioMs;
  }

  /** Audio that was given and is not sent yet, in milliseconds. */
  get backlogMs() {
    return this.#ledger.backlogMs;
  }

  /**
   * Send audio. Whoever can wait (a file) waits for the promise; whoever cannot (a microphone) goes
   * on, and what does not fit into `keepMs` is lost and told.
   * @param {ArrayBuffer | ArrayBufferView} samples Whole frames; they are kept, so give them away.
   * @returns {Promise<void>} When there is room for more.
   */
  sendAudio(samples) {
    this.#assertOpen();
    const bytes = ArrayBuffer.isView(samples)
      ? new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength)
      : new Uint8Array(samples);
    this.#ledger.addAudio(bytes);
    this.#pump();
    if (this.#hasRoom()) return Promise.resolve();
    return new Promise((resolve) => this.#room.push(resolve));
  }

  /**
   * Send a revision of an utterance's text. It goes out after the audio that was given before.
   * @param {Transcript} transcript Times, if any, on the clock of the audio.
   */
  sendTranscript(transcript) {
    this.#assertOpen();
    this.#ledger.addTranscript({ ...transcript });
    this.#pump();
  }

  /**
   * Change options in mid-stream; they hold for later connections too.
   * @param {object} options Fields of `session.update`, but for `audio`.
   */
  update(options) {
    this.#assertOpen();
    this.#options.start = { ...this.#options.start, ...options };
    if (this.#server) this.#send({ type: "session.update", ...options });
  }

  /**
   * Have everything answered, then end.
   * @returns {Promise<any>} The summary, of all sessions together.
   */
  finish() {
    if (!this.#finishing) {
      this.#finishing = Promise.withResolvers ? Promise.withResolvers() : withResolvers();
      this.#finishing.promise.catch(() => {}); // whoever awaits it hears of it
      if (this.#state === "failed") this.#finishing.reject(this.#failure());
      else this.#pump();
    }
    return this.#finishing.promise;
  }

  /** End at once; what is unanswered stays so. */
  close() {
    if (this.#isOver()) return;
    this.#closing = true;
    this.#end("finished", "closed by the application");
    this.#socket?.close(1000);
    this.#finishing?.reject(this.#failure("closed by the application"));
  }

  // --- connections ---

  #connect() {
    const { WebSocket, token, now } = this.#options;
    const url = this.#urls[this.#attempt % this.#urls.length];
    this.#enter("connecting");
    const protocols = token ? [SUBPROTOCOL, `bearer.${token}`] : [SUBPROTOCOL];
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#server = null;
    this.#finishSent = false;
    this.#lastError = null;
    this.#startedAt = this.#heardAt = now();
    socket.onopen = () => socket === this.#socket && this.#greet();
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onerror = () => {}; // a close follows
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#closed(code, reason);
    };
  }

  #greet() {
    const start = { type: "session.start", version: 1, audio: this.#format, ...this.#options.start };
    if (this.#resume) start.resume = { token: this.#resume.token, last_seq: this.#lastSeq };
    this.#send(start);
  }

  #closed(code, reason) {
    this.#socket = null;
    this.#server = null;
    if (this.#isOver()) return;
    const error = this.#lastError;
    if (NOT_RESUMED.has(error?.name) && this.#resume) {
      this.#resume = null;
      this.#connect();
      return;
    }
    const isRefused = code >= 4400 && code < 4500 && !error?.retryable;
    if (isRefused || HOPELESS.has(code) || this.#attempt + 1 >= this.#options.attempts) {
      this.#fail(error, code, reason);
      return;
    }
    const waitMs = backoffMs(this.#attempt, this.#options.random(), error?.retry_after_ms);
    this.#attempt += 1;
    this.#enter("waiting", error?.name || reason || `closed (${code})`, waitMs);
    this.#retry = setTimeout(() => this.#connect(), waitMs);
  }

  /** The server says nothing any more. @param {string} reason */
  #abandon(reason) {
    const socket = this.#socket;
    this.#socket = null; // its late messages and its close are nobody's
    socket?.close();
    this.#closed(1006, reason);
  }

  #fail(error, code, reason) {
    this.#lastError = error ?? { code, name: "", detail: reason };
    this.#end("failed", error?.detail || reason || `closed (${code})`);
    this.#finishing?.reject(this.#failure());
  }

  #failure(message = this.#lastError?.detail || "the server ended the session") {
    return new CnertaError(message, {
      code: this.#lastError?.code,
      name: this.#lastError?.name,
      unanswered: this.unanswered,
      audioMs: this.audioMs,
    });
  }

  #end(state, reason) {
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    this.#enter(state, reason);
    for (const resolve of this.#room.splice(0)) resolve();
  }

  // --- messages ---

  #receive(data) {
    this.#heardAt = this.#options.now();
    if (this.#state === "silent" && this.#server) this.#enter("live");
    const message = JSON.parse(data);
    switch (message.type) {
      case "session.ready":
        this.#ready(message);
        break;
      case "audio.ack":
        this.#ackedMs = message.received_ms;
        this.#unackedSince = this.#heardAt;
        this.#attempt = 0;
        this.#emit({ ...message, received_ms: this.#ledger.toClientMs(message.received_ms) });
        break;
      case "entity.upsert":
      case "entity.retract":
      case "utterance.final":
        this.#event(message);
        break;
      case "transcript.update": // the server's recogniser writes
        this.#emit({
          ...message,
          utterance: this.#utterance(message.utterance),
          start_ms: this.#ledger.toClientMs(message.start_ms ?? null),
          end_ms: this.#ledger.toClientMs(message.end_ms ?? null),
        });
        break;
      case "caption.update": // with hold_ms
        this.#emit({
          ...message,
          utterance: this.#utterance(message.utterance),
          entities: message.entities.map((entity) => this.#entity(entity)),
        });
        break;
      case "warning":
        this.#warning(message);
        break;
      case "error":
        this.#lastError = message;
        this.#emit(message);
        break;
      case "session.going_away":
        if (message.resume) this.#resume = message.resume;
        this.#emit(message);
        break;
      case "session.summary":
        this.#summary(message);
        break;
      default: // of a newer server
        this.#emit(message);
    }
    this.#pump();
  }

  #ready(message) {
    const isRecovered = this.#resume !== null && message.recovered === true;
    this.#server = message;
    this.#resume = message.resume ?? null;
    this.#sentAgain = new Set();
    if (isRecovered) {
      this.#ledger.resume(
        message.audio_received_samples ??
          Math.round((message.audio_received_ms * this.#format.sample_rate) / 1000),
      );
    } else {
      this.#session += 1;
      this.#lastSeq = 0;
      this.#readyAt = this.#options.now();
      if (this.#hadSession) this.#startAnew();
    }
    if (this.#hadSession) this.#sentAgain = new Set(this.#ledger.unanswered);
    this.#hadSession = true;
    this.#ackedMs = this.#ledger.sentMs;
    this.#unackedSince = this.#owedSince = this.#options.now();
    this.#enter("live");
    this.#emit({ ...message, recovered: this.#session > 1 || isRecovered ? isRecovered : undefined });
    this.#tellLost(isRecovered ? "gap" : "server");
  }

  /** A new session knows nothing of the entities that were not final: they are taken back. */
  #startAnew() {
    this.#ledger.restart();
    for (const [utterance, entities] of this.#shown) {
      for (const { id, revision } of entities.values()) {
        this.#deliver({
          type: "entity.retract",
          utterance,
          revision,
          id,
          reason: "session_lost",
          behind_live_ms: 0,
        });
      }
    }
    this.#shown.clear();
  }

  #event(message) {
    if (message.seq <= this.#lastSeq) return; // replayed, and known
    this.#lastSeq = message.seq;
    message = { ...message, utterance: this.#utterance(message.utterance) };
    const { utterance } = message;
    if (message.type === "utterance.final") {
      const characters = message.characters.map((times) => times.map((ms) => this.#ledger.toClientMs(ms)));
      const endMs = characters.length ? characters.at(-1)[1] : null;
      this.#shown.delete(utterance);
      this.#owedSince = this.#heardAt;
      if (!this.#ledger.answer(utterance, endMs)) return;
      this.#attempt = 0;
      this.#totals.utterances += 1;
      this.#totals.entities += message.entities.length;
      const entities = message.entities.map((entity) => this.#entity(entity));
      this.#deliver({ ...message, entities, characters });
    } else if (message.type === "entity.upsert") {
      const entity = this.#entity(message.entity);
      const shown = this.#shown.get(utterance) ?? new Map();
      this.#shown.set(utterance, shown.set(entity.id, { id: entity.id, revision: message.revision }));
      this.#deliver({ ...message, entity });
    } else {
      const id = this.#id(message.id);
      this.#shown.get(utterance)?.delete(id);
      this.#deliver({ ...message, id });
    }
  }

  #warning(message) {
    // What was sent again had arrived after all: nobody did anything wrong.
    const isEcho = ["utterance_already_final", "revision_not_newer"].includes(message.name);
    if (isEcho && this.#sentAgain.size) return;
    this.#emit(message);
  }

  #summary(message) {
    this.#emit({ ...message, ...this.#totals, audio_ms: Math.round(this.audioMs) });
    this.#closing = true;
    this.#end("finished", "");
    this.#finishing?.resolve({ ...message, ...this.#totals, audio_ms: Math.round(this.audioMs) });
  }

  #entity(entity) {
    return {
      ...entity,
      id: this.#id(entity.id),
      parent: entity.parent === null ? null : this.#id(entity.parent),
      start_ms: this.#ledger.toClientMs(entity.start_ms),
      end_ms: this.#ledger.toClientMs(entity.end_ms),
    };
  }

  /** Ids of a later session are not those of an earlier one. @param {string} id */
  #id(id) {
    return this.#session > 1 ? `${id}~${this.#session}` : id;
  }

  /** Names that a server gives begin again with each session. @param {string} utterance */
  #utterance(utterance) {
    return this.#serverWrites && this.#session > 1 ? `${utterance}~${this.#session}` : utterance;
  }

  get #serverWrites() {
    return this.#options.start?.transcript === "server";
  }

  #deliver(event) {
    this.#seq += 1;
    this.#emit({ ...event, seq: this.#seq });
  }

  // --- sending ---

  #pump() {
    if (!this.#server || !this.#socket || this.#finishSent) return;
    const { limits } = this.#server;
    const rate = this.#format.sample_rate;
    const frames = Math.max(1, Math.round((rate * FRAME_MS) / 1000));
    const mostOwed = Math.max(1, Math.floor(limits.max_open_utterances / 2));
    while (this.#socket.bufferedAmount < MOST_BUFFERED_BYTES) {
      const item = this.#ledger.next(frames);
      if (!item) break;
      if ("transcript" in item) {
        if (item.transcript.final && this.#ledger.owed >= mostOwed) break;
        if (item.transcript.final && !this.#ledger.owed) this.#owedSince = this.#options.now();
        this.#send({ type: "transcript", ...item.transcript });
      } else {
        if (this.#isTooEarly(limits.max_audio_ahead_ms)) break;
        if (this.#ledger.sentMs <= this.#ackedMs) this.#unackedSince = this.#options.now();
        this.#socket.send(item.audio);
        this.#sentAt = this.#options.now();
      }
      this.#ledger.took(item);
    }
    this.#tellLost("too_slow");
    if (this.#hasRoom()) for (const resolve of this.#room.splice(0)) resolve();
    if (this.#finishing && this.#ledger.isEmpty) {
      this.#finishSent = true;
      this.#owedSince = this.#options.now();
      this.#send({ type: "session.finish" });
    }
  }

  #isTooEarly(allowedMs) {
    if (allowedMs == null) return false;
    const elapsedMs = this.#options.now() - this.#readyAt;
    return this.#ledger.sentMs > elapsedMs + AHEAD_SHARE * allowedMs;
  }

  #hasRoom() {
    return this.#isOver() || this.#ledger.backlogMs < MOST_BACKLOG_MS;
  }

  #send(message) {
    this.#socket?.send(JSON.stringify(message));
    this.#sentAt = this.#options.now();
  }

  // --- time ---

  #tick() {
    if (!this.#socket) return;
    const now = this.#options.now();
    if (!this.#server) {
      if (now - this.#startedAt > OPEN_TIMEOUT_MS) this.#abandon("no answer");
      else if (now - this.#startedAt > this.#options.silentMs) this.#enter("silent", "connecting");
      return;
    }
    const silentMs = this.#silentMs(now);
    if (silentMs > this.#options.deadMs) this.#abandon("silent");
    else if (silentMs > this.#options.silentMs) this.#enter("silent");
    else this.#keepAlive(now);
    this.#pump();
  }

  /** How long the server has owed something without a word. @param {number} now */
  #silentMs(now) {
    const since = [];
    if (this.#ledger.sentMs - this.#ackedMs > UNACKNOWLEDGED_MS) since.push(this.#unackedSince);
    if (this.#ledger.owed || this.#finishSent) since.push(this.#owedSince);
    return since.length ? now - Math.max(this.#heardAt, Math.min(...since)) : 0;
  }

  #keepAlive(now) {
    const idleMs = this.#server.limits.idle_timeout_ms;
    if (idleMs != null && now - this.#sentAt > idleMs / 3) this.#send({ type: "keepalive" });
  }

  // --- small things ---

  #tellLost(reason) {
    const ms = Math.round(this.#ledger.lostMs - this.#toldLostMs);
    if (ms < 1) return;
    this.#toldLostMs = this.#ledger.lostMs;
    this.#emit({ type: "lost", audio_ms: ms, reason });
  }

  #enter(state, reason = "", retryInMs = 0) {
    if (this.#state === state && state !== "waiting") return;
    this.#state = state;
    this.#emit({ type: "state", state, reason, retryInMs });
  }

  #emit(message) {
    for (const type of [message.type, "message"]) {
      for (const listener of this.#listeners.get(type) ?? []) listener(message);
    }
  }

  #isOver() {
    return this.#state === "finished" || this.#state === "failed";
  }

  #assertOpen() {
    if (this.#state === "failed") throw this.#failure();
    if (this.#closing || this.#finishing) {
      throw new Error("expected a session that goes on, got one that was told to end");
    }
  }
}

/** @param {string | URL} url */
function address(url) {
  const parsed = new URL(url);
  parsed.protocol = parsed.protocol.replace("http", "ws");
  if (parsed.pathname === "/") parsed.pathname = PATH;
  return parsed.href;
}

/** What `Promise.withResolvers` does, for browsers that have it not. */
function withResolvers() {
  let resolve, reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
}
