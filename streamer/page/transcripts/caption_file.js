// Reads captions: WebVTT and SRT.

const TIMES = /^\s*((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})\s*-->\s*((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})/;

/**
 * @param {string} text Of the file.
 * @returns {import("./timed.js").TimedLine[]} In the order of their times, without empty ones.
 */
export function readCaptions(text) {
  const blocks = text.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n").split(/\n[ \t]*\n+/);
  const lines = [];
  for (const block of blocks) {
    const rows = block.split("\n");
    const at = rows.findIndex((row) => TIMES.test(row));
    if (at < 0 || at > 2) continue; // a header, a note, a style
    const [, start, end] = TIMES.exec(rows[at]);
    const said = plain(rows.slice(at + 1));
    const [start_ms, end_ms] = [milliseconds(start), milliseconds(end)];
    if (said && end_ms > start_ms) lines.push({ text: said, start_ms, end_ms });
  }
  return lines.sort((a, b) => a.start_ms - b.start_ms);
}

/** Without tags and escapes; lines of one cue follow each other. */
function plain(rows) {
  const said = rows
    .map((row) => row.replace(/<\/?[a-z][^>]*>|<[\d:.]+>|\{\\[^}]*\}/gi, "").replace(/\\([{}])/g, "$1").trim())
    .reduce((before, row) => before + (/[\x21-\x7e]$/.test(before) && /^[\x21-\x7e]/.test(row) ? " " : "") + row, "");
  return said
    .replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&nbsp;/g, " ").replace(/&(?:lrm|rlm);/g, "").replace(/&amp;/g, "&")
    .trim();
}

function milliseconds(clock) {
  const [seconds, minutes, hours = "0"] = clock.replace(",", ".").split(":").reverse();
  return Math.round(1000 * (Number(seconds) + 60 * Number(minutes) + 3600 * Number(hours)));
}
