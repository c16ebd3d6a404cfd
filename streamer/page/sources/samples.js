// Samples: mixing, another rate, 16 bits.

export const RATE = 16_000;

/** Zero crossings of the filter on each side. */
const CROSSINGS = 16;
/** Of the lower rate's band, how much passes. */
const BAND = 0.92;
/** Steps between two samples for which the filter is computed beforehand. */
const PHASES = 512;

/** Brings samples to another rate while they come: a windowed sinc, the same for all block sizes. */
export class Resampler {
  #step;
  #half;
  #table;
  #kept;
  #at; // position of the next output, in input samples from the beginning of what is kept

  /** @param {number} from In Hz. @param {number} [to] In Hz. */
  constructor(from, to = RATE) {
    this.isIdle = from === to;
    this.#step = from / to;
    const cutoff = BAND * Math.min(1, to / from);
    this.#half = Math.ceil(CROSSINGS / cutoff);
    this.#kept = new Float32Array(this.#half);
    this.#at = this.#half;
    this.#table = filters(this.#half, cutoff);
  }

  /** @returns {Float32Array} What can be said already. */
  push(block) {
    if (this.isIdle) return block;
    const input = new Float32Array(this.#kept.length + block.length);
    input.set(this.#kept);
    input.set(block, this.#kept.length);
    const count = Math.max(0, Math.floor((input.length - this.#half - 1 - this.#at) / this.#step) + 1);
    const output = new Float32Array(count);
    const taps = 2 * this.#half;
    for (let index = 0; index < count; index += 1) {
      const place = this.#at + index * this.#step;
      const whole = Math.floor(place);
      const row = Math.round((place - whole) * PHASES) * taps;
      const first = whole - this.#half + 1;
      let sum = 0;
      for (let tap = 0; tap < taps; tap += 1) sum += this.#table[row + tap] * input[first + tap];
      output[index] = sum;
    }
    const at = this.#at + count * this.#step;
    const gone = Math.max(0, Math.floor(at) - this.#half);
    this.#kept = input.slice(gone);
    this.#at = at - gone;
    return output;
  }
}

/** For every phase, the taps: a sinc under a Blackman window. */
function filters(half, cutoff) {
  const taps = 2 * half;
  const table = new Float32Array((PHASES + 1) * taps);
  for (let phase = 0; phase <= PHASES; phase += 1) {
    let sum = 0;
    for (let tap = 0; tap < taps; tap += 1) {
      const distance = tap - half + 1 - phase / PHASES;
      const angle = Math.PI * cutoff * distance;
      const sinc = distance === 0 ? 1 : Math.sin(angle) / angle;
      const turn = (Math.PI * distance) / half;
      const window = Math.abs(distance) >= half ? 0 : 0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn);
      table[phase * taps + tap] = sinc * window;
      sum += sinc * window;
    }
    for (let tap = 0; tap < taps; tap += 1) table[phase * taps + tap] /= sum;
  }
  return table;
}

/** @param {Float32Array} samples From -1 to 1. */
export function toInt16(samples) {
  const whole = new Int16Array(samples.length);
  for (let index = 0; index < samples.length; index += 1) {
    whole[index] = Math.round(32767 * Math.max(-1, Math.min(1, samples[index])));
  }
  return whole;
}
