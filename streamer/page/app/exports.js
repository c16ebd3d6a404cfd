// Final captions as files, as text.

import { cues } from "./cues.js";
import { pieces } from "./captions.js";

/** On dark ground, as players show captions: models/label_colours.py. */
const COLOURS = { PER: "#ff9cff", LOC: "#8cff8c", ORG: "#8cffff" };
const OTHER = "#ffff8c";

export const FORMATS = {
  vtt: { type: "text/vtt", write: webVtt },
  srt: { type: "application/x-subrip", write: subRip },
  ttml: { type: "application/ttml+xml", write: timedText },
  json: { type: "application/json", write: json },
};

/** @typedef {import("./store.js").Utterance} Utterance */

export function clock(ms, decimal) {
  const whole = Math.floor(ms / 1000);
  const two = (number) => String(number).padStart(2, "0");
  const rest = String(Math.floor(ms % 1000)).padStart(3, "0");
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${decimal}${rest}`;
}

/** A line with a tag around each name. */
function marked({ text, entities }, line, escape, open, close) {
  return pieces(text, line, entities, escape, (entity, inside) => open(entity) + inside.join("") + close).join("");
}

function escapeXml(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function className(label) {
  const name = label.replace(/[^\p{L}\p{N}_-]+/gu, "_");
  return /^\p{L}/u.test(name) ? name : `_${name}`;
}

function webVtt(utterances) {
  const blocks = cues(utterances).map((cue, index) => {
    const rows = cue.lines.map((line) =>
      marked(cue.utterance, line, escapeXml, ({ label, parent }) => `<c.${className(label)}${parent === null ? "" : ".inner"}>`, "</c>"),
    );
    return `${index + 1}\n${clock(cue.startMs, ".")} --> ${clock(cue.endMs, ".")}\n${rows.join("\n")}\n`;
  });
  return ["WEBVTT\n", ...blocks].join("\n");
}

function subRip(utterances) {
  // SRT has no escapes: what a player would take for markup becomes its full-width twin.
  const safe = (text) => text.replace(/-->/g, "--＞").replace(/[<{\\]/g, (c) => ({ "<": "＜", "{": "｛", "\\": "＼" })[c]);
  const blocks = cues(utterances).map((cue, index) => {
    const rows = cue.lines.map((line) =>
      marked(cue.utterance, line, safe, ({ label }) => `<font color="${COLOURS[label] ?? OTHER}">`, "</font>"),
    );
    return `${index + 1}\n${clock(cue.startMs, ",")} --> ${clock(cue.endMs, ",")}\n${rows.join("\n")}\n`;
  });
  return blocks.join("\n");
}

function timedText(utterances) {
  const labels = [...new Set(utterances.flatMap(({ entities }) => entities.map(({ label }) => label)))];
  const styles = labels.map((label) => `<style xml:id="of-${className(label)}" tts:color="${COLOURS[label] ?? OTHER}"/>`);
  const paragraphs = cues(utterances).map((cue, index) => {
    const rows = cue.lines.map((line) =>
      marked(cue.utterance, line, escapeXml, ({ label, parent }) => `<span style="of-${className(label)}${parent === null ? "" : " inner"}">`, "</span>"),
    );
    return `<p xml:id="cue-${index + 1}" begin="${clock(cue.startMs, ".")}" end="${clock(cue.endMs, ".")}">${rows.join("<br/>")}</p>`;
  });
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<tt xmlns="http://www.w3.org/ns/ttml" xmlns:tts="http://www.w3.org/ns/ttml#styling" xml:lang="zh">',
    `<head><styling>${styles.join("")}<style xml:id="inner" tts:textDecoration="underline"/></styling>`,
    '<layout><region xml:id="bottom" tts:origin="10% 80%" tts:extent="80% 15%" tts:displayAlign="after" tts:textAlign="center"/></layout></head>',
    '<body region="bottom"><div>', ...paragraphs, "</div></body></tt>", "",
  ].join("\n");
}

function json(utterances) {
  const told = utterances.map(({ text, entities, characters, audioUsed }) => ({
    text, audio_used: audioUsed, characters,
    entities: entities.map(({ status, version, ...entity }) => entity),
  }));
  return `${JSON.stringify({ utterances: told }, null, 1)}\n`;
}
