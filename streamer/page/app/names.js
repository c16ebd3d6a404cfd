// The list of names, with counts and times.

import { shapeOf } from "./captions.js";
import { seconds } from "./strip.js";
import { t } from "./text.js";

const MOST_NAMES = 200;
const MOST_MENTIONS = 8;

/**
 * @param {HTMLTableSectionElement} body
 * @param {ReturnType<import("./store.js").Store["names"]>} names
 * @param {(utterance: any, entity: any) => void} hear
 * @param {(utterance: any, entity: any) => boolean} canHear
 */
export function drawNames(body, names, hear, canHear) {
  body.replaceChildren(...names.slice(0, MOST_NAMES).map((name) => row(name, hear, canHear)));
}

function row({ label, text, mentions }, hear, canHear) {
  const type = document.createElement("td");
  type.append(shapeOf(label), t(label));
  const name = document.createElement("th");
  name.scope = "row";
  name.lang = "zh";
  name.textContent = text;
  const count = document.createElement("td");
  count.textContent = String(mentions.length);
  const heard = document.createElement("div");
  heard.className = "mentions";
  const timed = mentions.filter(({ entity }) => entity.start_ms !== null);
  if (!timed.length) heard.append(t("withoutAudio"));
  for (const { utterance, entity } of timed.slice(-MOST_MENTIONS)) {
    const at = seconds(entity.start_ms);
    if (!canHear(utterance, entity)) {
      const time = document.createElement("span");
      time.textContent = at;
      heard.append(time);
      continue;
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = at;
    button.setAttribute("aria-label", t("hear", { name: text, at }));
    button.onclick = () => hear(utterance, entity);
    heard.append(button);
  }
  const line = document.createElement("tr");
  const last = document.createElement("td");
  last.append(heard);
  line.append(type, name, count, last);
  return line;
}
