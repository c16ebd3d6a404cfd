// The sound of the newest session, its characters at their times, and names over them.

import { classOf } from "./captions.js";
import { make } from "./dom.js";
import { t } from "./text.js";

/** So that the characters of fast speech stand side by side. */
const PIXELS_PER_SECOND = 140;
const CHARACTERS_HEIGHT = 30;

export class Strip {
  #canvas;
  #bars;
  #position;
  #hear;
  #follows = true;
  #history = null;
  #utterances = [];
  #drawnBars = "";
  #isSeen = false;

  constructor({ canvas, bars, position }, hear) {
    this.#canvas = canvas;
    this.#bars = bars;
    this.#position = position;
    this.#hear = hear;
    position.oninput = () => {
      this.#follows = Number(position.value) >= Number(position.max);
      this.draw();
    };
    new ResizeObserver(() => this.draw()).observe(canvas);
    new IntersectionObserver((entries) => {
      this.#isSeen = entries.at(-1).isIntersecting;
      this.draw();
    }).observe(canvas);
  }

  /**
   * @param {import("./player.js").AudioHistory | null} history
   * @param {import("./store.js").Utterance[]} utterances Final ones of this session.
   */
  show(history, utterances) {
    this.#history = history;
    this.#utterances = utterances;
    this.draw();
  }

  /** How much is seen at once. */
  get #windowMs() {
    return (1000 * Math.max(1, this.#canvas.clientWidth)) / PIXELS_PER_SECOND;
  }

  draw() {
    if (!this.#isSeen) return;
    const endMs = this.#history?.endMs ?? 0;
    const most = Math.max(0, endMs - this.#windowMs);
    this.#position.max = String(Math.ceil(most / 100) * 100);
    this.#position.disabled = most === 0;
    if (this.#follows) this.#position.value = this.#position.max;
    const from = Math.min(most, Number(this.#position.value));
    this.#position.setAttribute("aria-valuetext", seconds(from));
    this.#drawWave(from);
    this.#drawBars(from);
  }

  #drawWave(from) {
    const canvas = this.#canvas;
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(document.documentElement);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const perMs = PIXELS_PER_SECOND / 1000;
    context.fillStyle = style.getPropertyValue("--line");
    const middle = (height + CHARACTERS_HEIGHT) / 2;
    const tall = (height - CHARACTERS_HEIGHT) / 2 - 2;
    context.beginPath();
    for (let x = 0; this.#history && x < width; x += 2) {
      const at = from + x / perMs;
      if (at > this.#history.endMs) break;
      const half = Math.max(0.5, Math.sqrt(this.#history.peak(at, at + 2 / perMs)) * tall);
      context.rect(x, middle - half, 1.4, 2 * half);
    }
    context.fill();
    context.fillStyle = style.getPropertyValue("--text");
    context.textAlign = "center";
    context.font = "16px system-ui, sans-serif";
    for (const { text, characters } of this.#utterances) {
      if (!characters.length || characters.at(-1)[1] < from || characters[0][0] > from + this.#windowMs) continue;
      [...text].forEach((character, index) => {
        const times = characters[index];
        if (!times || times[1] < from || times[0] > from + this.#windowMs) return;
        context.fillText(character, ((times[0] + times[1]) / 2 - from) * perMs, 21);
      });
    }
  }

  #drawBars(from) {
    const width = this.#canvas.clientWidth;
    const windowMs = this.#windowMs;
    const until = from + windowMs;
    const visible = this.#utterances.flatMap((utterance) =>
      utterance.entities
        .filter(({ start_ms, end_ms }) => start_ms !== null && end_ms > from && start_ms < until)
        .map((entity) => ({ utterance, entity })),
    );
    const key = [width, from, ...visible.map(({ utterance, entity }) => utterance.key + entity.id)].join();
    if (key === this.#drawnBars) return;
    this.#drawnBars = key;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset?.bar;
    this.#bars.replaceChildren(
      ...visible.map(({ utterance, entity }) => {
        const bar = make("button", {
          type: "button", className: `bar ${classOf(entity.label)}`, lang: "zh", onclick: () => this.#hear(utterance, entity),
          title: `${entity.text}: ${t(entity.label)}, ${seconds(entity.start_ms)}`,
        }, entity.text);
        bar.classList.toggle("inner", entity.parent !== null);
        bar.classList.toggle("text-only", !entity.audio_used);
        bar.style.left = `${(100 * (entity.start_ms - from)) / windowMs}%`;
        bar.style.width = `${(100 * (entity.end_ms - entity.start_ms)) / windowMs}%`;
        bar.dataset.bar = utterance.key + entity.id;
        return bar;
      }),
    );
    if (focused) this.#bars.querySelector(`[data-bar="${CSS.escape(focused)}"]`)?.focus();
  }
}

export function seconds(ms) {
  const whole = Math.floor(ms / 1000);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${Math.floor((ms % 1000) / 100)}`;
}
