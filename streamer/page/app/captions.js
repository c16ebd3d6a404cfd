// Captions: the newest utterances as paragraphs, names as nested marks.

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
 * The text of an utterance with its names marked.
 * @param {import("./store.js").Utterance} utterance
 * @param {Set<string>} marked Ids.
 */
export function markedText(utterance, marked) {
  const whole = document.createElement("span");
  whole.className = "text";
  whole.lang = "zh";
  const stack = [{ node: whole, end: Infinity }];
  let at = 0;
  const textUntil = (place) => {
    if (place > at) stack.at(-1).node.append(utterance.text.slice(at, place));
    at = place;
  };
  const closeUntil = (place) => {
    while (stack.at(-1).end <= place) {
      textUntil(stack.at(-1).end);
      stack.pop();
    }
  };
  const marks = utterance.entities
    .filter(({ id }) => marked.has(id))
    .map((entity) => ({ start: entity.start_utf16, end: entity.end_utf16, entity }));
  for (const { start, end, entity } of nested(marks)) {
    closeUntil(start);
    textUntil(start);
    const node = document.createElement("span");
    node.className = `entity ${classOf(entity.label)} ${entity.status}`;
    node.dataset.id = entity.id;
    node.dataset.label = entity.label;
    stack.at(-1).node.append(node);
    stack.push({ node, end });
  }
  closeUntil(utterance.text.length);
  textUntil(utterance.text.length);
  return whole;
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
      const empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = t("nothingYet");
      this.#element.replaceChildren(empty);
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
    if (utterance.audioUsed === false) {
      const chip = document.createElement("span");
      chip.className = "chip";
      chip.dataset.text = "textOnlyChip";
      chip.textContent = t("textOnlyChip");
      node.append(chip);
    }
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

/** What a screen reader is told of a final utterance. */
export function spokenLine(utterance) {
  const outer = utterance.entities.filter(({ parent }) => parent === null);
  const names = outer.map(({ text, label }) => `${text} ${t(label)}`).join("，");
  return names ? `${utterance.text}。${names}` : utterance.text;
}
