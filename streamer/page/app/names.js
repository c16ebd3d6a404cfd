// The list of names, with counts and times.

import { shapeOf } from "./captions.js";
import { make } from "./dom.js";
import { seconds } from "./strip.js";
import { t } from "./text.js";

const MOST_NAMES = 200;

export class NameList {
  #body;
  #hear;
  #canHear;
  #rows = new Map();

  constructor(body, hear, canHear) {
    this.#body = body;
    this.#hear = hear;
    this.#canHear = canHear;
  }

  clear() {
    this.#rows.clear();
  }

  /** Only what has changed is made anew. */
  draw(names) {
    const before = this.#rows;
    this.#rows = new Map();
    const rows = names.slice(0, MOST_NAMES).map((name) => {
      const key = `${name.label}/${name.text}`;
      const audible = name.mentions.map(({ utterance, entity }) => this.#canHear(utterance, entity));
      const stamp = [name.count, ...audible].join();
      const known = before.get(key);
      const row = known?.stamp === stamp ? known.row : this.#row(name, audible);
      this.#rows.set(key, { row, stamp });
      return row;
    });
    rows.forEach((row, at) => this.#body.rows[at] !== row && this.#body.insertBefore(row, this.#body.rows[at] ?? null));
    while (this.#body.rows.length > rows.length) this.#body.lastChild.remove();
  }

  #row({ label, text, count, mentions }, audible) {
    const heard = make("div", { className: "mentions" });
    mentions.forEach(({ utterance, entity }, index) => {
      if (entity.start_ms === null) return;
      const at = seconds(entity.start_ms);
      const time = audible[index]
        ? make("button", { type: "button", ariaLabel: t("hear", { name: text, at }), onclick: () => this.#hear(utterance, entity) }, at)
        : make("span", {}, at);
      heard.append(time);
    });
    if (!heard.hasChildNodes()) heard.append(t("withoutAudio"));
    return make("tr", {},
      make("td", {}, shapeOf(label), t(label)),
      make("th", { scope: "row", lang: "zh" }, text),
      make("td", {}, String(count)),
      make("td", {}, heard));
  }
}
