// Finished captions outlive a reload of the page, for as long as its tab is open.

const KEY = "cnerta-captions";
export function keepCaptions(store) {
  const { finals } = store;
  const inProgress = store.open.map(({ text }) => text).filter(Boolean);
  try {
    if (finals.length || inProgress.length) {
      sessionStorage.setItem(KEY, JSON.stringify({ finals, inProgress }));
    }
  } catch {
    // Storage may be forbidden or full: then a reload loses them.
  }
}

/** @returns {string[]} Texts that were not finished. */
export function restoreCaptions(store) {
  try {
    const { finals, inProgress } = JSON.parse(sessionStorage.getItem(KEY) ?? "null") ?? {};
    sessionStorage.removeItem(KEY);
    for (const utterance of finals ?? []) store.add({ ...utterance, recording: `before/${utterance.recording}`, key: `before/${store.count}` });
    return inProgress ?? [];
  } catch {
    return [];
  }
}
