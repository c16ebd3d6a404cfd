import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import {
  captions, finals, hearExample, inaccessible, isOver, launch, MICROPHONE, open, playExample, shoot, sleep, startServer, text,
} from "./kit.mjs";

const DEMO = new URL("../../../../streamer/demo/", import.meta.url);
const SENTENCE = JSON.parse(readFileSync(new URL("demo.json", DEMO), "utf8")).recordings[0].text;
const BRIDGE = ["南京市 LOC", "长江大桥 LOC", "长江 LOC"];
const MAYOR = ["南京 LOC", "江大桥 PER"];

let server;
let browser;
let folder;
before(async () => {
  server = await startServer();
  browser = await launch({ flags: MICROPHONE });
  folder = mkdtempSync(join(tmpdir(), "page-"));
});
after(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** A page for one test, which must not complain. */
async function on(query, body, options) {
  const context = await browser.createBrowserContext({ downloadBehavior: { policy: "allow", downloadPath: folder } });
  try {
    const page = await open(context, `${server.url}/?lang=en&theme=dark&${query}`, options);
    await body(page, context);
    assert.deepEqual(page.complaints, []);
  } finally {
    await context.close();
  }
}

const pathOf = (name) => decodeURIComponent(new URL(name, DEMO).pathname);

function captionFile() {
  const path = join(folder, "talk.vtt");
  writeFileSync(path, `WEBVTT\n\n1\n00:00:00.176 --> 00:00:04.536\n${SENTENCE}\n`);
  return path;
}

describe("the homograph demo", () => {
  test("?text-only=1 sends no audio from the beginning", () =>
    on("text-only=1", async (page) => {
      await hearExample(page, "mayor");
      assert.equal((await captions(page))[0].textOnly, true);
    }));

  test("with the keyboard alone", () =>
    on("", async (page) => {
      const reached = [];
      for (let press = 0; press < 12; press += 1) {
        await page.keyboard.press("Tab");
        const focused = await page.evaluate(() => document.activeElement.closest("[data-example]")?.dataset.example ?? document.activeElement.id);
        reached.push(focused);
        if (focused === "mayor") break;
      }
      assert.deepEqual(reached, ["", "language", "captions", "text-only", "bridge", "mayor"]);
      await page.keyboard.press("Enter");
      assert.deepEqual((await finals(page, 1))[0].names, MAYOR);
    }));
});

describe("captions", () => {
  test("marks never move the text", () =>
    on("", async (page) => {
      await page.evaluate(() => {
        window.places = new Map();
        window.moved = [];
        const look = () => {
          const line = document.querySelector("#captions .utterance .text");
          const walker = line && document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
          let at = 0;
          while (walker?.nextNode()) {
            for (let index = 0; index < walker.currentNode.length; index += 1, at += 1) {
              const range = document.createRange();
              range.setStart(walker.currentNode, index);
              range.setEnd(walker.currentNode, index + 1);
              const { x, y } = range.getBoundingClientRect();
              const known = window.places.get(at);
              if (known && (Math.abs(known.x - x) > 0.1 || Math.abs(known.y - y) > 0.1)) window.moved.push([at, known, { x, y }]);
              window.places.set(at, { x, y });
            }
          }
          requestAnimationFrame(look);
        };
        look();
      });
      await playExample(page, "bridge");
      await page.waitForSelector("#captions .entity.tentative, #captions .entity.stable");
      await finals(page, 1);
      await sleep(300);
      assert.deepEqual(await page.evaluate(() => window.moved), []);
      assert.equal(await page.evaluate(() => window.places.size), SENTENCE.length);
    }));

  test("a screen reader is told each final line once, and nothing else", () =>
    on("", async (page) => {
      await page.evaluate(() => {
        window.told = [];
        new MutationObserver((changes) => changes.forEach(({ addedNodes }) => addedNodes.forEach((node) => window.told.push(node.textContent))))
          .observe(document.querySelector("[role=log]"), { childList: true, subtree: true, characterData: true });
      });
      await hearExample(page, "mayor");
      assert.deepEqual(await page.evaluate(() => window.told), [`${SENTENCE}。南京 place，江大桥 person`]);
      assert.equal(await page.$eval("#captions", (element) => element.getAttribute("aria-live")), null);
    }));

  test("fewer names are marked, or each only once", () =>
    on("density=0.08", async (page) => {
      await hearExample(page, "bridge");
      assert.deepEqual((await captions(page))[0].names, []);
      assert.match(await text(page, "#names"), /长江大桥/);
      await page.select("[name=density]", "1");
      await page.click("[name=first]");
      await hearExample(page, "bridge");
      assert.deepEqual((await captions(page)).map(({ names }) => names), [BRIDGE, []]);
    }));

  test("are for those who see them, in both languages and all themes, accessible", () =>
    on("", async (page) => {
      await hearExample(page, "bridge");
      await page.click("#text-only");
      await hearExample(page, "mayor");
      for (const [width, height] of [[1100, 1500], [390, 844]]) {
        await page.setViewport({ width, height });
        for (const theme of ["dark", "light"]) {
          await page.select("[name=theme]", theme);
          for (const contrast of [false, true]) {
            await page.$eval("[name=contrast]", (input, on) => input.checked !== on && input.click(), contrast);
            await sleep(300);
            const name = `${theme}-${contrast ? "contrast-" : ""}${width}`;
            assert.deepEqual(await inaccessible(page), [], name);
            await shoot(page, name, { fullPage: true });
          }
        }
        const isWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.equal(isWide, false, `at ${width}`);
      }
      await page.click("#language");
      assert.equal(await text(page, "#captions-heading"), "字幕");
      assert.equal(await page.evaluate(() => document.documentElement.lang), "zh-Hans");
      assert.deepEqual(await inaccessible(page), []);
      for (const choice of ["source][value=file", "transcript][value=captions", "obs"]) await page.click(`[name=${choice}]`);
      const outside = await page.$$eval("section :is(input, select, button:not(.bar), label)", (all) =>
        all.filter((each) => each.checkVisibility() && each.getBoundingClientRect().right > each.closest("section").getBoundingClientRect().right).map(({ outerHTML }) => outerHTML));
      assert.deepEqual(outside, []);
      assert.deepEqual(await inaccessible(page), []);
      await shoot(page, "chinese-390", { fullPage: true });
    }));
});

describe("sources and transcripts", () => {
  test("a microphone and typed lines", () =>
    on("", async (page) => {
      await page.click("#start");
      await page.waitForSelector("#typing:not([hidden])");
      await page.waitForFunction(() => document.querySelector("#level").value > 0.3);
      await sleep(5200);
      await page.type("#line", SENTENCE);
      await page.keyboard.press("Enter");
      const [line] = await finals(page, 1);
      assert.deepEqual([line.names, line.textOnly], [MAYOR, false]);
      await page.click("#stop");
      await isOver(page);
      assert.deepEqual(await page.$$eval(".bar", (bars) => bars.map((bar) => bar.textContent)), ["南京", "江大桥"]);
      await page.click(".bar.PER");
      await page.waitForSelector(".bar.PER.heard");
      await page.waitForFunction(() => !document.querySelector(".bar.heard"));
    }));

  test("a sound file and a caption file, chosen and dropped", () =>
    on("sound=0", async (page) => {
      await page.click("[name=source][value=file]");
      await (await page.$("#media")).uploadFile(pathOf("mayor.flac"));
      const vtt = readFileSync(captionFile(), "utf8");
      await page.evaluate((vtt) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([vtt], "talk.vtt", { type: "text/vtt" }));
        dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
      }, vtt);
      await page.waitForFunction(() => document.querySelector("#notices").textContent.includes("1 captions from talk.vtt"));
      await page.click("#start");
      assert.deepEqual((await finals(page, 1))[0].names, MAYOR);
      await isOver(page);
    }));

  test("what cannot be read is explained", () =>
    on("", async (page) => {
      const told = (key) => page.waitForSelector(`.notice.bad[data-key=${key}]`);
      await page.click("[name=source][value=file]");
      await page.click("#start");
      await told("noFile");
      const nonsense = join(folder, "nonsense.mp3");
      writeFileSync(nonsense, "no sound");
      await (await page.$("#media")).uploadFile(nonsense);
      await page.waitForSelector("[data-key=mediaLoaded]");
      await page.click("#start");
      await told("undecodable");
      await page.click("[name=transcript][value=captions]");
      const empty = join(folder, "empty.srt");
      writeFileSync(empty, "nothing");
      await (await page.$("#caption-file")).uploadFile(empty);
      await told("noCues");
      assert.equal(await page.$eval("#start", (button) => button.disabled), false);
    }));

  test("a microphone that is lost ends the session in order", () =>
    on("", async (page) => {
      await page.click("#start");
      await page.waitForFunction(() => document.querySelector("#level").value > 0.05);
      await page.type("#line", "我们在上海");
      await page.evaluate(() => window.tracks[0].dispatchEvent(new Event("ended")));
      await page.waitForSelector("[data-key=deviceLost]");
      assert.equal((await finals(page, 1))[0].text, "我们在上海");
    }, {
      before: () => {
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
          const stream = await ask(wanted);
          window.tracks = stream.getTracks();
          return stream;
        };
      },
    }));

  test("an origin that is not secure has no microphone, and says so", () =>
    on("", async (page) => {
      await page.click("#start");
      await page.waitForSelector("[data-key=insecure]");
    }, { before: () => Object.defineProperty(Navigator.prototype, "mediaDevices", { value: undefined }) }));

  test("the browser's own recogniser says where the voice may go", () =>
    on("", async (page) => {
      await page.click("[name=transcript][value=browser]");
      assert.match(await text(page, "#recogniser-note:not([hidden])"), /vendor/);
      await page.click("#start");
      await page.waitForFunction(() => window.recogniser);
      await page.evaluate(() => {
        const say = (transcript, isFinal) =>
          window.recogniser.onresult({ resultIndex: 0, results: [Object.assign([{ transcript }], { isFinal })] });
        say("我们在上", false);
        say("我们在上海", false);
        say("我们在上海。", true);
      });
      assert.equal((await finals(page, 1))[0].text, "我们在上海。");
      await page.evaluate(() => window.recogniser.onerror({ error: "network" }));
      await page.waitForSelector("[data-key=recogniserFailed]");
      await isOver(page);
    }, {
      before: () => {
        window.webkitSpeechRecognition = window.SpeechRecognition = class {
          start() { window.recogniser = this; }
          stop() { this.onend?.(); }
        };
      },
    }));
});

test("a microphone that is refused is explained", async () => {
  const strict = await launch({ flags: ["--use-fake-device-for-media-stream"] });
  try {
    await strict.defaultBrowserContext().overridePermissions(server.url, []);
    const page = await open(strict, server.url);
    await page.click("#start");
    await page.waitForSelector("[data-key=refused]");
  } finally {
    await strict.close();
  }
});

test("a name is heard from its caption and from the list", () =>
  on("", async (page) => {
    await hearExample(page, "bridge");
    await page.click("#captions .entity .entity");
    await page.waitForSelector("#captions .entity .entity.heard");
    await page.waitForFunction(() => !document.querySelector(".heard"));
    const [first] = await page.$$("#names button");
    assert.match(await first.evaluate((button) => button.getAttribute("aria-label")), /^Hear .+ at 0:0/);
    await first.click();
    await page.waitForSelector(".bar.heard");
  }));

test("captions are saved in four formats", () =>
  on("", async (page) => {
    await hearExample(page, "bridge");
    for (const format of ["vtt", "srt", "ttml", "json"]) {
      await page.click(`[data-format=${format}]`);
      for (let tries = 0; tries < 100 && !readdirSync(folder).includes(`captions.${format}`); tries += 1) await sleep(50);
    }
    const saved = (format) => readFileSync(join(folder, `captions.${format}`), "utf8");
    assert.ok(saved("vtt").includes("<c.LOC>南京市</c><c.LOC><c.LOC.inner>长江</c>大桥</c>"), saved("vtt"));
    assert.ok(saved("srt").includes('<font color="#8cff8c">南京市</font>'));
    assert.ok(saved("ttml").includes('<span style="of-LOC">南京市</span>'));
    assert.equal(JSON.parse(saved("json")).utterances[0].text, SENTENCE);
    const isXml = await page.evaluate((ttml) => !new DOMParser().parseFromString(ttml, "application/xml").querySelector("parsererror"), saved("ttml"));
    assert.ok(isXml);
    const cues = await page.evaluate(async (vtt) => {
      const video = document.createElement("video");
      const track = Object.assign(document.createElement("track"), { src: `data:text/vtt,${encodeURIComponent(vtt)}` });
      video.append(track);
      track.track.mode = "hidden";
      return new Promise((resolve) => {
        track.onload = () => resolve([...track.track.cues].map((cue) => cue.getCueAsHTML().textContent));
        track.onerror = () => resolve("the browser does not read it");
      });
    }, saved("vtt")).catch(String);
    if (Array.isArray(cues)) assert.equal(cues.join("").replace(/\s/g, ""), SENTENCE);
    page.complaints = page.complaints.filter((complaint) => !complaint.includes("data:text/vtt"));
  }));

test("a reload in mid-sentence keeps what was final, and says what was not", () =>
  on("", async (page) => {
    await hearExample(page, "bridge");
    await playExample(page, "mayor");
    await page.waitForFunction(() => document.querySelector("#captions .utterance:not(.final)")?.textContent.length > 5);
    await page.reload();
    await page.waitForSelector(".card button");
    assert.deepEqual((await finals(page, 1)).map(({ names }) => names), [BRIDGE]);
    assert.match(await text(page, "[data-key=afterReload]"), /各位观众/);
    await hearExample(page, "mayor");
    assert.deepEqual((await captions(page)).map(({ names }) => names), [BRIDGE, MAYOR]);
  }));

test("the overlay shows the captions of another window, on nothing", () =>
  on("", async (page, context) => {
    const overlay = await open(context, `${server.url}/?overlay=1`, { width: 1280, height: 360 });
    await page.bringToFront();
    await hearExample(page, "mayor");
    await overlay.bringToFront();
    assert.deepEqual((await finals(overlay, 1))[0].names, MAYOR);
    assert.equal(await overlay.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgba(0, 0, 0, 0)");
    const visible = await overlay.$$eval("body *", (all) => all.filter((each) => each.checkVisibility() && each.children.length === 0 && each.textContent.trim() && !each.closest(".unseen")).map((each) => each.textContent));
    assert.equal(visible.filter((text) => !SENTENCE.includes(text)).length, 0, String(visible));
    await shoot(overlay, "overlay", { omitBackground: true });
    assert.deepEqual(overlay.complaints, []);
    await overlay.close();
  }));
