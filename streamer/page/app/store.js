// What is known of the session: utterances and their entities, folded from what was sent and what
// came back. No DOM.

/** Final utterances at hand: to be seen, heard, and kept over a reload. */
const MOST_FINALS = 400;
/** Older ones, for the exports: as text in blobs, which are not on the page's heap. */
const MOST_BLOBS = 200;
const FINALS_IN_BLOB = 100;
const MOST_NAMES = 1_000;
/** Mentions of one name that can be heard. */
export const MOST_MENTIONS = 8;

/**
 * @typedef {object} Utterance
 * @property {string} key Unique on this page.
 * @property {string} text
 * @property {boolean} final
 * @property {any[]} entities
 * @property {[number, number][]} characters
 * @property {boolean | null} audioUsed
 * @property {number} startedMs When its text first came, on the audio clock.
 * @property {number} endedMs When its text last came.
 * @property {string} recording Whose audio clock its times are on.
 */

export class Store {
  #open = new Map();
  /** The newest. @type {Utterance[]} */
  finals = [];
  /** Of all finals. */
  count = 0;
  #names = new Map();
  #blobs = [];
  #old = []; // for the next blob

  /** Utterances that are not final, in the order in which they began. */
  get open() {
    return [...this.#open.values()];
  }

  /** The newest, the last one last. */
  newest(count) {
    const open = this.open;
    return [...this.finals.slice(-Math.max(0, count - open.length)), ...open].slice(-count);
  }

  /**
   * A revision was sent.
   * @param {string} recording
   * @param {import("../ledger.js").Transcript} transcript
   * @param {number} nowMs
   */
  sent(recording, transcript, nowMs) {
    const key = `${recording}/${transcript.utterance}`;
    const known = this.#open.get(key);
    const utterance = known ?? this.#begin(key, recording, nowMs);
    utterance.text = transcript.text;
    utterance.endedMs = nowMs;
    // What is no longer in the text is not shown, until the server says what it is now.
    utterance.entities = utterance.entities.filter((entity) => isInText(entity, transcript.text));
    this.#open.set(key, utterance);
  }

  upsert(recording, message) {
    const utterance = this.#open.get(`${recording}/${message.utterance}`);
    if (!utterance) return;
    const rest = utterance.entities.filter(({ id }) => id !== message.entity.id);
    utterance.entities = isInText(message.entity, utterance.text) ? [...rest, message.entity] : rest;
  }

  retract(recording, message) {
    const utterance = this.#open.get(`${recording}/${message.utterance}`);
    if (!utterance) return;
    utterance.entities = utterance.entities.filter(({ id }) => id !== message.id);
  }

  finish(recording, message) {
    const key = `${recording}/${message.utterance}`;
    const known = this.#open.get(key) ?? this.#begin(key, recording, 0);
    this.#open.delete(key);
    const utterance = {
      ...known,
      text: message.text,
      final: true,
      entities: message.entities,
      characters: message.characters,
      audioUsed: message.audio_used,
    };
    this.add(utterance);
    return utterance;
  }

  /** @param {Utterance} utterance A final one. */
  add(utterance) {
    this.count += 1;
    this.finals.push(utterance);
    for (const entity of utterance.entities) this.#mention(utterance, entity);
    if (this.finals.length <= MOST_FINALS) return;
    this.#old.push(JSON.stringify(this.finals.shift()));
    if (this.#old.length < FINALS_IN_BLOB) return;
    this.#blobs.push(new Blob([`[${this.#old.splice(0)}]`]));
    if (this.#blobs.length > MOST_BLOBS) this.#blobs.shift();
  }

  /** Every final there is, for a file. */
  async all() {
    const finals = [...this.#old.map((text) => JSON.parse(text)), ...this.finals];
    const old = await Promise.all(this.#blobs.map((blob) => blob.text()));
    return [...old.flatMap((text) => JSON.parse(text)), ...finals];
  }

  /** What a recording left unanswered is no longer shown. */
  giveUp(recording) {
    for (const [key, utterance] of this.#open) {
      if (utterance.recording === recording) this.#open.delete(key);
    }
  }

  /** The names of all finals, the most frequent first, each with its newest mentions. */
  names() {
    return [...this.#names.values()].sort((a, b) => b.count - a.count);
  }

  #mention({ key, recording }, { id, label, text, start_ms, end_ms }) {
    const name = `${label}/${text}`;
    const known = this.#names.get(name) ?? { label, text, count: 0, mentions: [] };
    known.count += 1;
    known.mentions.push({ utterance: { key, recording }, entity: { id, start_ms, end_ms } });
    if (known.mentions.length > MOST_MENTIONS) known.mentions.shift();
    this.#names.set(name, known);
    if (this.#names.size <= MOST_NAMES) return;
    // The oldest of those that came once goes, or the oldest.
    const [[oldest]] = [...this.#names].sort(([, a], [, b]) => Math.min(a.count, 2) - Math.min(b.count, 2));
    this.#names.delete(oldest);
  }

  #begin(key, recording, nowMs) {
    return {
      key, recording, text: "", final: false, entities: [], characters: [], audioUsed: null,
      startedMs: nowMs, endedMs: nowMs,
    };
  }
}

function isInText(entity, text) {
  return text.slice(entity.start_utf16, entity.end_utf16) === entity.text;
}
