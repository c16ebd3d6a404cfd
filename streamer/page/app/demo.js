// The homograph demo: two recordings, one text, two answers.

import { decode } from "../sources/recorded.js";
import { chip, markedText } from "./captions.js";
import { make } from "./dom.js";
import { t } from "./text.js";

const FOLDER = "/page/demo/";

/**
 * @typedef {object} Example
 * @property {string} name
 * @property {string} reading
 * @property {import("../transcripts/timed.js").TimedLine} line
 * @property {Float32Array} samples
 */

/** @returns {Promise<Omit<Example, "samples">[]>} What there is to play. */
export async function listExamples() {
  const answer = await fetch(`${FOLDER}demo.json`);
  if (!answer.ok) throw new Error(`expected the examples, got ${answer.status}`);
  const { recordings } = await answer.json();
  return recordings.map(({ audio, text, reading, characters }) => ({
    name: audio.replace(/\.\w+$/, ""),
    reading,
    file: audio,
    line: { text, characters, start_ms: characters[0][0], end_ms: characters.at(-1)[1] },
  }));
}

/** @returns {Promise<Float32Array>} Its samples, fetched once. */
export function samplesOf(example) {
  example.samples ??= fetch(FOLDER + example.file)
    .then((answer) => answer.arrayBuffer())
    .then((data) => decode(data, example.file));
  return example.samples;
}

/** A card for each recording, and the verdict on what came back. */
export class DemoCards {
  #cards = new Map();
  #verdict;
  #answers = new Map();

  constructor(element, verdict, examples, play) {
    this.#verdict = verdict;
    element.replaceChildren(
      ...examples.map((example) => {
        const answer = make("p", { className: "answer utterance final" });
        const meaning = make("p", { className: "note" }, t(example.name));
        meaning.dataset.text = example.name;
        const label = make("span", {}, t("play"));
        label.dataset.text = "play";
        const name = make("span", { className: "unseen", lang: "zh" }, ` ${example.reading}`);
        const card = make("article", { className: "card" },
          make("h3", { lang: "zh" }, example.reading),
          meaning,
          make("button", { type: "button", onclick: () => play(example) }, "▶ ", label, name),
          answer);
        card.dataset.example = example.name;
        this.#cards.set(example.name, { card, answer });
        return card;
      }),
    );
    this.draw();
  }

  /** @param {string | null} name Which one is heard now. */
  playing(name) {
    for (const [each, { card }] of this.#cards) card.classList.toggle("playing", each === name);
  }

  answered(name, utterance) {
    this.#answers.set(name, utterance);
    this.draw();
  }

  draw() {
    for (const [name, { answer }] of this.#cards) {
      const utterance = this.#answers.get(name);
      answer.classList.toggle("text-only", utterance?.audioUsed === false);
      if (!utterance) {
        answer.replaceChildren(make("span", { className: "note" }, t("notHeard")));
        continue;
      }
      // The end of the sentence is what differs; the rest is the same in both.
      answer.replaceChildren(tail(utterance));
      if (utterance.audioUsed === false) answer.append(chip());
    }
    this.#verdict.textContent = this.#judge();
  }

  #judge() {
    const answers = [...this.#answers.values()];
    if (answers.length < this.#cards.size) return "";
    if (new Set(answers.map(({ audioUsed }) => audioUsed)).size > 1) return t("heardMixed");
    const found = answers.map(({ entities }) => entities.map(({ start, end, label }) => `${start}-${end}${label}`).sort().join());
    const isSame = new Set(found).size === 1;
    if (!isSame) return t("heardDiffer");
    return t(answers[0].audioUsed ? "heardSameVoice" : "heardSame");
  }
}

function tail(utterance) {
  const first = Math.min(...utterance.entities.map(({ start_utf16 }) => start_utf16), utterance.text.length);
  const entities = utterance.entities.map((entity) => ({
    ...entity, start_utf16: entity.start_utf16 - first, end_utf16: entity.end_utf16 - first,
  }));
  const shown = { ...utterance, text: utterance.text.slice(entities.length ? first : 0), entities };
  return markedText(shown, new Set(entities.map(({ id }) => id)));
}
