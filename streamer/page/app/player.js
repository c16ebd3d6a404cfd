// Plays samples, and keeps those that were streamed, so that a name can be heard again.

import { RATE } from "../sources/samples.js";

/** Heard before and after a name. */
const AROUND_MS = 60;
const BLOCK_MS = 10_000;
const BLOCK = (BLOCK_MS * RATE) / 1000;
const MOST_BLOCKS = 60;
const PEAK_MS = 10;
const PEAK_SAMPLES = (RATE * PEAK_MS) / 1000;

export class Player {
  #context = null;
  #playing = null;

  /** @param {Float32Array} samples 16 kHz. */
  play(samples, onEnd = () => {}) {
    this.stop();
    if (!samples.length) return;
    this.#context ??= new AudioContext();
    this.#context.resume();
    const buffer = this.#context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#context.destination);
    source.onended = onEnd;
    source.start();
    this.#playing = source;
  }

  stop() {
    try {
      this.#playing?.stop();
    } catch {
      // It had not begun.
    }
    this.#playing = null;
  }
}

/** The last ten minutes of one session's audio, in blocks: few objects, however long it lasts. */
export class AudioHistory {
  #blocks = [];
  #gone = 0; // blocks that are no longer kept
  #end = 0;

  get endMs() {
    return (1000 * this.#end) / RATE;
  }

  get startMs() {
    return this.#gone * BLOCK_MS;
  }

  push(samples) {
    for (const sample of samples) {
      const at = this.#end % BLOCK;
      if (at === 0) this.#blocks.push({ samples: new Int16Array(BLOCK), peaks: new Float32Array(BLOCK_MS / PEAK_MS) });
      const block = this.#blocks.at(-1);
      const peak = Math.floor(at / PEAK_SAMPLES);
      block.samples[at] = sample;
      block.peaks[peak] = Math.max(block.peaks[peak], Math.abs(sample) / 32768);
      this.#end += 1;
    }
    while (this.#blocks.length > MOST_BLOCKS) {
      this.#blocks.shift();
      this.#gone += 1;
    }
  }

  /** Loudest sample of a stretch, 0 to 1. */
  peak(fromMs, toMs) {
    let peak = 0;
    const first = Math.floor(fromMs / PEAK_MS);
    const last = Math.max(first + 1, Math.ceil(toMs / PEAK_MS));
    const inBlock = BLOCK_MS / PEAK_MS;
    for (let at = first; at < last; at += 1) {
      peak = Math.max(peak, this.#blocks[Math.floor(at / inBlock) - this.#gone]?.peaks[at % inBlock] ?? 0);
    }
    return peak;
  }

  has(startMs, endMs) {
    return startMs >= this.startMs && endMs <= this.endMs && endMs > startMs;
  }

  /** Samples of a stretch and a little around it. */
  slice(startMs, endMs) {
    const from = Math.max(0, Math.round(((startMs - AROUND_MS) * RATE) / 1000));
    const to = Math.min(this.#end, Math.round(((endMs + AROUND_MS) * RATE) / 1000));
    return Float32Array.from({ length: Math.max(0, to - from) }, (_, index) => {
      const at = from + index;
      return (this.#blocks[Math.floor(at / BLOCK) - this.#gone]?.samples[at % BLOCK] ?? 0) / 32768;
    });
  }
}
