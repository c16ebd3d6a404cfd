// Lines that end at words and never inside a name, and their times.

/** As Netflix asks for in simplified Chinese: 16 characters a line, two lines, 9 characters a second. */
const LINE_COLUMNS = 32;
const LINES = 2;
const COLUMNS_PER_SECOND = 18;
const SHORTEST_MS = 833;

const CLOSING = new Set("，。、；：？！…）］｝〕》〉」』】”’,.;:?!)]}>%％～·—");
const OPENING = new Set("（［｛〔《〈「『【“‘([{<");
const SENTENCE_END = new Set("。？！…?!");
const CLAUSE_END = new Set("，、；：,;:—");

const NEVER = 1000;
const IN_ENTITY = 200;
const IN_WORD = 60;
const AT_WORD = 1;
const AT_CLAUSE = -2;
const AT_SENTENCE = -3;
const RAGGED = 2;
const PER_LINE = 0.6;

/**
 * @typedef {object} Cue
 * @property {number} startMs
 * @property {number} endMs
 * @property {[number, number][]} lines Half-open, in UTF-16 units of the text.
 */

/** @param {string} text Columns it takes: a Chinese character takes two. */
export function columns(text) {
  let sum = 0;
  for (const character of text) sum += character.codePointAt(0) >= 0x1100 ? 2 : 1;
  return sum;
}

/**
 * Divide a text into lines.
 * @param {string} text
 * @param {{start_utf16: number, end_utf16: number}[]} entities
 * @returns {[number, number][]}
 */
export function lines(text, entities = []) {
  const places = breakPlaces(text, entities);
  const best = places.map(() => ({ cost: Infinity, from: -1 }));
  best[0] = { cost: 0, from: -1 };
  for (let from = 0; from < places.length - 1; from += 1) {
    if (best[from].cost === Infinity) continue;
    for (let to = from + 1; to < places.length; to += 1) {
      const width = columns(text.slice(places[from].at, places[to].at).trim());
      if (width > LINE_COLUMNS && to > from + 1) break;
      const slack = Math.max(0, LINE_COLUMNS - width) / LINE_COLUMNS;
      const cost = best[from].cost + PER_LINE + RAGGED * slack * slack + places[to].cost;
      if (cost < best[to].cost) best[to] = { cost, from };
    }
  }
  const found = [];
  for (let to = places.length - 1; to > 0; to = best[to].from) {
    const line = trimmed(text, places[best[to].from].at, places[to].at);
    if (line) found.unshift(line);
  }
  return found;
}

/** Where a line may end, and what that costs. */
function breakPlaces(text, entities) {
  const ends = wordEnds(text);
  const places = [{ at: 0, cost: 0 }];
  let at = 0;
  const characters = [...text];
  characters.forEach((character, index) => {
    at += character.length;
    const next = characters[index + 1];
    if (next === undefined) return;
    let cost = ends.has(at) ? AT_WORD : IN_WORD;
    if (SENTENCE_END.has(character)) cost = AT_SENTENCE;
    else if (CLAUSE_END.has(character)) cost = AT_CLAUSE;
    if (CLOSING.has(next) || OPENING.has(character) || /\p{M}/u.test(next)) cost = NEVER;
    if (entities.some(({ start_utf16, end_utf16 }) => start_utf16 < at && at < end_utf16)) cost += IN_ENTITY;
    places.push({ at, cost });
  });
  return [...places, { at: text.length, cost: 0 }];
}

/** Ends of words as the browser knows them; without that, anywhere between Chinese characters. */
function wordEnds(text) {
  if (globalThis.Intl?.Segmenter) {
    const words = new Intl.Segmenter("zh", { granularity: "word" }).segment(text);
    return new Set(Array.from(words, ({ index, segment }) => index + segment.length));
  }
  const isLetter = (character) => /[\p{L}\p{N}]/u.test(character) && columns(character) === 1;
  const ends = new Set();
  for (let at = 1; at < text.length; at += 1) {
    if (!isLetter(text[at - 1]) || !isLetter(text[at])) ends.add(at);
  }
  return ends;
}

function trimmed(text, start, end) {
  const piece = text.slice(start, end);
  const first = start + piece.length - piece.trimStart().length;
  const last = first + piece.trim().length;
  return last > first ? [first, last] : null;
}

/**
 * Cues of several utterances, in order and without overlap.
 * @param {import("./store.js").Utterance[]} utterances
 * @returns {(Cue & {utterance: import("./store.js").Utterance})[]}
 */
export function cues(utterances) {
  const found = [];
  let endsMs = 0;
  let startsMs = 0;
  let recording = utterances[0]?.recording;
  for (const utterance of utterances) {
    // Each recording has a clock of its own: the next one goes on where the one before has ended.
    if (utterance.recording !== recording) startsMs = endsMs;
    recording = utterance.recording;
    const ofUtterance = characterTimes(utterance);
    const times = (offset) => ofUtterance(offset).map((ms) => ms + startsMs);
    const divided = lines(utterance.text, utterance.entities);
    for (let at = 0; at < divided.length; at += LINES) {
      const of = divided.slice(at, at + LINES);
      const shown = of.map(([from, to]) => utterance.text.slice(from, to)).join("");
      const readingMs = Math.max(SHORTEST_MS, (1000 * columns(shown)) / COLUMNS_PER_SECOND);
      const startMs = Math.max(endsMs, times(of[0][0])[0]);
      const spokenMs = times(of.at(-1)[1] - 1)[1];
      const following = divided[at + LINES];
      const untilMs = following ? Math.min(startMs + readingMs, times(following[0])[0]) : startMs + readingMs;
      endsMs = Math.round(Math.max(spokenMs, untilMs, startMs + readingMs / 2));
      found.push({ utterance, startMs: Math.round(startMs), endMs: endsMs, lines: of });
    }
  }
  return found;
}

/** Times of the character at a UTF-16 offset: as answered, or spread evenly. */
function characterTimes({ text, characters, startedMs, endedMs }) {
  const place = new Map();
  let at = 0;
  [...text].forEach((character, index) => {
    for (let unit = 0; unit < character.length; unit += 1) place.set(at + unit, index);
    at += character.length;
  });
  const count = [...text].length;
  if (characters.length === count) return (offset) => characters[place.get(offset)];
  const step = Math.max(0, endedMs - startedMs) / Math.max(1, count);
  return (offset) => [startedMs + place.get(offset) * step, startedMs + (place.get(offset) + 1) * step];
}
