import assert from "node:assert/strict";
import { test } from "node:test";

import { columns, cues, lines } from "../../../../streamer/page/app/cues.js";
import { nested } from "../../../../streamer/page/app/captions.js";
import { FORMATS } from "../../../../streamer/page/app/exports.js";
import { AudioHistory } from "../../../../streamer/page/app/player.js";
import { Store } from "../../../../streamer/page/app/store.js";
import { Resampler, toInt16 } from "../../../../streamer/page/sources/samples.js";
import { readCaptions } from "../../../../streamer/page/transcripts/caption_file.js";
import { TimedTranscript } from "../../../../streamer/page/transcripts/timed.js";

const entity = (text, start, label = "LOC", more = {}) => ({
  id: `${start}-${text}`, text, label, start, end: start + [...text].length,
  start_utf16: start, end_utf16: start + text.length, parent: null, status: "final",
  start_ms: 100 * start, end_ms: 100 * (start + text.length), audio_used: true, confidence: 0.9, ...more,
});
const utterance = (text, entities = [], more = {}) => ({
  key: `s1/${text}`, recording: "s1", text, final: true, entities, audioUsed: true, startedMs: 0, endedMs: 0,
  characters: [...text].map((_, at) => [100 * at, 100 * (at + 1)]), ...more,
});
const shown = (text, entities) => lines(text, entities).map(([from, to]) => text.slice(from, to));

test("a line ends at a word, and holds sixteen characters", () => {
  const text = "昨天下午我们一起去看了市中心新开张的一家珠宝店和旁边的书店";
  const found = shown(text);
  assert.equal(found.join(""), text);
  assert.ok(found.every((line) => columns(line) <= 32), found.join("|"));
  assert.ok(!found.some((line) => line.endsWith("一") || line.startsWith("宝店")), found.join("|"));
});

test("a line never ends inside a name that fits", () => {
  const text = "他们在前天傍晚的时候抵达了中华人民共和国国家图书馆门口";
  const name = entity("中华人民共和国国家图书馆", text.indexOf("中华"), "ORG");
  assert.ok(shown(text, [name]).some((line) => line.includes(name.text)));
});

test("no line begins with what closes, none ends with what opens", () => {
  const text = "他说：“我们明天一早就要出发去上海了。”大家都非常高兴地答应了（真的）。";
  for (const line of shown(text)) {
    assert.ok(!/^[”。，）]/.test(line), line);
    assert.ok(!/[“（]$/.test(line), line);
  }
});

test("cues come in order, do not overlap and stay readable", () => {
  const spoken = ["今天我们来看看南京市长江大桥，明天去看看别的地方，后天才回来", "好"];
  const found = cues(spoken.map((text, at) => utterance(text, [], { characters: [...text].map((_, i) => [3500 * at + 80 * i, 3500 * at + 80 * (i + 1)]) })));
  found.slice(1).forEach((cue, at) => assert.ok(cue.startMs >= found[at].endMs));
  for (const cue of found) assert.ok(cue.endMs - cue.startMs >= 400 && cue.lines.length <= 2);
});

test("a second recording follows the first, at its own pace", () => {
  const one = utterance("今天我们来看看南京市");
  const found = cues([one, { ...utterance("长江大桥", [], { characters: [[2000, 2200], [2200, 2400], [2400, 2600], [2600, 2800]] }), recording: "s2" }]);
  assert.equal(found[1].startMs, found[0].endMs + 2000);
});

test("times of emoji and without an alignment", () => {
  const [cue] = cues([utterance("😀南京", [], { characters: [], startedMs: 1000, endedMs: 4000 })]);
  assert.deepEqual([cue.startMs, cue.endMs], [1000, 4000]);
});

test("marks are nested, and those that cross are cut", () => {
  const marks = nested([{ start: 2, end: 4 }, { start: 0, end: 3 }, { start: 0, end: 1 }]);
  assert.deepEqual(marks, [{ start: 0, end: 3 }, { start: 0, end: 1 }, { start: 2, end: 3 }, { start: 3, end: 4 }]);
});

const bridge = [utterance("<南京市长江大桥&", [
  entity("南京市", 1), entity("长江大桥", 4), entity("长江", 4, "LOC", { parent: "4-长江大桥" }),
])];

test("WebVTT", () => {
  const vtt = FORMATS.vtt.write(bridge);
  assert.match(vtt, /^WEBVTT\n\n1\n00:00:00\.000 --> 00:00:0\d\.\d{3}\n/);
  assert.ok(vtt.includes("&lt;<c.LOC>南京市</c><c.LOC><c.LOC.inner>长江</c>大桥</c>&amp;"));
  assert.ok(!vtt.includes("STYLE"));
});

test("SRT and TTML", () => {
  assert.ok(FORMATS.srt.write(bridge).includes('＜<font color="#8cff8c">南京市</font>'));
  const ttml = FORMATS.ttml.write(bridge);
  assert.ok(ttml.includes('&lt;<span style="of-LOC">南京市</span><span style="of-LOC"><span style="of-LOC inner">长江</span>大桥</span>&amp;'));
});

test("JSON says what the audio was good for", () => {
  const [told] = JSON.parse(FORMATS.json.write([utterance("南京", [entity("南京", 0)], { audioUsed: false })])).utterances;
  assert.equal(told.audio_used, false);
  assert.equal(told.entities[0].text, "南京");
});

test("captions are read whether VTT or SRT, with tags, notes and either line end", () => {
  const vtt = "\uFEFFWEBVTT\r\n\r\nNOTE nothing\r\n\r\nSTYLE\r\n::cue { color: red }\r\n\r\nfirst\r\n00:01.500 --> 00:02.000 align:left\r\n<v 张三>南京 <c.LOC>市</c>\r\n长江&amp;大桥\r\n";
  assert.deepEqual(readCaptions(vtt), [{ text: "南京 市长江&大桥", start_ms: 1500, end_ms: 2000 }]);
  const srt = "2\n00:00:05,000 --> 00:00:06,000\n<i>two</i>\nwords\n\n1\n01:00:00,000 --> 01:00:01,000\n一\n";
  assert.deepEqual(readCaptions(srt), [
    { text: "two words", start_ms: 5000, end_ms: 6000 }, { text: "一", start_ms: 3_600_000, end_ms: 3_601_000 },
  ]);
  assert.deepEqual(readCaptions("nothing of the kind"), []);
  assert.deepEqual(readCaptions(FORMATS.srt.write([utterance("南京市", [entity("南京市", 0)])])).map(({ text }) => text), ["南京市"]);
});

test("a timed transcript grows with the audio and ends a little after it", () => {
  const sent = [];
  const line = { text: "南京市", start_ms: 0, end_ms: 900 };
  const transcript = new TimedTranscript([line], (revision) => sent.push({ ...revision, at: now }));
  let now = 0;
  for (; now <= 1300; now += 50) transcript.advance(now);
  assert.deepEqual(sent.map(({ text, final }) => [text, final]), [["南", false], ["南京", false], ["南京市", true]]);
  assert.equal(sent.at(-1).at, 1200);
  assert.ok(sent.filter(({ final }) => !final).every(({ text, at }) => at >= 300 * text.length + 200));
  assert.deepEqual(sent.map(({ revision }) => revision), sent.map((_, at) => at + 1));
});

test("the end of the audio ends the line that was begun, and no later one", () => {
  const sent = [];
  const lines = [{ text: "南京", start_ms: 0, end_ms: 900 }, { text: "上海", start_ms: 5000, end_ms: 6000 }];
  const transcript = new TimedTranscript(lines, (revision) => sent.push(revision));
  transcript.end(500);
  assert.deepEqual(sent.map(({ text, final }) => [text, final]), [["南京", true]]);
});

test("another rate keeps a tone and removes what it cannot hold", () => {
  const level = (from, frequency) => {
    const resampler = new Resampler(from);
    const parts = [];
    for (let at = 0; at < from; at += 1111) {
      parts.push(resampler.push(Float32Array.from({ length: Math.min(1111, from - at) }, (_, i) => Math.sin((2 * Math.PI * frequency * (at + i)) / from))));
    }
    const samples = parts.flatMap((part) => [...part]);
    assert.ok(Math.abs(samples.length - 16_000) < 60, `${samples.length} samples of a second`);
    const middle = samples.slice(2000, 14_000);
    return { rms: Math.sqrt(middle.reduce((sum, x) => sum + x * x, 0) / middle.length), samples };
  };
  for (const from of [8_000, 22_050, 44_100, 48_000, 96_000]) {
    assert.ok(Math.abs(level(from, 1000).rms - Math.SQRT1_2) < 0.01, `${from}`);
  }
  assert.ok(level(48_000, 12_000).rms < 0.001);
  // In place, too: the tone is where it was.
  const { samples } = level(48_000, 500);
  samples.slice(100, 15_900).forEach((x, at) => assert.ok(Math.abs(x - Math.sin((2 * Math.PI * 500 * (at + 100)) / 16_000)) < 0.01));
});

test("samples in 16 bits", () => {
  assert.deepEqual([...toInt16(Float32Array.of(-2, -1, 0, 0.5, 1))], [-32767, -32767, 0, 16384, 32767]);
});

test("ten minutes of audio are kept, and found at their times", () => {
  const history = new AudioHistory();
  for (let second = 0; second < 700; second += 1) history.push(new Int16Array(16_000).fill(second));
  assert.ok(history.startMs >= 99_000 && history.endMs === 700_000);
  assert.ok(!history.has(50_000, 51_000) && history.has(650_000, 651_000));
  assert.equal(Math.round(history.slice(650_300, 650_400)[1000] * 32768), 650);
  assert.equal(Math.round(history.peak(650_300, 650_310) * 32768), 650);
});

test("what is no longer in the text is not shown", () => {
  const store = new Store();
  store.sent("s1", { utterance: "u1", text: "南京市" }, 0);
  store.upsert("s1", { utterance: "u1", entity: entity("南京市", 0) });
  store.sent("s1", { utterance: "u1", text: "南京是" }, 100);
  assert.deepEqual(store.open[0].entities, []);
  store.upsert("s1", { utterance: "u1", entity: entity("南京", 0) });
  store.retract("s1", { utterance: "u1", id: "0-南京" });
  assert.deepEqual(store.open[0].entities, []);
  store.finish("s1", { utterance: "u1", text: "南京是", entities: [entity("南京", 0)], characters: [], audio_used: true });
  assert.deepEqual(store.newest(5).map(({ text, final }) => [text, final]), [["南京是", true]]);
  assert.deepEqual(store.names().map(({ text, mentions }) => [text, mentions.length]), [["南京", 1]]);
});

test("few finals are at hand, all are for a file, and the list of names has its bounds", async () => {
  const store = new Store();
  const many = 1_700;
  for (let at = 0; at < many; at += 1) {
    const text = `第${at}人在上海`;
    const names = [entity(`第${at}人`, 0, "PER"), entity("上海", text.indexOf("上海"))];
    store.finish("s1", { utterance: `u${at}`, text, entities: names, characters: [], audio_used: true });
  }
  assert.equal(store.count, many);
  assert.ok(store.finals.length <= 400);
  assert.deepEqual((await store.all()).map(({ text }) => text), Array.from({ length: many }, (_, at) => `第${at}人在上海`));
  const [shanghai, ...others] = store.names();
  assert.deepEqual([shanghai.text, shanghai.count, shanghai.mentions.length], ["上海", many, 8]);
  assert.ok(others.length < 1_000 && others.at(-1).text === `第${many - 1}人`);
});
