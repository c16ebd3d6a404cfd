// What the page holds after an hour of captions, in Chromium: the JavaScript heap after each few
// minutes, sound beside the heap, and elements. The hour is played faster than it was spoken: each
// block of the microphone counts SPEED times, and the captions come from a file that goes with it.
//
//     PAGE_PYTHON=.venv/dev/bin/python PAGE_CHROMIUM=chromium node tests/benchmarks/page_memory.mjs [--minutes 60] [--speed 10]
//
// Every sentence takes three seconds and has names in it, a thousand different ones in an hour.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { clock } from "../../streamer/page/app/exports.js";
import { launch, sleep, startServer } from "../streamer/page/browser/kit.mjs";

const LIVE = new URL("../../streamer/page/sources/live.js", import.meta.url);
const LINE_MS = 3_000;
const EVERY_MIN = 5;
const SETTLED_MIN = 10;
const { values } = parseArgs({ options: { minutes: { type: "string", default: "60" }, speed: { type: "string", default: "10" } } });
const [minutes, speed] = [Number(values.minutes), Number(values.speed)];

const FAMILY = [..."张王李赵陈刘杨黄周吴徐孙马朱胡郭何高林郑"];
const GIVEN = [..."伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂英华文建国志红玉兰海燕春梅志强"];
const PLACES = ["北京市", "上海市", "南京市", "广州市", "武汉市", "成都市", "杭州市", "西安市", "重庆市", "天津市"];
const ORGANISATIONS = ["北京大学", "清华大学", "人民日报", "外交部", "国家图书馆", "中国银行"];

function captionFile() {
  const cues = Array.from({ length: (60_000 * minutes) / LINE_MS }, (_, at) => {
    const name = FAMILY[at % FAMILY.length] + GIVEN[(7 * at) % GIVEN.length] + GIVEN[(3 * at + 1) % GIVEN.length];
    const text = `记者${name}昨天从${PLACES[at % PLACES.length]}来到${ORGANISATIONS[at % ORGANISATIONS.length]}采访`;
    return `${clock(at * LINE_MS, ".")} --> ${clock((at + 1) * LINE_MS - 500, ".")}\n${text}\n`;
  });
  return `WEBVTT\n\n${cues.join("\n")}`;
}

const folder = mkdtempSync(join(tmpdir(), "page-memory-"));
const server = await startServer(0, ["--max-ahead-s", "100000"]);
const browser = await launch({ flags: ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"] });
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1100, height: 1700 });
  await page.setRequestInterception(true);
  const sped = readFileSync(LIVE, "utf8").replace(
    "({ data }) => onAudio(toInt16(resampler.push(data)))",
    `({ data }) => { for (let time = 0; time < ${speed}; time += 1) onAudio(toInt16(resampler.push(data.slice()))); }`,
  );
  page.on("request", (request) =>
    request.url().endsWith("/sources/live.js") ? request.respond({ contentType: "text/javascript", body: sped }) : request.continue());
  await page.goto(`${server.url}/?lang=en`);
  await page.waitForSelector(".card button");
  writeFileSync(join(folder, "hour.vtt"), captionFile());
  await page.click("[name=transcript][value=captions]");
  await (await page.$("#caption-file")).uploadFile(join(folder, "hour.vtt"));
  await page.waitForSelector("[data-key=captionsLoaded]");
  const session = await page.createCDPSession();
  // The page goes on meanwhile: the least of five looks has the least of what is about to go.
  const held = async () => {
    const looks = [];
    for (let look = 0; look < 5; look += 1) {
      await session.send("HeapProfiler.collectGarbage");
      const heap = await session.send("Runtime.getHeapUsage");
      const { nodes } = await session.send("Memory.getDOMCounters");
      looks.push({ heap: heap.usedSize / 2 ** 20, beside: heap.backingStorageSize / 2 ** 20, nodes });
      await sleep(200);
    }
    return looks.sort((a, b) => a.heap - b.heap)[0];
  };
  await page.evaluate(() => new MutationObserver((changes) => {
    window.finals = (window.finals ?? 0) + changes.flatMap(({ addedNodes }) => [...addedNodes]).length;
  }).observe(document.querySelector("#spoken"), { childList: true }));
  await page.click("#start");
  const wanted = (at) => Math.floor((60_000 * at) / LINE_MS) - 2;
  let settled;
  for (let at = EVERY_MIN; at <= minutes; at += EVERY_MIN) {
    while ((await page.evaluate(() => window.finals ?? 0)) < wanted(at)) {
      const state = await page.evaluate(() => document.querySelector("#status").dataset.state);
      if (["finished", "failed"].includes(state)) throw new Error(`expected a session that goes on, got ${state}`);
      await sleep(1_000);
    }
    const { heap, beside, nodes } = await held();
    if (at === SETTLED_MIN) settled = heap;
    const change = settled ? `, ${(100 * (heap / settled - 1)).toFixed(1)} % more than after ${SETTLED_MIN} minutes` : "";
    console.log(`${at} minutes, ${wanted(at) + 2} sentences: heap ${heap.toFixed(2)} MiB${change}; beside it ${beside.toFixed(1)} MiB; ${nodes} nodes`);
  }
} finally {
  await browser.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}
