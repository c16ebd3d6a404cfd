// Runs in the audio thread: mixes all channels down and hands the samples over, 40 ms at a time.

class Taker extends AudioWorkletProcessor {
  #block = new Float32Array(Math.round(sampleRate / 25));
  #filled = 0;

  process([channels]) {
    const length = channels[0]?.length ?? 0;
    for (let index = 0; index < length; index += 1) {
      let sum = 0;
      for (const channel of channels) sum += channel[index];
      this.#block[this.#filled] = sum / channels.length;
      this.#filled += 1;
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block, [this.#block.buffer]);
        this.#block = new Float32Array(Math.round(sampleRate / 25));
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("taker", Taker);
