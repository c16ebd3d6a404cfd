// The shortest look at the whole: what a visitor does first, in one browser and a minute.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { captions, finals, hearExample, inaccessible, isOver, launch, open, shoot, startServer, text } from "./kit.mjs";

const DEMO = new URL("../../../../streamer/demo/demo.json", import.meta.url);
const SENTENCE = JSON.parse(readFileSync(DEMO, "utf8")).recordings[0].text;
const BRIDGE = ["南京市 LOC", "长江大桥 LOC", "长江 LOC"];
const MAYOR = ["南京 LOC", "江大桥 PER"];

let server;
let browser;
before(async () => {
  server = await startServer();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("a visitor hears the two readings, sends the text alone, and types a line", async () => {
  const page = await open(browser, `${server.url}/?lang=en&theme=dark`);
  await hearExample(page, "bridge");
  await hearExample(page, "mayor");
  const heard = await captions(page);
  assert.deepEqual(heard.map(({ names }) => names), [BRIDGE, MAYOR]);
  assert.deepEqual(heard.map((line) => [line.text, line.textOnly]), [[SENTENCE, false], [SENTENCE, false]]);
  assert.match(await text(page, "#verdict"), /different answers/);
  assert.match(await text(page, "#facts"), /audio heard/);
  await shoot(page, "heard");
  await page.click("#text-only");
  await hearExample(page, "bridge");
  await hearExample(page, "mayor");
  const alone = (await captions(page)).slice(2);
  assert.deepEqual(alone[0].names, alone[1].names);
  assert.ok(alone.every(({ textOnly }) => textOnly));
  assert.match(await text(page, "#verdict"), /text alone cannot tell/);
  assert.match(await text(page, "#facts"), /text only/);
  await shoot(page, "text-only");
  assert.deepEqual(await inaccessible(page), []);
  await page.click("[name=source][value=none]");
  await page.click("#start");
  await page.waitForSelector("#typing:not([hidden])");
  await page.type("#line", "张三昨天到了上海", { delay: 60 });
  await page.waitForFunction(() => document.querySelector("#captions .utterance:not(.final) .entity"));
  await page.keyboard.press("Enter");
  const line = (await finals(page, 5))[4];
  assert.deepEqual([line.text, line.textOnly], ["张三昨天到了上海", true]);
  assert.ok(line.names.includes("上海 LOC"), line.names);
  assert.equal(await page.$eval("#line", (field) => field.value), "");
  await page.click("#stop");
  await isOver(page);
  assert.deepEqual(page.complaints, []);
});
