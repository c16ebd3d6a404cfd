// Finished captions outlive a reload of the page, for as long as its tab is open.

const KEY = "cnerta-captions";
/** About a megabyte of storage. */
const MOST_FINALS = 400;

/** @param {import("./store.js").Store} store */
export function keepCaptions(store) {
  const finals = store.finals.slice(-MOST_FINALS);
  const inProgress = store.open.map(({ text }) => text).filter(Boolean);
  try {
    if (finals.length || inProgress.length) {
      sessionStorage.setItem(KEY, JSON.stringify({ finals, inProgress }));
    }
  } catch {
    // Storage may be forbidden or full: then a reload loses them.
  }
}

/** @param {import("./store.js").Store} store @returns {string[]} Texts that were not finished. */
export function restoreCaptions(store) {
  try {
    const { finals, inProgress } = JSON.parse(sessionStorage.getItem(KEY) ?? "null") ?? {};
    sessionStorage.removeItem(KEY);
    for (const utterance of finals ?? []) store.finals.push({ ...utterance, recording: "before", key: `before/${store.finals.length}` });
    return inProgress ?? [];
  } catch {
    return [];
  }
}
