// Captions: the newest utterances as paragraphs, names as nested marks.

import { make } from "./dom.js";
import { t } from "./text.js";

export const KNOWN_LABELS = ["PER", "LOC", "ORG"];
const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  PER: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1z",
  LOC: "M8 1l7.5 14H.5z",
  ORG: "M1.5 1.5h13v13h-13z",
};
const OTHER_SHAPE = "M8 0l8 8-8 8-8-8z";

export function classOf(label) {
  return KNOWN_LABELS.includes(label) ? label : "OTHER";
}

/** The shape of a type: a circle, a triangle, a square. */
export function shapeOf(label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("shape", classOf(label));
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[label] ?? OTHER_SHAPE);
  svg.append(path);
  return svg;
}

/**
 * Sort marks so that each is after the one it lies in; what crosses another is cut.
 * @param {{start: number, end: number}[]} marks
 */
export function nested(marks) {
  const waiting = [...marks];
  const order = (a, b) => a.start - b.start || b.end - a.end;
  const sorted = [];
  const ends = [];
  waiting.sort(order);
  while (waiting.length) {
    const mark = waiting.shift();
    while (ends.length && ends.at(-1) <= mark.start) ends.pop();
    if (ends.length && mark.end > ends.at(-1)) {
      waiting.push({ ...mark, end: ends.at(-1) }, { ...mark, start: ends.at(-1) });
      waiting.sort(order);
      continue;
    }
    sorted.push(mark);
    ends.push(mark.end);
  }
  return sorted;
}

/**
 * A stretch of a text as a list, with what lies in a name wrapped.
 * @param {string} text
 * @param {[number, number]} stretch
 * @param {any[]} entities
 * @param {(text: string) => any} leaf
 * @param {(entity: any, inside: any[]) => any} wrap
 */
export function pieces(text, [from, to], entities, leaf, wrap) {
  const marks = nested(
    entities
      .map((entity) => ({ start: Math.max(entity.start_utf16, from), end: Math.min(entity.end_utf16, to), entity }))
      .filter(({ start, end }) => start < end),
  );
  const within = (start, end) => {
    const found = [];
    let at = start;
    while (marks.length && marks[0].start < end) {
      const mark = marks.shift();
      if (mark.start > at) found.push(leaf(text.slice(at, mark.start)));
      found.push(wrap(mark.entity, within(mark.start, mark.end)));
      at = mark.end;
    }
    if (end > at) found.push(leaf(text.slice(at, end)));
    return found;
  };
  return within(from, to);
}

/**
 * The text of an utterance with its names marked.
 * @param {import("./store.js").Utterance} utterance
 * @param {Set<string>} marked Ids.
 */
export function markedText({ text, entities }, marked) {
  const chosen = entities.filter(({ id }) => marked.has(id));
  return make("span", { className: "text", lang: "zh" }, ...pieces(text, [0, text.length], chosen, (piece) => piece, (entity, inside) => {
    const mark = make("span", { className: `entity ${classOf(entity.label)} ${entity.status}` }, ...inside);
    mark.dataset.id = entity.id;
    mark.dataset.label = entity.label;
    return mark;
  }));
}

/** Shows the newest utterances in an element. */
export class Captions {
  #element;
  #shown = new Map();
  #most;
  #hear;

  /**
   * @param {HTMLElement} element
   * @param {number} most Utterances that stay in it.
   * @param {(utterance: any, entity: any) => void} hear A name was pressed.
   */
  constructor(element, most, hear) {
    this.#element = element;
    this.#most = most;
    this.#hear = hear;
  }

  /** Everything is to be drawn anew. */
  clear() {
    this.#shown.clear();
    this.#element.replaceChildren();
  }

  draw(store, highlighter, showsTentative) {
    const newest = store.newest(this.#most);
    if (!newest.length) {
      this.clear();
      this.#element.replaceChildren(make("p", { className: "empty" }, t("nothingYet")));
      return;
    }
    this.#element.querySelector(".empty")?.remove();
    const isAtEnd =
      this.#element.scrollHeight - this.#element.scrollTop - this.#element.clientHeight < 40;
    const keys = new Set(newest.map(({ key }) => key));
    for (const [key, { node }] of this.#shown) {
      if (!keys.has(key)) {
        node.remove();
        this.#shown.delete(key);
      }
    }
    for (const utterance of newest) this.#drawOne(utterance, highlighter, showsTentative);
    if (isAtEnd) this.#element.scrollTop = this.#element.scrollHeight;
  }

  #drawOne(utterance, highlighter, showsTentative) {
    const known = this.#shown.get(utterance.key);
    if (known?.final) return;
    const marked = highlighter.choose(utterance);
    const visible = new Set(
      utterance.entities
        .filter(({ id, status }) => marked.has(id) && (showsTentative || status !== "tentative"))
        .map(({ id }) => id),
    );
    const node = known?.node ?? document.createElement("p");
    node.className = "utterance";
    node.classList.toggle("final", utterance.final);
    node.classList.toggle("text-only", utterance.audioUsed === false);
    node.replaceChildren(markedText(utterance, visible));
    if (utterance.audioUsed === false) node.append(chip());
    if (utterance.final) {
      node.onclick = (event) => {
        const id = event.target.closest(".entity")?.dataset.id;
        const entity = utterance.entities.find((each) => each.id === id);
        if (entity) this.#hear(utterance, entity);
      };
    }
    if (!known) this.#element.append(node);
    this.#shown.set(utterance.key, { node, final: utterance.final });
  }
}

/** Says that an answer is from the text alone. */
export function chip() {
  const said = make("span", { className: "chip" }, t("textOnlyChip"));
  said.dataset.text = "textOnlyChip";
  return said;
}

/** What a screen reader is told of a final utterance. */
export function spokenLine(utterance) {
  const outer = utterance.entities.filter(({ parent }) => parent === null);
  const names = outer.map(({ text, label }) => `${text} ${t(label)}`).join("，");
  return names ? `${utterance.text}。${names}` : utterance.text;
}
