// Which names are marked, where not all of them are: the rule of streamer/outputs/highlighting.py.

/** A share that was not used is saved for at most this much text. */
const SAVED_CHARACTERS = 300;
const FINALS_KEPT = 256;
const NAMES_KEPT = 4096;

export class Highlighter {
  #share;
  #firstOnly;
  #saved = 0;
  #names = new Set();
  #shown = new Map();
  #finals = new Map();

  /** @param {number} share Of all characters, 1 for no limit. */
  constructor(share, firstOnly) {
    this.#share = share;
    this.#firstOnly = firstOnly;
  }

  /**
   * Ids of what is marked. Asked again about a final utterance, the answer is the same.
   * @param {import("./store.js").Utterance} utterance
   * @returns {Set<string>}
   */
  choose(utterance) {
    const known = this.#finals.get(utterance.key);
    if (known) return known;
    const chosen = this.#choose(utterance);
    const kept = utterance.final ? this.#finals : this.#shown;
    kept.set(utterance.key, chosen);
    if (utterance.final) this.#shown.delete(utterance.key);
    forgetOldest(kept, FINALS_KEPT);
    return chosen;
  }

  #choose({ key, text, entities, final }) {
    if (this.#share >= 1 && !this.#firstOnly) return new Set(entities.map(({ id }) => id));
    const fresh = this.#newNames(entities);
    const shown = this.#shown.get(key) ?? new Set();
    const rank = (entity) => [
      shown.has(entity.id) ? 0 : 1, fresh.has(entity.id) ? 0 : 1, -entity.confidence, entity.start, -entity.end,
    ];
    const candidates = entities
      .filter(({ id }) => !this.#firstOnly || fresh.has(id))
      .sort((a, b) => compare(rank(a), rank(b)));
    const length = [...text].length;
    const room = this.#share < 1 ? this.#saved + this.#share * length : length;
    let covered = new Set();
    const chosen = [];
    for (const entity of candidates) {
      const wider = new Set(covered);
      for (let at = entity.start; at < entity.end; at += 1) wider.add(at);
      if (wider.size > room) continue;
      covered = wider;
      chosen.push(entity);
    }
    if (final) {
      this.#saved = Math.min(room - covered.size, this.#share * SAVED_CHARACTERS);
      for (const entity of chosen) {
        this.#names.delete(nameOf(entity));
        this.#names.add(nameOf(entity));
      }
      forgetOldest(this.#names, NAMES_KEPT);
    }
    return new Set(chosen.map(({ id }) => id));
  }

  #newNames(entities) {
    const known = new Set(this.#names);
    const fresh = new Set();
    for (const entity of [...entities].sort((a, b) => a.start - b.start || b.end - a.end)) {
      if (known.has(nameOf(entity))) continue;
      known.add(nameOf(entity));
      fresh.add(entity.id);
    }
    return fresh;
  }
}

function nameOf({ label, text }) {
  return `${label}/${text}`;
}

function compare(a, b) {
  const at = a.findIndex((value, index) => value !== b[index]);
  return at < 0 ? 0 : a[at] - b[at];
}

function forgetOldest(known, kept) {
  for (const key of known.keys()) {
    if (known.size <= kept) return;
    known.delete(key);
  }
}
