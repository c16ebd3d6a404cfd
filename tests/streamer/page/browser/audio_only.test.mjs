// Audio alone: the server's own recogniser writes the transcript. The roughest there is, so what is
// asked for is that its text comes as captions, and what is said where there is none. With PAGE_WHISPER,
// the folder of a Whisper model, what was said is asked for, too.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { finals, isOver, launch, MICROPHONE, open, startServer } from "./kit.mjs";

let browser;
before(async () => {
  browser = await launch({ flags: MICROPHONE });
});
after(() => browser?.close());

async function withServer(flags, body) {
  const server = await startServer(0, flags);
  try {
    const page = await open(browser, `${server.url}/?lang=en`);
    await page.waitForSelector("#server-recogniser:not([hidden])");
    await page.click("[name=transcript][value=server]");
    await body(page);
    assert.deepEqual(page.complaints, []);
    await page.close();
  } finally {
    await server.stop();
  }
}

test("the server's recogniser captions the microphone", () =>
  withServer(["--source", "rough"], async (page) => {
    await page.click("#start");
    const [line] = await finals(page, 1);
    assert.ok(line.text.length > 5, line.text);
    assert.equal(line.textOnly, false);
    await page.click("#stop");
    await isOver(page);
  }));

const { PAGE_WHISPER } = process.env;

test("a real recogniser writes what was said, and the names in it are marked",
  { skip: PAGE_WHISPER ? false : "needs PAGE_WHISPER, the folder of a Whisper model" }, () =>
    withServer(["--source", `faster-whisper:${PAGE_WHISPER},compute=int8,threads=2`], async (page) => {
      await page.click("#start");
      const [line] = await finals(page, 1);
      assert.match(line.text, /南京市长/);
      assert.equal(line.textOnly, false);
      assert.ok(line.names.some((name) => /^南京市? LOC$/.test(name)), line.names.join());
      await page.click("#stop");
      await isOver(page);
    }));

test("a server without one says so", () =>
  withServer([], async (page) => {
    await page.click("#start");
    await page.waitForSelector("[data-key=no_recogniser]");
  }));

test("without audio there is nothing to recognise", () =>
  withServer([], async (page) => {
    await page.click("[name=source][value=none]");
    await page.click("#start");
    await page.waitForSelector("[data-key=needsAudio]");
  }));
