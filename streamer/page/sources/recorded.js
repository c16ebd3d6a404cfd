// Audio from a file, at the pace of speech, and heard while it is streamed.

import { RATE, toInt16 } from "./samples.js";
import { SourceError } from "./live.js";

/** Silence after a file, so that its last word has its end. */
const TAIL_MS = 600;

/**
 * Decode what the browser can decode, to one channel of 16 kHz.
 * @param {ArrayBuffer} data
 * @param {string} name For the error.
 * @returns {Promise<Float32Array>}
 */
export async function decode(data, name) {
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(data);
  } catch {
    throw new SourceError("undecodable", { name });
  }
  const mixed = buffer.getChannelData(0).slice();
  for (let channel = 1; channel < buffer.numberOfChannels; channel += 1) {
    const other = buffer.getChannelData(channel);
    for (let index = 0; index < mixed.length; index += 1) mixed[index] += other[index];
  }
  if (buffer.numberOfChannels > 1) {
    for (let index = 0; index < mixed.length; index += 1) mixed[index] /= buffer.numberOfChannels;
  }
  return mixed;
}

/**
 * @param {Float32Array} samples One channel of 16 kHz.
 * @param {import("./live.js").Listeners} listeners
 * @param {import("../app/player.js").Player | null} player Plays it; null: silence.
 * @returns {import("./live.js").Source}
 */
export function playRecorded(samples, { onAudio, onEnd }, player) {
  const whole = new Int16Array(samples.length + (TAIL_MS * RATE) / 1000);
  whole.set(toInt16(samples));
  const started = performance.now();
  let sent = 0;
  player?.play(samples);
  // A page that is hidden has its timers once a second; a worker has not.
  const ticks = new Worker(new URL("./ticks.js", import.meta.url));
  ticks.onmessage = () => {
    const due = Math.min(whole.length, Math.floor(((performance.now() - started) * RATE) / 1000));
    if (due > sent) {
      onAudio(whole.slice(sent, due));
      sent = due;
    }
    if (sent === whole.length) {
      ticks.terminate();
      onEnd("");
    }
  };
  return {
    stop() {
      ticks.terminate();
      player?.stop();
    },
  };
}
