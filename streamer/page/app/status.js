// The line that says how things are: never better than they are.

import { t } from "./text.js";

const BACKLOG_TOLD_MS = 1_500;

/**
 * @param {{status: HTMLElement, statusText: HTMLElement, facts: HTMLElement}} elements
 * @param {import("./session.js").Session | null} session
 * @param {boolean} isServerThere What was last heard of the server while no session runs.
 */
export function drawStatus({ status, statusText, facts }, session, isServerThere) {
  const idle = isServerThere ? "idle" : "silent";
  const state = !session || (session.state.state === "finished" && !isServerThere) ? idle : session.state.state;
  const text = [t(state)];
  if (session && (state === "silent" || state === "waiting")) {
    const s = Math.floor((performance.now() - session.state.since) / 1000);
    if (s >= 1) text.push(t("since", { s }));
  }
  write(statusText, text.join(" · "));
  if (status.dataset.state !== state) status.dataset.state = state;
  write(facts, session && state !== "silent" ? told(session).join(" · ") : "");
}

function told(session) {
  const facts = [];
  if (session.behindMs !== null && session.state.state === "live") facts.push(t("behind", { ms: session.behindMs }));
  if (session.audioUsed !== null) facts.push(t(session.audioUsed ? "withAudio" : "withoutAudio"));
  if (session.backlogMs > BACKLOG_TOLD_MS) facts.push(t("notSent", { s: (session.backlogMs / 1000).toFixed(1) }));
  if (session.isRecorded) facts.push(t("recorded"));
  return facts;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Asks, while no session would notice, whether the server is still there. */
export class ServerWatch {
  isThere = true;

  constructor(onChange, isNeeded) {
    const ask = async () => {
      if (isNeeded() && document.visibilityState === "visible") {
        const before = this.isThere;
        try {
          this.isThere = (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(900) })).ok;
        } catch {
          this.isThere = false;
        }
        if (before !== this.isThere) onChange();
      }
      setTimeout(ask, 1000);
    };
    setTimeout(ask, 1000);
  }
}
