// The same page in Firefox.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { captions, hearExample, inaccessible, launch, open, shoot, startServer, text } from "./kit.mjs";

let server;
let browser;
before(async () => {
  server = await startServer();
  browser = await launch({ browser: "firefox" });
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("the homograph demo in Firefox", async () => {
  const page = await open(browser, `${server.url}/?lang=en&theme=dark&sound=0`);
  await hearExample(page, "bridge");
  await hearExample(page, "mayor");
  assert.deepEqual((await captions(page)).map(({ names }) => names), [["南京市 LOC", "长江大桥 LOC", "长江 LOC"], ["南京 LOC", "江大桥 PER"]]);
  assert.match(await text(page, "#verdict"), /different answers/);
  assert.deepEqual(await inaccessible(page), []);
  await shoot(page, "firefox");
  assert.deepEqual(page.complaints, []);
});
