// Plays samples, and keeps those that were streamed, so that a name can be heard again.

import { RATE } from "../sources/samples.js";

/** Heard before and after a name. */
const AROUND_MS = 60;
const KEPT_MS = 600_000;
const PEAK_MS = 10;
const PEAK_SAMPLES = (RATE * PEAK_MS) / 1000;

export class Player {
  #context = /** @type {AudioContext | null} */ (null);
  #playing = /** @type {AudioBufferSourceNode | null} */ (null);

  /** @param {Float32Array} samples 16 kHz. @param {() => void} [onEnd] */
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

/** The last ten minutes of one session's audio. */
export class AudioHistory {
  #chunks = /** @type {{start: number, samples: Int16Array}[]} */ ([]);
  #end = 0;
  #peaks = /** @type {number[]} */ ([]);
  #peaksFrom = 0;
  #peak = 0;
  #inPeak = 0;

  get endMs() {
    return (1000 * this.#end) / RATE;
  }

  get startMs() {
    return this.#chunks.length ? (1000 * this.#chunks[0].start) / RATE : this.endMs;
  }

  /** @param {Int16Array} samples */
  push(samples) {
    this.#chunks.push({ start: this.#end, samples });
    this.#end += samples.length;
    for (const sample of samples) {
      this.#peak = Math.max(this.#peak, Math.abs(sample));
      this.#inPeak += 1;
      if (this.#inPeak === PEAK_SAMPLES) {
        this.#peaks.push(this.#peak / 32768);
        this.#peak = this.#inPeak = 0;
      }
    }
    while (this.endMs - this.startMs > KEPT_MS) this.#chunks.shift();
    const gone = Math.floor(this.startMs / PEAK_MS) - this.#peaksFrom;
    if (gone > 1000) {
      this.#peaks.splice(0, gone);
      this.#peaksFrom += gone;
    }
  }

  /** Loudest sample of a stretch, 0 to 1. @param {number} fromMs @param {number} toMs */
  peak(fromMs, toMs) {
    let peak = 0;
    const last = Math.max(Math.floor(fromMs / PEAK_MS) + 1, Math.ceil(toMs / PEAK_MS));
    for (let at = Math.floor(fromMs / PEAK_MS); at < last; at += 1) {
      peak = Math.max(peak, this.#peaks[at - this.#peaksFrom] ?? 0);
    }
    return peak;
  }

  /** @param {number} startMs @param {number} endMs */
  has(startMs, endMs) {
    return startMs >= this.startMs && endMs <= this.endMs && endMs > startMs;
  }

  /** Samples of a stretch and a little around it. @param {number} startMs @param {number} endMs */
  slice(startMs, endMs) {
    const from = Math.max(0, Math.round(((startMs - AROUND_MS) * RATE) / 1000));
    const to = Math.min(this.#end, Math.round(((endMs + AROUND_MS) * RATE) / 1000));
    const samples = new Float32Array(Math.max(0, to - from));
    for (const chunk of this.#chunks) {
      const first = Math.max(from, chunk.start);
      const last = Math.min(to, chunk.start + chunk.samples.length);
      for (let at = first; at < last; at += 1) {
        samples[at - from] = chunk.samples[at - chunk.start] / 32768;
      }
    }
    return samples;
  }
}
