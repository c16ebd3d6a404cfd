import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { backoffMs, CnertaClient, CnertaError } from "../../../../streamer/page/client.js";
import { counting, RATE, SimulatedServer } from "./simulated_server.mjs";

const STEP_MS = 1;
let now = 0;
let server;

beforeEach(() => {
  now = 0;
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  server = new SimulatedServer();
});
afterEach(() => mock.timers.reset());

/** A client whose samples are counted with 32 bits. */
function connect(options = {}) {
  const client = new CnertaClient("ws://server:1", {
    audio: { encoding: "pcm_f32le", sample_rate: RATE, channels: 1 },
    WebSocket: server.WebSocket, now: () => now, random: () => 0.5, ...options,
  });
  const told = [];
  client.on("message", (message) => told.push(message));
  return { client, told, of: (type) => told.filter((message) => message.type === type) };
}

/** Let time pass, and promises settle. */
async function pass(ms) {
  for (let at = 0; at < ms; at += STEP_MS) {
    now += STEP_MS;
    mock.timers.tick(STEP_MS);
    if (at % 20 === 0) await Promise.resolve();
  }
}

/** Speak for some time, in blocks of 40 ms. */
async function speak(client, ms, from) {
  for (let at = 0; at < ms; at += 40) {
    client.sendAudio(counting(from + (at * RATE) / 1000, (40 * RATE) / 1000));
    await pass(40);
  }
  return from + (ms * RATE) / 1000;
}

const final = (utterance, text = "京") => ({ utterance, revision: 9, final: true, text });
const interim = (utterance, revision) => ({ utterance, revision, final: false, text: "京" });

test("a session from its start to its summary", async () => {
  const { client, of } = connect();
  await speak(client, 1200, 0);
  client.sendTranscript(interim("u1", 1));
  client.sendTranscript(final("u1"));
  const summary = client.finish();
  await pass(100);
  assert.equal((await summary).utterances, 1);
  assert.equal((await summary).audio_ms, 1200);
  assert.deepEqual(of("utterance.final").map(({ text }) => text), ["京"]);
  assert.deepEqual(of("state").map(({ state }) => state), ["live", "finished"]);
  assert.throws(() => client.sendTranscript(final("u2")), /told to end/);
});

test("a transcript goes out after the audio that was given before it", async () => {
  const { client, of } = connect();
  client.sendAudio(counting(0, 5 * RATE));
  client.sendTranscript(final("u1"));
  client.sendAudio(counting(5 * RATE, RATE));
  await pass(2000);
  assert.equal(of("utterance.final")[0].last_heard, 5 * RATE - 1);
});

test("only the newest interim waits, and never after its final", async () => {
  const { client, of } = connect();
  for (const revision of [1, 2, 3]) client.sendTranscript(interim("u1", revision));
  await pass(50);
  assert.deepEqual(of("entity.upsert").map(({ revision }) => revision), [3]);
  client.sendTranscript(final("u1"));
  client.sendTranscript(interim("u1", 10));
  await pass(50);
  assert.equal(of("entity.upsert").length, 1);
});

for (const fate of ["resumes", "forgets", "offers no resume"]) {
  test(`a connection that is cut loses nothing: the server ${fate}`, async () => {
    server.offersResume = fate !== "offers no resume";
    const { client, of, told } = connect();
    let at = await speak(client, 2000, 0);
    client.sendTranscript(final("u1"));
    at = await speak(client, 600, at);
    client.sendTranscript(interim("u2", 1));
    await pass(20);
    client.sendTranscript(final("u2")); // on its way when the line is cut
    if (fate === "forgets") server.die();
    else server.current.cut();
    at = await speak(client, 1000, at);
    client.sendTranscript(final("u3"));
    client.finish();
    await pass(2000);
    assert.deepEqual(of("utterance.final").map(({ utterance }) => utterance), ["u1", "u2", "u3"]);
    assert.deepEqual(of("lost"), []);
    const events = told.filter(({ seq }) => seq !== undefined);
    assert.deepEqual(events.map(({ seq }) => seq), events.map((_, index) => index + 1));
    // Times lead back to the application's own audio, whichever session answered.
    for (const { last_heard, characters } of of("utterance.final")) {
      assert.equal(characters[0][1], Math.round((1000 * (last_heard + 1)) / RATE));
    }
    const ready = of("session.ready").map(({ recovered }) => recovered);
    assert.deepEqual(ready, [undefined, fate === "resumes"]);
    // What was shown and not final is taken back if the session that showed it is lost.
    assert.equal(of("entity.retract").length, fate === "resumes" ? 0 : 1);
  });
}

test("a new session hears again what was not answered, and no more", async () => {
  const { client } = connect();
  let at = await speak(client, 3000, 0);
  client.sendTranscript(final("u1"));
  await pass(50);
  at = await speak(client, 2000, at);
  server.die();
  await speak(client, 1000, at);
  const [session] = server.sessions.values();
  assert.equal(session.heard[0], 3 * RATE);
  assert.ok(session.heard.every((sample, index) => sample === 3 * RATE + index));
});

test("what does not fit into the memory is lost, and told", async () => {
  const { client, of } = connect({ keepMs: 2000 });
  let at = await speak(client, 1000, 0);
  server.isDown = true;
  server.current.cut();
  at = await speak(client, 5000, at);
  server.isDown = false;
  await speak(client, 4000, at);
  assert.equal(of("lost").length, 1);
  assert.ok(of("lost")[0].audio_ms > 2500, JSON.stringify(of("lost")));
  client.sendTranscript(final("u1"));
  await pass(50);
  const [{ last_heard, characters }] = of("utterance.final");
  assert.equal(characters[0][1], Math.round((1000 * (last_heard + 1)) / RATE));
});

test("a server that falls silent is noticed within two seconds, and left after eight", async () => {
  const { client, of } = connect();
  const at = await speak(client, 3000, 0);
  assert.equal(client.state, "live");
  server.isSilent = true;
  const began = now;
  let noticed = 0;
  client.on("state", ({ state }) => state === "silent" && (noticed ||= now));
  await speak(client, 3000, at);
  assert.equal(client.state, "silent");
  assert.ok(noticed - began <= 2000, `${noticed - began}`);
  await pass(8000);
  assert.ok(of("state").some(({ state, reason }) => state === "waiting" && reason === "silent"));
  server.isSilent = false;
  await pass(17_000);
  assert.equal(client.state, "live");
});

test("a pause of the application is no silence of the server", async () => {
  const { client, of } = connect();
  await speak(client, 1500, 0);
  await pass(20_000);
  assert.equal(client.state, "live");
  assert.ok(!of("state").some(({ state }) => state === "silent"));
});

test("none is tried again after a refusal, and the failure says what is unanswered", async () => {
  server.refusal = { code: 4401, name: "not_authorised", retryable: false, detail: "no token" };
  const { client } = connect();
  client.sendAudio(counting(0, RATE));
  client.sendTranscript(final("u1"));
  const finished = client.finish();
  await pass(30_000);
  assert.equal(server.connections.length, 1);
  assert.equal(client.state, "failed");
  await assert.rejects(finished, (error) => {
    assert.ok(error instanceof CnertaError);
    assert.equal(error.code, 4401);
    assert.deepEqual(error.unanswered, ["u1"]);
    assert.equal(error.audioMs, 1000);
    return true;
  });
  assert.throws(() => client.sendAudio(counting(0, 1)), CnertaError);
});

test("a busy server is tried again, not before it asked to be", async () => {
  server.refusal = { code: 1013, name: "try_again_later", retryable: true, detail: "busy", retry_after_ms: 3000 };
  const { client } = connect();
  await pass(2900);
  assert.equal(server.connections.length, 1);
  server.refusal = null;
  await pass(2000);
  assert.equal(client.state, "live");
});

test("attempts double, with jitter, up to a bound, and go through all addresses", async () => {
  assert.equal(backoffMs(0, 0), 125);
  assert.equal(backoffMs(0, 1), 250);
  assert.equal(backoffMs(3, 0.5), 1500);
  assert.equal(backoffMs(50, 1), 15_000);
  server.isDown = true;
  const client = new CnertaClient(["ws://a:1", "wss://b/own/path"], {
    WebSocket: server.WebSocket, now: () => now, random: () => 0, attempts: 3,
  });
  await pass(5000);
  assert.deepEqual(server.connections.map(({ url }) => url), ["ws://a:1/v1/stream", "wss://b/own/path", "ws://a:1/v1/stream"]);
  assert.equal(client.state, "failed");
});

test("whoever waits for room is held while the line is slow, and let go", async () => {
  const { client } = connect();
  await pass(50);
  server.current.bufferedAmount = 1e9;
  let isThrough = false;
  client.sendAudio(counting(0, 2 * RATE)).then(() => (isThrough = true));
  await pass(500);
  assert.equal(isThrough, false);
  assert.equal(client.backlogMs, 2000);
  server.current.bufferedAmount = 0;
  await pass(500);
  assert.equal(isThrough, true);
  assert.equal(client.backlogMs, 0);
});

test("audio is not sent further ahead of real time than the server takes", async () => {
  const { client } = connect({ keepMs: 200_000 });
  client.sendAudio(counting(0, 100 * RATE));
  await pass(1000);
  const [session] = server.sessions.values();
  const seconds = session.heard.length / RATE;
  assert.ok(seconds > 29 && seconds < 32, `${seconds}`);
});

test("half a frame of audio is refused", () => {
  const { client } = connect();
  assert.throws(() => client.sendAudio(new Uint8Array(3)), /whole frames of 4 bytes/);
});

test("a token goes as a subprotocol", async () => {
  connect({ token: "secret" });
  assert.deepEqual(server.current.protocols, ["cnerta.v1", "bearer.secret"]);
});

test("what a server's recogniser writes has names of its own in each session", async () => {
  const { client, of } = connect({ start: { transcript: "server" } });
  let at = await speak(client, 1000, 0);
  const write = () => {
    const { session } = server.current;
    const ms = Math.round((1000 * session.heard.length) / RATE);
    server.tell(server.current, { type: "transcript.update", utterance: "s1", revision: 1, final: false, text: "京", start_ms: 0, end_ms: ms });
    server.receive(server.current, JSON.stringify({ type: "transcript", ...final("s1") }));
  };
  write();
  await pass(50);
  server.die();
  at = await speak(client, 2000, at);
  write();
  await pass(50);
  assert.deepEqual(of("utterance.final").map(({ utterance }) => utterance), ["s1", "s1~2"]);
  assert.deepEqual(of("transcript.update").map(({ utterance, start_ms, end_ms }) => [utterance, start_ms, end_ms]), [["s1", 0, 1000], ["s1~2", 1000, 3000]]);
});

test("captions have the names and the times of the whole stream", async () => {
  const { client, of } = connect({ start: { transcript: "server", hold_ms: 2000 } });
  let at = await speak(client, 1000, 0);
  const place = { id: "e1", parent: null, start_ms: 100, end_ms: 200 };
  const release = () => server.tell(server.current, { type: "caption.update", utterance: "s1", revision: 1, text: "京", entities: [place], held: 0 });
  release();
  await pass(50);
  server.die();
  at = await speak(client, 2000, at);
  release();
  await pass(50);
  const told = of("caption.update").map(({ utterance, entities }) => [utterance, entities[0].id, entities[0].start_ms]);
  assert.deepEqual(told, [["s1", "e1", 100], ["s1~2", "e1~2", 100]]);
});

test("whatever happens to the line, every final comes once", async () => {
  // A small generator, so that a failure can be repeated.
  let state = 7;
  const random = () => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
  const { client, of, told } = connect({ random });
  let at = 0;
  const sent = [];
  for (let turn = 0; turn < 60; turn += 1) {
    at = await speak(client, 200 + Math.floor(random() * 5) * 40, at);
    const fate = random();
    if (fate < 0.2) server.current.cut();
    else if (fate < 0.3) server.die();
    client.sendTranscript(interim(`u${turn}`, 1));
    if (random() < 0.3) await pass(10);
    client.sendTranscript(final(`u${turn}`));
    sent.push(`u${turn}`);
    if (random() < 0.2) server.current.cut();
  }
  client.finish();
  await pass(5000);
  assert.equal(client.state, "finished");
  assert.deepEqual(of("utterance.final").map(({ utterance }) => utterance).sort(), sent.sort());
  const events = told.filter(({ seq }) => seq !== undefined);
  assert.deepEqual(events.map(({ seq }) => seq), events.map((_, index) => index + 1));
  for (const { last_heard, characters } of of("utterance.final")) {
    if (last_heard >= 0) assert.equal(characters[0][1], Math.round((1000 * (last_heard + 1)) / RATE));
  }
  assert.ok(of("session.ready").length > 10, "the line was cut often");
});
