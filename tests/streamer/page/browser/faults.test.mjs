// Servers that stop answering, die and come back, and lines that are slow.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { captions, finals, isOver, launch, open, playExample, sleep, slowLine, startServer, state, text } from "./kit.mjs";

const MAYOR = ["南京 LOC", "江大桥 PER"];
let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

async function withServer(body) {
  const server = await startServer();
  try {
    await body(server);
  } finally {
    await server.stop();
  }
}

test("a server that stops answering is seen, and seen to be back", () =>
  withServer(async (server) => {
    const page = await open(browser, `${server.url}/?lang=en&sound=0`);
    await playExample(page, "mayor");
    await state(page, "live");
    await sleep(1500);
    server.signal("SIGSTOP");
    await state(page, "silent");
    assert.match(await text(page, "#status-text"), /does not answer/);
    assert.equal(await text(page, "#facts"), "");
    server.signal("SIGCONT");
    assert.deepEqual((await finals(page, 1))[0].names, MAYOR);
    await isOver(page);
    assert.deepEqual(page.complaints, []);
    // Also while nothing is streamed.
    server.signal("SIGSTOP");
    await state(page, "silent");
    server.signal("SIGCONT");
    await page.waitForFunction(() => document.querySelector("#status").dataset.state !== "silent");
    await page.close();
  }));

test("a server that is killed in mid-sentence and started again answers all the same", async () => {
  let server = await startServer();
  try {
    const page = await open(browser, `${server.url}/?lang=en&sound=0`);
    await playExample(page, "mayor");
    await page.waitForFunction(() => document.querySelector("#captions .utterance")?.textContent.length > 6);
    const { port } = server;
    await server.stop();
    await state(page, "waiting");
    server = await startServer(port);
    const [line] = await finals(page, 1);
    assert.deepEqual([line.names, line.textOnly], [MAYOR, false]);
    await page.waitForSelector("[data-key=anew]");
    await isOver(page);
    assert.equal((await captions(page)).length, 1);
    await page.close();
  } finally {
    await server.stop();
  }
});

test("over a slow line everything arrives, later", () =>
  withServer(async (server) => {
    const line = await slowLine(server.port, { delayMs: 250, bytesPerSecond: 60_000 });
    try {
      const page = await open(browser, `${line.url}/?lang=en&sound=0`);
      await playExample(page, "mayor");
      assert.deepEqual((await finals(page, 1))[0].names, MAYOR);
      await isOver(page);
      assert.deepEqual(page.complaints, []);
      await page.close();
    } finally {
      line.stop();
    }
  }));

test("a server that refuses is not asked again, and its reason is shown", () =>
  withServer(async (server) => {
    const page = await open(browser, `${server.url}/?lang=en&sound=0`, {
      before: () => {
        const Real = WebSocket;
        window.opened = 0;
        window.WebSocket = class extends Real {
          constructor(url, protocols) {
            super(url, protocols);
            window.opened += 1;
          }
          send(data) {
            super.send(typeof data === "string" ? data.replace('"session.start"', '"session.begin"') : data);
          }
        };
      },
    });
    await playExample(page, "mayor");
    await state(page, "failed");
    assert.match(await text(page, "[data-key=failedBecause]"), /session\.begin/);
    await sleep(1500);
    assert.equal(await page.evaluate(() => window.opened), 1);
    await page.close();
  }));
