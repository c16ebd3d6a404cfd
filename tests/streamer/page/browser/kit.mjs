// A real server with the model that comes along, and a real browser.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const require = createRequire(import.meta.url);
export { sleep, slowLine, startServer } from "../real_server.mjs";
export const { PAGE_CHROMIUM, PAGE_FIREFOX, PAGE_MICROPHONE, PAGE_SHOTS } = process.env;
export const PATIENCE_MS = 90_000;

export function launch({ flags = [], browser = "chrome" } = {}) {
  const isChromium = browser === "chrome";
  return puppeteer.launch({
    browser,
    executablePath: isChromium ? PAGE_CHROMIUM : PAGE_FIREFOX,
    headless: true,
    args: isChromium
      ? ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio", "--lang=en-GB", ...flags]
      : [],
    ...(!isChromium && { extraPrefsFirefox: { "media.autoplay.default": 0 } }),
  });
}

export const MICROPHONE = [
  "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
  `--use-file-for-fake-audio-capture=${PAGE_MICROPHONE}%noloop`,
];

/** A page of the server, with everything that it complains of. `within`: a context or a browser. */
export async function open(within, url, { width = 1100, height = 1500, before, ready = ".card button" } = {}) {
  const page = await within.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.complaints = [];
  page.on("console", (message) => {
    if (["error", "warn", "warning"].includes(message.type())) page.complaints.push(message.text());
  });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  await page.setViewport({ width, height });
  if (before) await page.evaluateOnNewDocument(before);
  await page.goto(url);
  await page.waitForSelector(ready);
  return page;
}

/** What a person sees of the captions: each line, whether it is final, and its names by type. */
export function captions(page, selector = "#captions .utterance") {
  return page.$$eval(selector, (lines) =>
    lines.map((line) => ({
      text: line.querySelector(".text").textContent,
      final: line.classList.contains("final"),
      textOnly: line.querySelector(".chip") !== null,
      names: [...line.querySelectorAll(".entity")].map((mark) => `${mark.textContent} ${mark.dataset.label}`),
    })),
  );
}

/** Wait for so many final captions. */
export async function finals(page, count) {
  await page.waitForFunction(
    (count) => document.querySelectorAll("#captions .utterance.final").length >= count, {}, count,
  );
  return (await captions(page)).filter(({ final }) => final);
}

export async function playExample(page, name) {
  await page.click(`.card[data-example="${name}"] button`);
}

/** Play an example to its answer. */
export async function hearExample(page, name) {
  const before = (await captions(page)).filter(({ final }) => final).length;
  await playExample(page, name);
  await finals(page, before + 1);
  await isOver(page);
}

export function isOver(page) {
  return page.waitForFunction(() => document.querySelector("#status").dataset.state === "finished");
}

export function state(page, wanted) {
  return page.waitForFunction((wanted) => document.querySelector("#status").dataset.state === wanted, {}, wanted);
}

export const text = (page, selector) => page.$eval(selector, (element) => element.textContent);

/** What axe finds wrong, by WCAG 2.2 AA and good practice. */
export async function inaccessible(page) {
  const source = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  await page.evaluate(`${source}; true`);
  const { violations } = await page.evaluate(() =>
    axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`)}`);
}

export async function shoot(page, name, options = {}) {
  await page.screenshot({ path: join(PAGE_SHOTS ?? tmpdir(), `${name}.png`), ...options });
}
