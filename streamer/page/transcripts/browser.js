// The browser's own speech recognition, where it has one. It may send audio to its vendor.

function recogniser() {
  return globalThis.SpeechRecognition ?? globalThis.webkitSpeechRecognition;
}

export function hasBrowserRecogniser() {
  return recogniser() !== undefined;
}

/** Errors after which it is started again: nothing was said, or a pause in its service. */
const PASSING = new Set(["no-speech", "aborted"]);

export class BrowserTranscript {
  #recognition;
  #isWanted = true;
  #round = 0;
  #revisions = new Map();
  #open = new Map();
  #send;

  constructor(send, onFailure) {
    this.#send = send;
    const recognition = new (recogniser())();
    this.#recognition = recognition;
    recognition.lang = "zh-CN";
    recognition.continuous = true;
    recognition.interimResults = true;
    recognition.onresult = (event) => {
      for (let index = event.resultIndex; index < event.results.length; index += 1) {
        const result = event.results[index];
        this.#tell(`r${this.#round}-${index + 1}`, result[0].transcript.trim(), result.isFinal);
      }
    };
    recognition.onerror = ({ error }) => {
      if (PASSING.has(error)) return;
      this.#isWanted = false;
      onFailure(error);
    };
    // It ends by itself after a while, though it was asked to go on.
    recognition.onend = () => {
      this.#finishOpen();
      this.#round += 1;
      if (this.#isWanted) recognition.start();
    };
    recognition.start();
  }

  end() {
    this.#isWanted = false;
    this.#finishOpen();
    this.#recognition.onresult = null;
    this.#recognition.stop();
  }

  #tell(utterance, text, final) {
    const revision = (this.#revisions.get(utterance) ?? 0) + 1;
    this.#revisions.set(utterance, revision);
    if (final) {
      this.#open.delete(utterance);
      this.#revisions.delete(utterance);
    } else {
      this.#open.set(utterance, text);
    }
    this.#send({ utterance, revision, final, text });
  }

  /** What it had begun when it ended is final. */
  #finishOpen() {
    for (const [utterance, text] of [...this.#open]) this.#tell(utterance, text, true);
  }
}
