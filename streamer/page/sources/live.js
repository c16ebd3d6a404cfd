// Audio that is heard now: a microphone, or the sound of a tab.

import { Resampler, toInt16 } from "./samples.js";

/** Why there is no audio: `key` names the text that explains it. */
export class SourceError extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

/**
 * @typedef {object} Listeners
 * @property {(block: Int16Array) => void} onAudio 16 kHz, one channel.
 * @property {(key: string) => void} onEnd The audio has ended by itself; `key` says why, or is "".
 */

/** @typedef {{stop: () => void}} Source */

const REASONS = {
  NotAllowedError: "refused",
  SecurityError: "refused",
  NotFoundError: "noMicrophone",
  OverconstrainedError: "noMicrophone",
  NotReadableError: "microphoneBusy",
  AbortError: "microphoneBusy",
};

/**
 * @param {Listeners} listeners
 * @param {string} [deviceId] Empty: the usual one.
 * @returns {Promise<Source>}
 */
export async function openMicrophone(listeners, deviceId = "") {
  if (!navigator.mediaDevices?.getUserMedia) throw new SourceError("insecure");
  const audio = {
    channelCount: { ideal: 1 },
    echoCancellation: true,
    noiseSuppression: false,
    autoGainControl: true,
    ...(deviceId && { deviceId: { exact: deviceId } }),
  };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new SourceError(REASONS[error.name] ?? "microphoneBusy");
  }
  return listen(stream, "deviceLost", listeners);
}

export async function openTab(listeners) {
  if (!window.isSecureContext) throw new SourceError("insecure");
  if (!navigator.mediaDevices?.getDisplayMedia) throw new SourceError("tabUnsupported");
  let stream;
  try {
    // Browsers give the sound only together with the picture, which is thrown away.
    stream = await navigator.mediaDevices.getDisplayMedia({ video: true, audio: true });
  } catch (error) {
    throw new SourceError(error.name === "NotAllowedError" ? "tabRefused" : "tabUnsupported");
  }
  if (!stream.getAudioTracks().length) {
    for (const track of stream.getTracks()) track.stop();
    throw new SourceError("tabSilent");
  }
  return listen(stream, "shareEnded", listeners);
}

/** The microphones there are; their names are known once one was allowed. */
export async function listMicrophones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId);
}

async function listen(stream, endKey, { onAudio, onEnd }) {
  const context = new AudioContext({ latencyHint: "interactive" });
  const stop = () => {
    for (const track of stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    if (context.state !== "closed") context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
    await context.resume();
  } catch {
    stop();
    throw new SourceError("microphoneBusy");
  }
  const resampler = new Resampler(context.sampleRate);
  const taker = new AudioWorkletNode(context, "taker", { numberOfOutputs: 0 });
  taker.port.onmessage = ({ data }) => onAudio(toInt16(resampler.push(data)));
  context.createMediaStreamSource(new MediaStream(stream.getAudioTracks())).connect(taker);
  for (const track of stream.getTracks()) {
    track.onended = () => {
      stop();
      onEnd(endKey);
    };
  }
  return { stop };
}
