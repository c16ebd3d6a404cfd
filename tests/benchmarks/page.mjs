// What the page itself costs, in Chromium: how long after an answer has come it is drawn, and what
// the heap does meanwhile. The examples are played again and again.
//
//     PAGE_PYTHON=.venv/dev/bin/python PAGE_CHROMIUM=chromium node tests/benchmarks/page.mjs MINUTES

import { hearExample, launch, open, startServer } from "../streamer/page/browser/kit.mjs";

const minutes = Number(process.argv[2] ?? 2);

/** Runs in the page: when did an answer come, when was it first in a picture? */
function watch() {
  const came = new Map();
  window.delays = [];
  const Real = WebSocket;
  window.WebSocket = class extends Real {
    set onmessage(listener) {
      super.onmessage = (event) => {
        const message = JSON.parse(event.data);
        if (message.type === "entity.upsert" && message.entity.version === 1) came.set(message.entity.id, performance.now());
        if (message.type === "utterance.final") came.set("final", performance.now());
        listener(event);
      };
    }
  };
  const drawn = (key) => {
    const at = came.get(key);
    if (at === undefined) return;
    came.delete(key);
    // The page draws within a frame's callbacks: the next task comes when that frame is made.
    setTimeout(() => window.delays.push(performance.now() - at));
  };
  addEventListener("DOMContentLoaded", () =>
    new MutationObserver(() => {
      for (const mark of document.querySelectorAll("#captions .utterance:last-child .entity")) drawn(mark.dataset.id);
      if (document.querySelector("#captions .utterance:last-child.final")) drawn("final");
    }).observe(document.querySelector("#captions"), { childList: true, subtree: true }));
}

const server = await startServer();
const browser = await launch();
try {
  const page = await open(browser, `${server.url}/?lang=en&sound=0`, { before: watch });
  const session = await page.createCDPSession();
  const heap = async () => {
    await session.send("HeapProfiler.collectGarbage");
    return (await session.send("Runtime.getHeapUsage")).usedSize / 2 ** 20;
  };
  const until = Date.now() + 60_000 * minutes;
  for (let round = 1; Date.now() < until; round += 1) {
    await hearExample(page, "bridge");
    await hearExample(page, "mayor");
    const delays = (await page.evaluate(() => window.delays)).sort((a, b) => a - b);
    const at = (share) => delays[Math.min(delays.length - 1, Math.floor(share * delays.length))].toFixed(1);
    console.log(`${2 * round} sentences: answers drawn after p50 ${at(0.5)} ms, p95 ${at(0.95)} ms (${delays.length}); heap ${(await heap()).toFixed(2)} MiB`);
  }
} finally {
  await browser.close();
  await server.stop();
}
