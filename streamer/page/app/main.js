// Puts everything together.

import { playRecorded } from "../sources/recorded.js";
import { SourceError } from "../sources/live.js";
import { TimedTranscript } from "../transcripts/timed.js";
import { Captions, classOf, KNOWN_LABELS, shapeOf, spokenLine } from "./captions.js";
import { Controls } from "./controls.js";
import { DemoCards, listExamples, samplesOf } from "./demo.js";
import { make } from "./dom.js";
import { FORMATS } from "./exports.js";
import { Highlighter } from "./highlighter.js";
import { NameList } from "./names.js";
import { Notices } from "./notices.js";
import { Broadcaster, follow } from "./overlay.js";
import { Player } from "./player.js";
import { keepCaptions, restoreCaptions } from "./reload.js";
import { Session } from "./session.js";
import { applySettings, keepSettings, loadSettings } from "./settings.js";
import { drawStatus, ServerWatch } from "./status.js";
import { Store } from "./store.js";
import { Strip } from "./strip.js";
import { speak, spoken, t, translate } from "./text.js";

const SHOWN = 40;
const SHOWN_IN_OVERLAY = 2;
const SPOKEN_KEPT = 5;
/** How often the strip and the level move: captions must not wait for them. */
const SOUND_MS = 100;
const CALM_MS = 1_000;
/** What is no caption waits for a moment in which nothing else is to be done. */
const whenIdle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));

const query = new URLSearchParams(location.search);
const element = (id) => document.getElementById(id);
const isOverlay = query.get("overlay") === "1";
// What is after # stays in the browser; after ? it is in the server's reach like any other.
const hidden = new URLSearchParams(location.hash.slice(1));
const token = hidden.get("token") ?? query.get("token") ?? "";
/** After so many seconds without news a caption leaves the overlay. */
const CLEAR_S = 6;

const settings = loadSettings(query);
const store = new Store();
const player = new Player();
const notices = new Notices(element("notices"));
const tell = (key, values, isBad) => notices.tell(key, values, isBad);
const captions = new Captions(element("captions"), isOverlay ? SHOWN_IN_OVERLAY : SHOWN, hear);
const strip = new Strip({ canvas: element("wave"), bars: element("bars"), position: element("position") }, hear);
const nameList = new NameList(element("names").tBodies[0], hear, canHear);
const controls = new Controls(tell, player);
const histories = new Map(); // of the newest sessions, by their name
const broadcaster = isOverlay ? null : new Broadcaster(store, token);
const watch = new ServerWatch(draw, () => !isOverlay && (!running || running.session.isOver || running.session.isTextOnly));

let highlighter = newHighlighter();
let running = null;
let shown = null; // the newest session, running or not
let sessions = 0;
let seen = store;
let cards = null;
let isDrawing = false;
let finalsDrawn = -1;
let soundTimer = 0;
let loudest = 0; // since the level was drawn

function newHighlighter() {
  return new Highlighter(Number(settings.density), settings.first);
}

// --- drawing ---

/** Draw once, with the next picture; a hidden page has none, and its timers are late. */
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  const now = () => {
    isDrawing = false;
    drawNow();
  };
  if (document.visibilityState === "visible") requestAnimationFrame(now);
  else queueMicrotask(now);
}

function drawNow() {
  captions.draw(seen, highlighter, settings.tentative);
  drawStatusLine();
  drawSound();
  if (finalsDrawn !== store.count) {
    finalsDrawn = store.count;
    whenIdle(drawNames, { timeout: 300 });
  }
  element("start").disabled = running !== null;
  element("stop").disabled = running === null;
  broadcaster?.tell();
}

function drawNames() {
  const names = store.names();
  nameList.draw(names);
  element("names").hidden = !names.length;
  element("no-names").hidden = names.length > 0;
  for (const button of element("exports").querySelectorAll("button")) button.disabled = !store.count;
}

/** The level and the strip, together: each picture costs, whatever little of it is new. */
function drawSound() {
  soundTimer ||= setTimeout(() => {
    soundTimer = 0;
    element("level").value = loudest;
    loudest = 0;
    strip.show(shown?.history ?? null, store.finals.filter(({ recording }) => recording === shown?.name));
  }, isCalm() ? CALM_MS : SOUND_MS);
}

function isCalm() {
  return settings.calm || matchMedia("(prefers-reduced-motion: reduce)").matches;
}

function drawStatusLine() {
  drawStatus({ status: element("status"), statusText: element("status-text"), facts: element("facts") }, shown, watch.isThere);
}

function redraw() {
  captions.clear();
  nameList.clear();
  finalsDrawn = -1;
  draw();
}

// --- hearing a name ---

function canHear({ recording }, { start_ms, end_ms }) {
  return start_ms !== null && Boolean(histories.get(recording)?.has(start_ms, end_ms));
}

function hear(utterance, entity) {
  if (!canHear(utterance, entity)) return;
  const marks = document.querySelectorAll(`[data-id="${CSS.escape(entity.id)}"], [data-bar="${CSS.escape(utterance.key + entity.id)}"]`);
  const mark = (on) => marks.forEach((each) => each.classList.toggle("heard", on));
  mark(true);
  player.play(histories.get(utterance.recording).slice(entity.start_ms, entity.end_ms), () => mark(false));
}

// --- sessions ---

async function run({ open, write, hasAudio, serverWrites = false, onFinal = () => {}, onEnd = () => {} }) {
  await running?.stop();
  notices.clear();
  let session = null;
  let transcript = null;
  let stopping = null;
  let source = null;
  const stop = () => {
    stopping ??= (async () => {
      source?.stop();
      transcript.end(session.audioMs);
      element("typing").hidden = true;
      await session.finish();
      if (running?.session === session) running = null;
      onEnd();
      draw();
    })();
    return stopping;
  };
  const listeners = {
    onAudio(block) {
      if (!session || stopping) return;
      session.audio(block);
      transcript.advance?.(session.audioMs);
      loudest = Math.max(loudest, level(block));
    },
    onEnd(key) {
      if (key) tell(key, {}, true);
      stop();
    },
  };
  const start = await open(listeners);
  sessions += 1;
  const sendsAudio = hasAudio && !element("text-only").checked;
  session = new Session({
    name: `s${sessions}`,
    sendsAudio,
    serverWrites,
    token,
    store,
    hooks: {
      tell,
      onAudio: drawSound,
      onChange: draw,
      onFinal(utterance) {
        onFinal(utterance);
        say(utterance);
      },
    },
  });
  try {
    transcript = write((revision) => session.transcript(revision), stop);
  } catch (error) {
    session.finish();
    throw error;
  }
  keepHistory(session);
  shown = session;
  running = { session, stop };
  source = start();
  return transcript;
}

/** Audio of the last three sessions can be heard again. */
function keepHistory(session) {
  histories.set(session.name, session.history);
  for (const name of [...histories.keys()].slice(0, -3)) histories.delete(name);
}

function level(block) {
  let peak = 0;
  for (const sample of block) peak = Math.max(peak, Math.abs(sample));
  return Math.sqrt(peak / 32768);
}

/** Tell a screen reader: final lines only, and never many. */
function say(utterance) {
  element("spoken").append(make("p", {}, spokenLine(utterance)));
  while (element("spoken").children.length > SPOKEN_KEPT) element("spoken").firstChild.remove();
}

/** What went wrong with the audio or the transcript, for a person. */
function explain(error) {
  if (!(error instanceof SourceError)) throw error;
  tell(error.key, error.values, true);
}

async function startOwn() {
  element("start").disabled = true;
  try {
    const serverWrites = controls.transcript === "server";
    const hasAudio = controls.source !== "none";
    if (serverWrites && !(hasAudio && !element("text-only").checked)) throw new SourceError("needsAudio");
    const transcript = await run({
      open: (listeners) => controls.open(listeners, settings.sound),
      write: (send, fail) => controls.write(send, fail),
      hasAudio,
      serverWrites,
    });
    if (transcript.submit) {
      element("typing").hidden = false;
      element("typing").onsubmit = (event) => {
        event.preventDefault();
        transcript.submit();
      };
      element("line").focus();
    }
    // Without audio there is nothing to keep a caption file in time with.
    if (transcript.advance && controls.source === "none") keepTime(transcript);
  } catch (error) {
    explain(error);
  }
  draw();
}

/** A caption file alone goes at its own pace. */
function keepTime(transcript) {
  const started = performance.now();
  const { session } = running;
  const timer = setInterval(() => {
    if (running?.session !== session) clearInterval(timer);
    else transcript.advance(performance.now() - started);
  }, 50);
}

async function playExample(example) {
  try {
    const samples = await samplesOf(example);
    await run({
      open: async (listeners) => () => playRecorded(samples, listeners, settings.sound && !isOverlay ? player : null),
      write: (send) => new TimedTranscript([example.line], send),
      hasAudio: true,
      onFinal: (utterance) => cards?.answered(example.name, utterance),
      onEnd: () => cards?.playing(null),
    });
    cards?.playing(example.name);
  } catch (error) {
    explain(error);
  }
  draw();
}

// --- the page ---

function chooseLanguage(language) {
  settings.language = language;
  speak(language);
  translate(document);
  const button = element("language");
  button.textContent = language === "zh" ? "English" : "中文";
  button.lang = language === "zh" ? "en" : "zh";
  element("level").setAttribute("aria-label", t("level"));
  element("legend").replaceChildren(
    ...KNOWN_LABELS.map((label) =>
      make("li", {}, shapeOf(label), make("span", { className: `entity ${classOf(label)} final` }, t(label)))),
  );
  cards?.draw();
  redraw();
}

function wireSettings() {
  for (const input of document.querySelectorAll("#settings select, #settings input")) {
    if (input.type === "checkbox") input.checked = settings[input.name];
    else input.value = settings[input.name];
    input.addEventListener("change", () => {
      settings[input.name] = input.type === "checkbox" ? input.checked : input.value;
      keepSettings(settings);
      applySettings(settings);
      shareCaptions();
      highlighter = newHighlighter();
      redraw();
    });
  }
}

function shareCaptions() {
  const address = broadcaster?.share(settings.obs, { ...settings, language: spoken() }) ?? "";
  element("obs").hidden = !address;
  element("obs-address").value = address;
}

async function save(format) {
  const { type, write } = FORMATS[format];
  const url = URL.createObjectURL(new Blob([write(await store.all())], { type }));
  make("a", { href: url, download: `captions.${format}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function showExamples() {
  let examples;
  try {
    examples = await listExamples();
  } catch {
    tell("noDemo", {}, true);
    return;
  }
  cards = new DemoCards(element("cards"), element("verdict"), examples, playExample);
  const wanted = examples.find(({ name }) => name === query.get("play"));
  if (wanted) playExample(wanted);
}

function begin() {
  if (isOverlay) {
    document.documentElement.dataset.overlay = "";
    settings.theme = query.get("theme") ?? "dark"; // its letters stand on black
  }
  applySettings(settings);
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => applySettings(settings));
  const asked = settings.language || (navigator.language.startsWith("zh") ? "zh" : "en");
  chooseLanguage(asked === "zh" ? "zh" : "en");
  wireSettings();
  shareCaptions();
  element("obs-address").onfocus = ({ target }) => target.select();
  element("text-only").checked = query.get("text-only") === "1";
  element("language").onclick = () => {
    chooseLanguage(spoken() === "zh" ? "en" : "zh");
    keepSettings(settings);
  };
  element("start").onclick = startOwn;
  element("stop").onclick = () => running?.stop();
  for (const button of element("exports").querySelectorAll("button")) {
    button.onclick = () => save(button.dataset.format);
  }
  if (isOverlay) {
    const show = (told) => {
      seen = told;
      draw();
    };
    if (!query.has("play")) follow(show, hidden.get("watch") ?? "", token, Number(query.get("clear") ?? CLEAR_S));
  } else {
    const lost = restoreCaptions(store);
    if (lost.length) tell("afterReload", { text: lost.join(" / ") }, true);
    addEventListener("pagehide", () => keepCaptions(store));
  }
  setInterval(drawStatusLine, 250);
  showExamples();
  draw();
}

begin();
