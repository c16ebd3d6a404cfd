// How long after a word has been spoken its mark is seen in the page, beside what the protocol
// itself takes, in one run: the page in Chromium and a bare WebSocket client in Node are in turn
// given the same recordings and the same transcript at the same pace, by one server.
//
//     PAGE_PYTHON=.venv/dev/bin/python PAGE_CHROMIUM=chromium node tests/benchmarks/page.mjs MINUTES [--busy N]
//
// `word`: from the end of a name in the recording to its first mark (the page) or to the first
// message that names it (the protocol). `drawn`: the part of it that is the page's own, from that
// message to the picture. `asked`: from the end of the name to the revision that brought it.
// `--busy N` keeps N processes spinning meanwhile. The heap over a long time: page_memory.mjs.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";

import { TimedTranscript } from "../../streamer/page/transcripts/timed.js";
import { launch, open, playExample, sleep, startServer } from "../streamer/page/browser/kit.mjs";

const { WebSocket } = createRequire(new URL("../streamer/page/package.json", import.meta.url))("ws");
const DEMO = new URL("../../streamer/demo/demo.json", import.meta.url);
const RATE = 16_000;
const BLOCK_MS = 40;
const TAIL_MS = 600;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { busy: { type: "string", default: "0" } },
});
const minutes = Number(positionals[0] ?? 2);
const examples = JSON.parse(readFileSync(DEMO, "utf8")).recordings;

/** Runs in the page: what was sent and came when, and when was a name first in a picture? */
function watch() {
  const fresh = () => ({ start: Infinity, sentMs: 0, asked: [], came: {}, drawn: {} });
  window.trace = fresh();
  const Real = WebSocket;
  window.WebSocket = class extends Real {
    constructor(...settings) {
      super(...settings);
      window.trace = fresh();
    }
    send(data) {
      const now = performance.now();
      if (typeof data !== "string") {
        window.trace.sentMs += data.byteLength / 32;
        // The block that waited least says when the first sample was spoken.
        window.trace.start = Math.min(window.trace.start, now - window.trace.sentMs);
      } else if (data.includes('"transcript"')) window.trace.asked.push([now, JSON.parse(data).text.length]);
      super.send(data);
    }
    set onmessage(listener) {
      super.onmessage = (event) => {
        const message = JSON.parse(event.data);
        const key = message.entity && `${message.entity.label} ${message.entity.text}`;
        if (key) window.trace.came[key] ??= performance.now();
        listener(event);
      };
    }
  };
  const look = () => {
    const { drawn } = window.trace;
    const seen = [...document.querySelectorAll("#captions .utterance:last-child .entity")]
      .map((mark) => `${mark.dataset.label} ${mark.textContent}`)
      .filter((key) => !(key in drawn));
    if (!seen.length) return;
    // The next picture has it; the task after its callbacks comes when that picture is made.
    requestAnimationFrame(() => setTimeout(() => seen.forEach((key) => (drawn[key] ??= performance.now()))));
  };
  addEventListener("DOMContentLoaded", () =>
    new MutationObserver(look).observe(document.querySelector("#captions"), { childList: true, subtree: true }));
}

/** One recording by the protocol alone. */
function bare(url, samples, example) {
  return new Promise((resolve, reject) => {
    const trace = { start: Infinity, sentMs: 0, asked: [], came: {} };
    const socket = new WebSocket(`${url.replace("http", "ws")}/v1/stream`, ["cnerta.v1"]);
    const send = (message) => socket.send(JSON.stringify(message));
    const [first, last] = [example.characters[0][0], example.characters.at(-1)[1]];
    const transcript = new TimedTranscript([{ text: example.text, characters: example.characters, start_ms: first, end_ms: last }], (revision) => {
      trace.asked.push([performance.now(), revision.text.length]);
      send({ type: "transcript", ...revision });
    });
    socket.onerror = reject;
    socket.onopen = () => send({ type: "session.start", version: 1, audio: { encoding: "pcm_s16le", sample_rate: RATE, channels: 1 } });
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "session.ready") play();
      const key = message.entity && `${message.entity.label} ${message.entity.text}`;
      if (key) trace.came[key] ??= performance.now();
      if (message.type === "utterance.final") trace.final = message.entities;
      if (message.type === "session.summary") resolve(trace);
    };
    const play = () => {
      const started = performance.now();
      let sent = 0;
      const timer = setInterval(() => {
        const due = Math.min(samples.length, Math.floor(((performance.now() - started) * RATE) / 1000));
        socket.send(samples.subarray(sent, due));
        trace.sentMs = (1000 * due) / RATE;
        trace.start = Math.min(trace.start, performance.now() - trace.sentMs);
        sent = due;
        transcript.advance(trace.sentMs);
        if (sent < samples.length) return;
        clearInterval(timer);
        send({ type: "session.finish" });
      }, BLOCK_MS);
    };
  });
}

/** One recording by the page. What waits for it must not have pictures drawn, as polling by frames would. */
async function played(page, example) {
  await playExample(page, example.audio.replace(/\.\w+$/, ""));
  await sleep(1_000);
  await page.waitForFunction(() => document.querySelector("#status").dataset.state === "finished", { polling: 500 });
  return page.evaluate(() => window.trace);
}

/** Times of the names of the final answer. */
function timesOf({ start, asked, came, drawn }, final, example, into) {
  for (const { label, text, end } of final) {
    const key = `${label} ${text}`;
    const spoken = start + example.characters[end - 1][1];
    const at = (drawn ?? came)[key];
    if (at === undefined) continue; // found only with the whole text: its caption is the final one
    into.word.push(at - spoken);
    if (drawn) into.drawn.push(drawn[key] - came[key]);
    into.asked.push(asked.filter(([time]) => time <= came[key]).at(-1)[0] - spoken);
  }
}

function told(name, times) {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { line: `${name} p50 ${at(0.5).toFixed(0)} ms, p95 ${at(0.95).toFixed(0)} ms`, p50: at(0.5), p95: at(0.95) };
}

/** The samples of a recording, as 16-bit integers with silence after them, from the browser's decoder. */
async function samplesOf(page, name) {
  const samples = await page.evaluate(async (name) => {
    const { decode } = await import("/page/sources/recorded.js");
    const { toInt16 } = await import("/page/sources/samples.js");
    return [...toInt16(await decode(await (await fetch(`/page/demo/${name}`)).arrayBuffer(), name))];
  }, name);
  return Int16Array.from([...samples, ...new Array((TAIL_MS * RATE) / 1000).fill(0)]);
}

const server = await startServer();
const browser = await launch();
const busy = Array.from({ length: Number(values.busy) }, () => spawn(process.execPath, ["-e", "for (;;);"]));
try {
  const page = await open(browser, `${server.url}/?lang=en&sound=0`, { before: watch });
  const sounds = await Promise.all(examples.map(({ audio }) => samplesOf(page, audio)));
  const shown = { word: [], drawn: [], asked: [] };
  const protocol = { word: [], asked: [] };
  const until = Date.now() + 60_000 * minutes;
  for (let round = 1; Date.now() < until; round += 1) {
    for (const [index, example] of examples.entries()) {
      const plain = await bare(server.url, sounds[index], example);
      timesOf(plain, plain.final, example, protocol);
      timesOf(await played(page, example), plain.final, example, shown);
    }
    if (round % 5 && Date.now() < until) continue;
    const ofPage = told("page", shown.word);
    const ofProtocol = told("protocol", protocol.word);
    console.log(
      `${shown.word.length} names, load ${loadavg()[0].toFixed(1)}: word: ${ofPage.line}; ${ofProtocol.line}; `
      + `page above protocol p50 ${(ofPage.p50 - ofProtocol.p50).toFixed(0)} ms, p95 ${(ofPage.p95 - ofProtocol.p95).toFixed(0)} ms; `
      + `${told("drawn", shown.drawn).line}; asked: ${told("page", shown.asked).line}, ${told("protocol", protocol.asked).line}`,
    );
  }
} finally {
  for (const each of busy) each.kill();
  await browser.close();
  await server.stop();
}
