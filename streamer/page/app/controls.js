// What a person can choose: the audio and the transcript, and the files for both.

import { listMicrophones, openMicrophone, openTab, SourceError } from "../sources/live.js";
import { decode, playRecorded } from "../sources/recorded.js";
import { BrowserTranscript, hasBrowserRecogniser } from "../transcripts/browser.js";
import { readCaptions } from "../transcripts/caption_file.js";
import { TimedTranscript } from "../transcripts/timed.js";
import { TypedTranscript } from "../transcripts/typed.js";
import { t } from "./text.js";

const CAPTION_NAME = /\.(vtt|srt)$/i;
const element = (id) => document.getElementById(id);

export class Controls {
  #media = null;
  #captions = null;
  #tell;
  #player;

  constructor(tell, player) {
    this.#tell = tell;
    this.#player = player;
    for (const input of document.querySelectorAll("[name=source], [name=transcript]")) {
      input.addEventListener("change", () => this.#draw());
    }
    element("media").onchange = ({ target }) => this.take(target.files);
    element("caption-file").onchange = ({ target }) => this.take(target.files);
    element("browser-recogniser").hidden = !hasBrowserRecogniser();
    this.#acceptDrops();
    this.#draw();
  }

  get source() {
    return document.querySelector("[name=source]:checked").value;
  }

  get transcript() {
    return document.querySelector("[name=transcript]:checked").value;
  }

  /** Files that were chosen or dropped. */
  async take(files) {
    for (const file of files) {
      if (CAPTION_NAME.test(file.name) || file.type === "text/vtt") {
        const lines = readCaptions(await file.text());
        if (!lines.length) {
          this.#tell("noCues", { name: file.name }, true);
          continue;
        }
        this.#captions = lines;
        choose("transcript", "captions");
        this.#tell("captionsLoaded", { name: file.name, n: lines.length });
      } else {
        this.#media = file;
        choose("source", "file");
        this.#tell("mediaLoaded", { name: file.name });
      }
    }
    this.#draw();
  }

  /**
   * Open the audio that is chosen.
   * @param {import("../sources/live.js").Listeners} listeners
   * @param {boolean} isAloud
   * @returns {Promise<() => import("../sources/live.js").Source>} Starts it.
   */
  async open(listeners, isAloud) {
    if (this.source === "microphone") {
      const source = await openMicrophone(listeners, element("devices").value);
      await this.#nameMicrophones();
      return () => source;
    }
    if (this.source === "tab") {
      const source = await openTab(listeners);
      return () => source;
    }
    if (this.source === "none") return () => ({ stop() {} });
    if (!this.#media) throw new SourceError("noFile");
    const samples = await decode(await this.#media.arrayBuffer(), this.#media.name);
    return () => playRecorded(samples, listeners, isAloud ? this.#player : null);
  }

  /**
   * Begin the transcript that is chosen.
   * @param {(transcript: any) => void} send
   * @param {() => void} onFailure It cannot go on.
   * @returns {{advance?: (atMs: number) => void, submit?: () => void, end: (atMs: number) => void}}
   */
  write(send, onFailure) {
    if (this.transcript === "captions") {
      if (!this.#captions) throw new SourceError("noFile");
      return new TimedTranscript(this.#captions, send);
    }
    if (this.transcript === "browser") {
      return new BrowserTranscript(send, (detail) => {
        this.#tell("recogniserFailed", { detail }, true);
        onFailure();
      });
    }
    if (this.transcript === "server") return { end() {} }; // what it writes comes as messages
    return new TypedTranscript(element("line"), send);
  }

  async #nameMicrophones() {
    const devices = await listMicrophones();
    const select = element("devices");
    const chosen = select.value;
    const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
    select.replaceChildren(
      option("", t("defaultMicrophone")),
      ...devices.filter(({ deviceId }) => deviceId !== "default").map(({ deviceId, label }) => option(deviceId, label)),
    );
    select.value = chosen;
    this.#draw();
  }

  #draw() {
    element("devices-label").hidden = this.source !== "microphone" || element("devices").length < 2;
    element("media-label").hidden = this.source !== "file";
    element("captions-label").hidden = this.transcript !== "captions";
    element("recogniser-note").hidden = this.transcript !== "browser";
  }

  #acceptDrops() {
    addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    addEventListener("dragleave", ({ relatedTarget }) => {
      if (!relatedTarget) document.body.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      this.take(event.dataTransfer.files);
    });
  }
}

function choose(name, value) {
  document.querySelector(`[name=${name}][value=${value}]`).checked = true;
}
