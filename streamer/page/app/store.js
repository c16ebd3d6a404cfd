// What is known of the session: utterances and their entities, folded from what was sent and what
// came back. No DOM.

/** Final utterances that keep their times; older ones stay in the exports only. */
const MOST_FINALS = 20_000;

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
  #open = /** @type {Map<string, Utterance>} */ (new Map());
  /** @type {Utterance[]} */
  finals = [];

  /** Utterances that are not final, in the order in which they began. */
  get open() {
    return [...this.#open.values()];
  }

  /** The newest, the last one last. @param {number} count */
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

  /** @param {string} recording @param {any} message */
  upsert(recording, message) {
    const utterance = this.#open.get(`${recording}/${message.utterance}`);
    if (!utterance) return;
    const rest = utterance.entities.filter(({ id }) => id !== message.entity.id);
    utterance.entities = isInText(message.entity, utterance.text) ? [...rest, message.entity] : rest;
  }

  /** @param {string} recording @param {any} message */
  retract(recording, message) {
    const utterance = this.#open.get(`${recording}/${message.utterance}`);
    if (!utterance) return;
    utterance.entities = utterance.entities.filter(({ id }) => id !== message.id);
  }

  /** @param {string} recording @param {any} message @returns {Utterance} */
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
    this.finals.push(utterance);
    if (this.finals.length > MOST_FINALS) this.finals.shift();
    return utterance;
  }

  /** What a recording left unanswered is no longer shown. @param {string} recording */
  giveUp(recording) {
    for (const [key, utterance] of this.#open) {
      if (utterance.recording === recording) this.#open.delete(key);
    }
  }

  /** The names of all finals, the most frequent first. */
  names() {
    const names = new Map();
    for (const utterance of this.finals) {
      for (const entity of utterance.entities) {
        const key = `${entity.label}/${entity.text}`;
        const known = names.get(key) ?? { label: entity.label, text: entity.text, mentions: [] };
        known.mentions.push({ utterance, entity });
        names.set(key, known);
      }
    }
    return [...names.values()].sort((a, b) => b.mentions.length - a.mentions.length);
  }

  /** @returns {Utterance} */
  #begin(key, recording, nowMs) {
    return {
      key, recording, text: "", final: false, entities: [], characters: [], audioUsed: null,
      startedMs: nowMs, endedMs: nowMs,
    };
  }
}

/** @param {any} entity @param {string} text */
function isInText(entity, text) {
  return text.slice(entity.start_utf16, entity.end_utf16) === entity.text;
}
