// What a client of cnerta-stream has to remember until it is answered: audio, transcripts, and how
// the clock of each server session lies on the client's own. No sockets and no timers.

/**
 * @typedef {object} Transcript One revision of an utterance, as on the wire.
 * @property {string} utterance The caller's own id.
 * @property {number} revision Rises with every revision.
 * @property {boolean} final Whether the text will not change any more.
 * @property {string} text At most 4096 code points.
 * @property {number} [start_ms] On the client's audio clock.
 * @property {number} [end_ms] On the client's audio clock.
 */

/** Answered utterances whose names are remembered, so that nothing is delivered twice. */
const ANSWERED_KEPT = 4096;
/** Audio before an utterance that the server may look at. */
const MARGIN_MS = 200;

/** Audio as it came, by frames (one sample of each channel), the oldest forgotten. */
class AudioStore {
  #chunks = /** @type {{start: number, bytes: Uint8Array}[]} */ ([]);
  end = 0;

  /** @param {number} frameBytes Bytes of a frame. */
  constructor(frameBytes) {
    this.frameBytes = frameBytes;
  }

  /** First frame that is still here. */
  get first() {
    return this.#chunks.length ? this.#chunks[0].start : this.end;
  }

  /** @param {Uint8Array} bytes */
  append(bytes) {
    if (bytes.byteLength % this.frameBytes) {
      throw new RangeError(
        `expected whole frames of ${this.frameBytes} bytes, got ${bytes.byteLength} bytes`,
      );
    }
    if (!bytes.byteLength) return;
    this.#chunks.push({ start: this.end, bytes });
    this.end += bytes.byteLength / this.frameBytes;
  }

  /**
   * One piece from `from`, as far as one chunk goes, or null.
   * @param {number} from
   * @param {number} to
   */
  piece(from, to) {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#endOf(this.#chunks[middle]) <= from) low = middle + 1;
      else high = middle;
    }
    const chunk = this.#chunks[low];
    if (!chunk || chunk.start > from) return null;
    const last = Math.min(to, this.#endOf(chunk));
    return chunk.bytes.subarray(
      (from - chunk.start) * this.frameBytes,
      (last - chunk.start) * this.frameBytes,
    );
  }

  /** @param {number} before */
  forget(before) {
    let gone = 0;
    while (gone < this.#chunks.length && this.#endOf(this.#chunks[gone]) <= before) gone += 1;
    this.#chunks.splice(0, gone);
  }

  #endOf(chunk) {
    return chunk.start + chunk.bytes.byteLength / this.frameBytes;
  }
}

/** Everything unanswered, and the order in which it is to be sent. */
export class Ledger {
  #store;
  /** @type {Map<string, {message: Transcript, at: number}>} */
  #open = new Map();
  /** @type {Set<string>} Utterances whose newest revision waits to be sent. */
  #queue = new Set();
  /** @type {Set<string>} */
  #answered = new Set();
  /** @type {{session: number, client: number}[]} Where frames of the session lie on our clock. */
  #segments = [{ session: 0, client: 0 }];
  #claimed = 0;
  #sent = 0;

  /**
   * @param {object} settings
   * @param {number} settings.sampleRate In Hz.
   * @param {number} settings.frameBytes Bytes of one sample of all channels.
   * @param {number} settings.keepMs Most audio that is remembered.
   */
  constructor({ sampleRate, frameBytes, keepMs }) {
    this.sampleRate = sampleRate;
    this.keepMs = keepMs;
    this.#store = new AudioStore(frameBytes);
    /** Audio that was forgotten before the server had it. */
    this.lostMs = 0;
  }

  // --- what the application gives ---

  /** @param {Uint8Array} bytes Whole frames. */
  addAudio(bytes) {
    this.#store.append(bytes);
    this.#forget();
  }

  /**
   * @param {Transcript} message
   * @returns {boolean} False: its utterance is final already, so it is left out.
   */
  addTranscript(message) {
    const { utterance, revision } = message;
    const known = this.#open.get(utterance);
    if (this.#answered.has(utterance) || known?.message.final) return false;
    if (known && revision <= known.message.revision) return false;
    this.#open.set(utterance, { message, at: this.#store.end });
    this.#queue.delete(utterance);
    this.#queue.add(utterance);
    return true;
  }

  // --- what is to be sent ---

  /** Audio that the application has given, in milliseconds. */
  get audioMs() {
    return this.#ms(this.#store.end);
  }

  /** Of it, what has not been sent. */
  get backlogMs() {
    return this.#ms(this.#store.end - Math.max(this.#sent, this.#store.first));
  }

  /** Audio that this session was sent, on its own clock. */
  get sentMs() {
    return this.#ms(this.#toSession(this.#sent));
  }

  get isEmpty() {
    return !this.#queue.size && this.#sent >= this.#store.end;
  }

  /** Names of the utterances whose final text is not answered. */
  get unanswered() {
    return [...this.#open].filter(([, { message }]) => message.final).map(([name]) => name);
  }

  /** Finals that were sent on this connection and are not answered. */
  get owed() {
    return this.unanswered.filter((name) => !this.#queue.has(name)).length;
  }

  /**
   * What comes next: a transcript once the audio before it is sent, else audio.
   * @param {number} mostFrames Of one piece of audio.
   * @returns {{transcript: Transcript} | {audio: Uint8Array} | null}
   */
  next(mostFrames) {
    const [name] = this.#queue;
    const waiting = name === undefined ? undefined : this.#open.get(name);
    if (waiting && waiting.at <= this.#sent) return { transcript: this.#onSession(waiting.message) };
    if (this.#sent < this.#store.first) this.#skipTo(this.#store.first);
    const to = Math.min(this.#sent + mostFrames, waiting?.at ?? Infinity, this.#store.end);
    const audio = to > this.#sent ? this.#store.piece(this.#sent, to) : null;
    return audio && { audio };
  }

  /** What `next` gave has been sent. @param {{transcript?: Transcript, audio?: Uint8Array}} item */
  took(item) {
    if (item.transcript) this.#queue.delete(item.transcript.utterance);
    else if (item.audio) this.#sent += item.audio.byteLength / this.#store.frameBytes;
  }

  // --- what the server says ---

  /**
   * An utterance is answered.
   * @param {string} utterance
   * @param {number | null} endMs Where its speech ends on the client's clock, if known.
   * @returns {boolean} False: it was before.
   */
  answer(utterance, endMs) {
    if (this.#answered.has(utterance)) return false;
    const known = this.#open.get(utterance);
    this.#answered.add(utterance);
    if (this.#answered.size > ANSWERED_KEPT) {
      const [oldest] = this.#answered;
      this.#answered.delete(oldest);
    }
    this.#open.delete(utterance);
    this.#queue.delete(utterance);
    const end = endMs === null ? (known?.at ?? 0) : this.#frames(endMs);
    this.#claimed = Math.max(this.#claimed, Math.min(end, this.#store.end));
    this.#forget();
    return true;
  }

  /** The server has dropped an utterance that was not final. @param {string} utterance */
  drop(utterance) {
    if (!this.#open.get(utterance)?.message.final) this.#open.delete(utterance);
  }

  /**
   * The session goes on over a new connection.
   * @param {number} receivedFrames What the server has of it, on the session's clock.
   */
  resume(receivedFrames) {
    while (this.#segments.length > 1 && this.#segments.at(-1).session > receivedFrames) {
      this.#segments.pop();
    }
    this.#sent = Math.min(this.#toClient(receivedFrames), this.#store.end);
    this.#sendAgain();
  }

  /** A new session begins, and knows nothing of what was before. */
  restart() {
    const start = Math.max(this.#needed(), this.#store.first);
    this.#countLost(this.#needed(), start);
    this.#segments = [{ session: 0, client: start }];
    this.#sent = start;
    this.#sendAgain();
  }

  /** @param {number | null} ms On the session's clock. */
  toClientMs(ms) {
    return ms === null ? null : Math.round(this.#ms(this.#toClient(this.#frames(ms))));
  }

  // --- inside ---

  #sendAgain() {
    const open = [...this.#open].sort(([, a], [, b]) => a.at - b.at);
    this.#queue = new Set(open.map(([name]) => name));
  }

  /** First frame that a new session would have to hear. */
  #needed() {
    let needed = this.#claimed;
    for (const { message } of this.#open.values()) {
      if (message.start_ms == null) continue;
      needed = Math.min(needed, this.#frames(Math.max(0, message.start_ms - MARGIN_MS)));
    }
    return needed;
  }

  #forget() {
    const oldest = this.#store.end - this.#frames(this.keepMs);
    this.#store.forget(Math.max(oldest, Math.min(this.#needed(), this.#sent)));
  }

  #skipTo(frame) {
    this.#countLost(this.#sent, frame);
    this.#segments.push({ session: this.#toSession(this.#sent), client: frame });
    this.#sent = frame;
  }

  #countLost(from, to) {
    this.lostMs += Math.max(0, this.#ms(to - from));
  }

  #onSession(message) {
    const onSession = { ...message };
    for (const key of /** @type {const} */ (["start_ms", "end_ms"])) {
      const ms = message[key];
      if (ms == null) delete onSession[key];
      else onSession[key] = Math.round(this.#ms(this.#toSession(this.#frames(ms))));
    }
    return onSession;
  }

  #toSession(frame) {
    const segment = this.#segments.findLast(({ client }) => client <= frame) ?? this.#segments[0];
    const at = segment.session + Math.max(0, frame - segment.client);
    const following = this.#segments[this.#segments.indexOf(segment) + 1];
    return following ? Math.min(at, following.session) : at;
  }

  #toClient(frame) {
    const segment = this.#segments.findLast(({ session }) => session <= frame) ?? this.#segments[0];
    return segment.client + (frame - segment.session);
  }

  #ms(frames) {
    return (1000 * frames) / this.sampleRate;
  }

  #frames(ms) {
    return Math.round((ms * this.sampleRate) / 1000);
  }
}
