// Text that is held back until its names are known, and names that are hidden in it. No DOM.
// What the command line does in streamer/outputs/withholding.py and masking.py.

const SIGN = "＊";
const NAMES_KEPT = 1_024;
const UTTERANCES_KEPT = 256;

export class Withholding {
  #labels;
  #known = /** @type {Set<string>} */ (new Set()); // names that were hidden, the oldest first
  #released = /** @type {Map<string, string>} */ (new Map());

  /** @param {string[]} labels Types of names that are hidden; none: all are shown. */
  constructor(labels = []) {
    this.#labels = new Set(labels);
  }

  get hides() {
    return this.#labels.size > 0;
  }

  /** What may be shown of an utterance that is not final. @param {string} utterance */
  released(utterance) {
    return this.#released.get(utterance) ?? "";
  }

  /** @param {any} message A `caption.update`. */
  caption(message) {
    const told = this.#masked(message);
    this.#released.set(told.utterance, told.text);
    if (this.#released.size > UTTERANCES_KEPT) {
      const [oldest] = this.#released.keys();
      this.#released.delete(oldest);
    }
    return told;
  }

  /** @param {any} message An `utterance.final`. */
  final(message) {
    this.#released.delete(message.utterance);
    for (const { label, text } of message.entities) {
      if (!this.#labels.has(label) || [...text].length < 2) continue;
      this.#known.delete(text);
      this.#known.add(text);
    }
    while (this.#known.size > NAMES_KEPT) {
      const [oldest] = this.#known;
      this.#known.delete(oldest);
    }
    const { readings, ...told } = this.#masked(message); // how a name is read would tell it
    return this.hides ? told : message;
  }

  #masked(message) {
    if (!this.hides) return message;
    const characters = [...message.text];
    const hidden = characters.map(() => false);
    const hide = (start, end) => hidden.fill(true, start, end);
    for (const { label, start, end } of message.entities) if (this.#labels.has(label)) hide(start, end);
    for (const name of this.#known) {
      const length = [...name].length;
      for (let at = message.text.indexOf(name); at >= 0; at = message.text.indexOf(name, at + 1)) {
        const start = [...message.text.slice(0, at)].length;
        hide(start, start + length);
      }
    }
    const masked = characters.map((character, i) => (hidden[i] ? SIGN : character));
    const utf16 = (end) => masked.slice(0, end).join("").length;
    const entities = message.entities.map(({ suggested_text, ...entity }) => {
      const isWhole = !hidden.slice(entity.start, entity.end).includes(true);
      return {
        ...entity,
        ...(isWhole && suggested_text !== undefined && { suggested_text }),
        text: masked.slice(entity.start, entity.end).join(""),
        start_utf16: utf16(entity.start),
        end_utf16: utf16(entity.end),
      };
    });
    return { ...message, text: masked.join(""), entities };
  }
}
