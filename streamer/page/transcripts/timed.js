// A transcript whose times are known, sent as a live recogniser would send it: three times a second,
// each character a little after it was spoken, the final text after the last one.

const REVISION_MS = 333;
const CHARACTER_DELAY_MS = 200;
const FINAL_DELAY_MS = 300;

/**
 * @typedef {object} TimedLine
 * @property {string} text
 * @property {number} start_ms
 * @property {number} end_ms
 * @property {[number, number][]} [characters] Of each code point; else they are spread evenly.
 */

export class TimedTranscript {
  #waiting;
  #send;
  #current = { shown: 0, revision: 0, sentMs: -Infinity };

  /**
   * @param {TimedLine[]} lines In the order of their times.
   * @param {(transcript: import("../ledger.js").Transcript) => void} send
   */
  constructor(lines, send) {
    this.#send = send;
    this.#waiting = lines.map((line, index) => ({
      ...line,
      letters: [...line.text],
      utterance: `u${index + 1}`,
      characters: line.characters ?? spread([...line.text].length, line.start_ms, line.end_ms),
    }));
  }

  /** The audio has come so far. */
  advance(atMs) {
    while (this.#waiting.length) {
      const [line] = this.#waiting;
      if (atMs >= line.end_ms + FINAL_DELAY_MS) {
        this.#final(line);
        continue;
      }
      const spoken = line.characters.filter(([, end]) => end + CHARACTER_DELAY_MS <= atMs).length;
      const isDue = atMs - this.#current.sentMs >= REVISION_MS;
      if (spoken > this.#current.shown && isDue) {
        this.#current = { shown: spoken, revision: this.#current.revision + 1, sentMs: atMs };
        this.#tell(line, spoken, false);
      }
      return;
    }
  }

  /** The audio has ended: what was begun is said to its end. */
  end(atMs) {
    while (this.#waiting.length && this.#waiting[0].start_ms <= atMs) this.#final(this.#waiting[0]);
  }

  #final(line) {
    this.#current.revision += 1;
    this.#tell(line, line.letters.length, true);
    this.#waiting.shift();
    this.#current = { shown: 0, revision: 0, sentMs: -Infinity };
  }

  #tell(line, count, final) {
    this.#send({
      utterance: line.utterance,
      revision: this.#current.revision,
      final,
      text: line.letters.slice(0, count).join(""),
      start_ms: Math.round(line.start_ms),
      end_ms: Math.round(final ? line.end_ms : line.characters[count - 1][1]),
    });
  }
}

function spread(count, start, end) {
  const step = (end - start) / Math.max(1, count);
  return Array.from({ length: count }, (_, at) => [start + at * step, start + (at + 1) * step]);
}
