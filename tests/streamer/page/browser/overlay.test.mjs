// The overlay as OBS has it: a browser of its own, without gestures or permissions, on nothing.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { captions, finals, hearExample, launch, open, shoot, sleep, startServer } from "./kit.mjs";

const MAYOR = ["南京 LOC", "江大桥 PER"];
const OBS = { width: 1920, height: 1080, ready: "#captions" };
const CLEAR_SECONDS = 6;

let browser;
let obs;
before(async () => {
  browser = await launch();
  obs = await launch({ flags: ["--deny-permission-prompts", "--autoplay-policy=user-gesture-required"] });
});
after(async () => {
  await browser?.close();
  await obs?.close();
});

async function withServer(flags, body) {
  const server = await startServer(0, flags);
  try {
    await body(server);
  } finally {
    await server.stop();
  }
}

const isEmpty = (overlay) => overlay.waitForFunction(() => !document.querySelector("#captions .utterance"), { polling: 100 });

/** What is not transparent, as a box of the picture. */
async function inked(overlay) {
  const picture = await overlay.screenshot({ omitBackground: true, encoding: "base64" });
  return overlay.evaluate(async (picture) => {
    const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const { width, height } = image;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const box = { width, height, left: width, right: 0, top: height, bottom: 0, count: 0 };
    for (let at = 3; at < data.length; at += 4) {
      if (!data[at]) continue;
      const [x, y] = [((at - 3) / 4) % width, Math.floor((at - 3) / 4 / width)];
      Object.assign(box, { left: Math.min(box.left, x), right: Math.max(box.right, x), top: Math.min(box.top, y), bottom: Math.max(box.bottom, y), count: box.count + 1 });
    }
    return box;
  }, picture);
}

async function addressOf(page) {
  await page.click("[name=obs]");
  await page.waitForSelector("#obs:not([hidden])");
  return page.$eval("#obs-address", (field) => field.value);
}

test("OBS shows what the page shows, and nothing else; scenes and reloads change nothing", () =>
  withServer([], async (server) => {
    const page = await open(browser, `${server.url}/?lang=en&sound=0`);
    const address = await addressOf(page);
    assert.match(address, /^http:\/\/127\.0\.0\.1:\d+\/\?overlay=1&.*#watch=[0-9a-f]{32}$/);
    let overlay = await open(obs, address, OBS);
    assert.equal((await inked(overlay)).count, 0);
    await hearExample(page, "mayor");
    assert.deepEqual((await finals(overlay, 1))[0].names, MAYOR);
    const box = await inked(overlay);
    assert.ok(box.count > 10_000 && box.top > 0.8 * box.height && box.left > 0 && box.right < box.width - 1, JSON.stringify(box));
    assert.ok(Math.abs(box.left + box.right - box.width) < 40, "in the middle");
    const isScrolled = await overlay.evaluate(() => document.documentElement.scrollHeight > innerHeight || innerWidth !== document.documentElement.clientWidth);
    assert.equal(isScrolled, false);
    await shoot(overlay, "obs", { omitBackground: true });
    // A scene that is left and come back to loads the source anew.
    await hearExample(page, "mayor");
    await overlay.close();
    overlay = await open(obs, address, OBS);
    assert.deepEqual((await finals(overlay, 1))[0].names, MAYOR);
    await isEmpty(overlay);
    assert.equal((await inked(overlay)).count, 0);
    assert.deepEqual(overlay.complaints, []);
    assert.deepEqual(page.complaints, []);
    // The page is loaded anew: its address stays good.
    await page.reload();
    await page.waitForSelector(".card button");
    assert.equal(await page.$eval("#obs-address", (field) => field.value), address);
    await hearExample(page, "mayor");
    assert.deepEqual((await finals(overlay, 1)).at(-1).names, MAYOR);
    // It is told no more.
    await page.click("[name=obs]");
    await isEmpty(overlay);
    await hearExample(page, "mayor");
    assert.deepEqual(await captions(overlay), []);
    await overlay.close();
    await page.close();
  }));

test("OBS is there first, and the server may be started again", async () => {
  let server = await startServer();
  const { port } = server;
  try {
    const page = await open(browser, `${server.url}/?lang=en&sound=0`);
    const address = await addressOf(page);
    const overlay = await open(obs, `${address}`.replace("#", "&clear=0#"), OBS);
    await server.stop();
    await sleep(300);
    server = await startServer(port);
    await hearExample(page, "mayor");
    assert.deepEqual((await finals(overlay, 1))[0].names, MAYOR);
    await sleep(1000 * CLEAR_SECONDS + 500);
    assert.equal((await captions(overlay)).length, 1);
    await overlay.close();
    await page.close();
  } finally {
    await server.stop();
  }
});

test("where the server asks for a token, the address of the page is enough", async () => {
  process.env.CNERTA_TOKEN = "a-token-that-nobody-guesses";
  try {
    await withServer([], async (server) => {
      const page = await open(browser, `${server.url}/?lang=en&sound=0#token=${process.env.CNERTA_TOKEN}`);
      const address = await addressOf(page);
      assert.ok(!address.includes(process.env.CNERTA_TOKEN));
      const overlay = await open(obs, address, OBS);
      await hearExample(page, "mayor");
      assert.deepEqual((await finals(overlay, 1))[0].names, MAYOR);
      await overlay.close();
      await page.close();
    });
  } finally {
    delete process.env.CNERTA_TOKEN;
  }
});

test("an example plays in the overlay by itself", () =>
  withServer([], async (server) => {
    const overlay = await open(obs, `${server.url}/?overlay=1&play=mayor`, OBS);
    assert.deepEqual((await finals(overlay, 1))[0].names, MAYOR);
    await overlay.close();
  }));
