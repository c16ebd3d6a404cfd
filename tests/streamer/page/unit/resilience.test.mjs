// The client against a real server, over a line that breaks, and through a restart.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { CnertaClient } from "../../../../streamer/page/client.js";
import { fragileLine, sleep, startServer } from "../real_server.mjs";

const { PAGE_SAMPLES } = process.env;
const SENTENCE = "各位观众今天我们来认识一下南京市长江大桥";
const NAMES = { bridge: "南京市 长江大桥 长江", mayor: "南京 江大桥" };
const BLOCK = 3200; // 100 ms
const QUIET = new Int16Array(16_000);
const samples = Object.fromEntries(Object.keys(NAMES).map((name) => {
  const bytes = readFileSync(`${PAGE_SAMPLES}/${name}.raw`);
  return [name, new Int16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)];
}));

let server;
before(async () => (server = await startServer()));
after(() => server?.stop());

/** Speak sentences one after the other, while `fate` does what it will. */
async function speak(url, count, fate) {
  const client = new CnertaClient(url, { silentMs: 5000, deadMs: 20_000 });
  const told = [];
  client.on("message", (message) => told.push(message));
  const said = [];
  for (let number = 0; number < count; number += 1) {
    const name = number % 2 ? "mayor" : "bridge";
    for (let at = 0; at < samples[name].length; at += BLOCK / 2) {
      await client.sendAudio(samples[name].slice(at, at + BLOCK / 2));
      await fate(number, at / samples[name].length);
    }
    client.sendTranscript({ utterance: `u${number}`, revision: 1, final: true, text: SENTENCE });
    said.push(NAMES[name]);
    await fate(number, 1);
    await client.sendAudio(QUIET.slice());
  }
  const summary = await client.finish();
  const of = (type) => told.filter((message) => message.type === type);
  return { client, told, of, said, summary };
}

function check({ of, told, said, summary }) {
  const finals = of("utterance.final");
  assert.deepEqual(finals.map(({ utterance }) => utterance), said.map((_, number) => `u${number}`));
  assert.deepEqual(finals.map(({ entities }) => entities.map(({ text }) => text).join(" ")), said);
  assert.ok(finals.every(({ audio_used }) => audio_used));
  assert.equal(summary.utterances, said.length);
  assert.deepEqual(of("lost"), []);
  // It is given faster than it was spoken; nothing else is wrong.
  assert.deepEqual(of("warning").filter(({ name }) => name !== "audio_ahead_of_realtime"), []);
  const events = told.filter(({ seq }) => seq !== undefined);
  assert.deepEqual(events.map(({ seq }) => seq), events.map((_, index) => index + 1));
  // All times are on the clock of the application's audio: each sentence lies where it was given.
  let startMs = 0;
  finals.forEach(({ characters }, number) => {
    const lastsMs = samples[number % 2 ? "mayor" : "bridge"].length / 16;
    assert.ok(characters[0][0] >= startMs - 100, `${number}: ${characters[0][0]} from ${startMs}`);
    assert.ok(characters.at(-1)[1] <= startMs + lastsMs + 300, `${number}`);
    startMs += lastsMs + 1000;
  });
}

test("a line that is cut again and again loses nothing", async () => {
  const line = await fragileLine(server.port);
  let cuts = 0;
  const result = await speak(line.url, 4, async (number, share) => {
    const isTime = (number % 3 === 0 && share === 1) || (number % 3 === 1 && Math.abs(share - 0.5) < 0.011);
    if (!isTime) return;
    cuts += 1;
    line.cut();
    await sleep(20);
  });
  line.stop();
  check(result);
  assert.ok(cuts >= 3, `${cuts}`);
  const again = result.of("session.ready").slice(1);
  assert.ok(again.length >= 2 && again.every(({ recovered }) => recovered === true), JSON.stringify(again));
});

test("a server that is killed and started again loses nothing", async () => {
  let mine = await startServer();
  const { port } = mine;
  try {
    const result = await speak(`ws://127.0.0.1:${port}`, 3, async (number, share) => {
      if (number !== 1 || share !== 1) return;
      await mine.stop();
      mine = await startServer(port);
    });
    check(result);
    assert.deepEqual(result.of("session.ready").map(({ recovered }) => recovered), [undefined, false]);
  } finally {
    await mine.stop();
  }
});
