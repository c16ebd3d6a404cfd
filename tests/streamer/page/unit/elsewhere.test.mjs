// Captions as others read them, and theirs as the page reads them: the W3C's WebVTT validator, the
// parser of video.js and others, FFmpeg. PAGE_CAPTIONS: files that the Python side wrote.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

import { FORMATS } from "../../../../streamer/page/app/exports.js";
import { readCaptions } from "../../../../streamer/page/transcripts/caption_file.js";

const require = createRequire(import.meta.url);
const { WebVTTParser } = require("webvtt-parser");
const { WebVTT } = require("vtt.js");
const { PAGE_CAPTIONS, PAGE_FFMPEG } = process.env;

const SENTENCES = ["他说1<2&3>2，在南京市长江大桥", "😀今天--在北京大学{见}到了江大桥", "我们昨天下午一起去看了市中心新开张的一家珠宝店，和旁边那家开了很多年的书店，然后才回来"];
const NAMES = [["南京市", "LOC"], ["长江大桥", "LOC"], ["长江", "LOC"], ["北京大学", "ORG"], ["江大桥", "PER"]];

const utterances = SENTENCES.map((text, line) => ({
  key: `s1/u${line}`, recording: "s1", text, final: true, audioUsed: true, startedMs: 0, endedMs: 0,
  characters: [...text].map((_, at) => [10_000 * line + 200 * at, 10_000 * line + 200 * (at + 1)]),
  entities: NAMES.filter(([name]) => text.includes(name)).map(([name, label]) => ({
    id: name, text: name, label, status: "final", parent: name === "长江" ? "长江大桥" : null, confidence: 0.9,
    start_utf16: text.indexOf(name), end_utf16: text.indexOf(name) + name.length,
  })),
}));
const ours = { vtt: FORMATS.vtt.write(utterances), srt: FORMATS.srt.write(utterances) };
const written = { "the page": ours };
if (PAGE_CAPTIONS) {
  written["the Python side"] = Object.fromEntries(["vtt", "srt"].map((form) => [form, readFileSync(join(PAGE_CAPTIONS, `talk.${form}`), "utf8")]));
}

/** Of either format, as the file says it. */
function timesOf(text) {
  return [...text.matchAll(/^(\S+) --> (\S+)/gm)].map(([, ...both]) => both.map((clock) => clock.replace(",", ".").padStart(12, "00:")));
}

const plain = (text) => text.replace(/\s/g, "");
const entire = (form) => plain(SENTENCES.join("")).replace(form === "srt" ? /[<{]/g : /$^/g, (c) => ({ "<": "＜", "{": "｛" })[c]);
const seconds = (ms) => new Date(ms).toISOString().slice(11, 23);

for (const [who, files] of Object.entries(written)) {
  test(`the W3C's validator has nothing to say of what ${who} writes`, () => {
    const { cues, errors } = new WebVTTParser().parse(files.vtt, "subtitles");
    assert.deepEqual(errors, []);
    assert.deepEqual(cues.map(({ id }) => id), cues.map((_, at) => String(at + 1)));
    assert.deepEqual(cues.map(({ startTime, endTime }) => [startTime, endTime].map((s) => seconds(1000 * s))), timesOf(files.vtt));
    const textOf = ({ type, value, children }) => (type === "text" ? value : (children ?? []).map(textOf).join(""));
    // It leaves the semicolon of an escape.
    assert.equal(plain(cues.map(({ tree }) => textOf(tree)).join("")).replace(/([<>&]);/g, "$1"), entire("vtt"));
  });

  test(`vtt.js finds every cue that ${who} writes`, () => {
    const cues = [];
    // What it needs of a browser.
    const VTTCue = class {
      constructor(startTime, endTime, text) {
        Object.assign(this, { startTime, endTime, text });
      }
    };
    const parser = new WebVTT.Parser({ VTTCue }, WebVTT.StringDecoder());
    parser.oncue = (cue) => cues.push(cue);
    parser.onparsingerror = (error) => assert.fail(error);
    parser.parse(files.vtt);
    parser.flush();
    assert.deepEqual(cues.map(({ startTime, endTime }) => [startTime, endTime].map((s) => seconds(1000 * s))), timesOf(files.vtt));
    const said = cues.map(({ text }) => text.replace(/<[^>]*>/g, "").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&")).join("");
    assert.equal(plain(said), entire("vtt"));
  });

  for (const [from, to] of [["vtt", "srt"], ["srt", "vtt"], ["vtt", "webvtt"], ["srt", "srt"]]) {
    test(`FFmpeg reads ${from} of ${who}, and the page reads what FFmpeg writes as ${to}`, { skip: PAGE_FFMPEG ? false : "needs FFmpeg" }, () => {
      const format = to === "vtt" ? "webvtt" : to;
      const done = spawnSync(PAGE_FFMPEG, ["-v", "error", "-f", from === "vtt" ? "webvtt" : "srt", "-i", "-", "-f", format, "-"], { input: files[from], encoding: "utf8" });
      assert.equal(done.stderr, "");
      assert.deepEqual(timesOf(done.stdout), timesOf(files[from]));
      const lines = readCaptions(done.stdout);
      assert.deepEqual(lines.map(({ start_ms, end_ms }) => [seconds(start_ms), seconds(end_ms)]), timesOf(files[from]));
      assert.equal(plain(lines.map(({ text }) => text).join("")), entire(from));
    });
  }
}
