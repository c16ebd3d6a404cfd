// A server of the protocol without sockets or a model, which can be cut off, forget and be silent.
// Each sample says at which place of the application's audio it was, so what was heard can be checked.

export const RATE = 16_000;
const LIMITS = {
  max_frame_bytes: 2 ** 20, max_text_characters: 4096, max_open_utterances: 64,
  max_audio_ahead_ms: 60_000, idle_timeout_ms: 30_000, retained_audio_ms: 60_000,
};

/** Audio whose samples count upwards from a place. @param {number} from @param {number} count */
export function counting(from, count) {
  return Uint32Array.from({ length: count }, (_, at) => from + at);
}

export class SimulatedServer {
  sessions = new Map();
  connections = [];
  isSilent = false;
  isDown = false;
  offersResume = true;
  refusal = null;
  /** Everything that was wrong with what came. */
  faults = [];

  /** The class that the client is given as its WebSocket. */
  get WebSocket() {
    const server = this;
    return class {
      bufferedAmount = 0;
      constructor(url, protocols) {
        Object.assign(this, { url, protocols });
        server.connections.push(this);
        setTimeout(() => (server.isDown ? this.cut() : this.open()), 3);
      }
      open() {
        if (this.isClosed) return;
        this.isOpen = true;
        this.onopen();
      }
      send(data) {
        if (!this.isOpen) throw new Error("sent before it was open");
        if (this.isClosed) {
          this.bufferedAmount += data.length; // as browsers do: it goes nowhere, without a word
          return;
        }
        setTimeout(() => !this.isClosed && !server.isSilent && server.receive(this, data), 2);
      }
      close(code = 1000) {
        this.cut(code);
      }
      cut(code = 1006, reason = "") {
        if (this.isClosed) return;
        this.isClosed = true;
        setTimeout(() => this.onclose({ code, reason }), 0);
      }
    };
  }

  get current() {
    return this.connections.at(-1);
  }

  /** The process is gone, and with it all sessions. */
  die() {
    this.sessions.clear();
    this.current.cut();
  }

  tell(socket, message) {
    setTimeout(() => !socket.isClosed && !this.isSilent && socket.onmessage({ data: JSON.stringify(message) }), 2);
  }

  receive(socket, data) {
    if (typeof data === "string") this.#message(socket, JSON.parse(data));
    else this.#audio(socket, data);
  }

  #message(socket, message) {
    if (message.type === "session.start") this.#start(socket, message);
    else if (message.type === "transcript") this.#transcript(socket, message);
    else if (message.type === "session.finish") {
      this.tell(socket, { type: "session.summary", utterances: 0, entities: 0, audio_ms: 0, dropped_interims: 0 });
      setTimeout(() => socket.cut(1000), 4);
    }
  }

  #start(socket, { resume }) {
    if (this.refusal) {
      this.tell(socket, { type: "error", ...this.refusal });
      setTimeout(() => socket.cut(this.refusal.code), 4);
      return;
    }
    const known = resume && this.sessions.get(resume.token);
    const token = known ? resume.token : `token-${this.sessions.size}-${Math.random()}`;
    const session = known ?? { heard: [], events: [], answered: new Set(), seq: 0, pieces: [] };
    this.sessions.set(token, session);
    Object.assign(socket, { session, acked: session.heard.length });
    this.tell(socket, {
      type: "session.ready", session: token, model: {}, limits: LIMITS, epoch: token,
      resume: this.offersResume ? { token, ttl_s: 60 } : null,
      audio_received_ms: (1000 * session.heard.length) / RATE,
      audio_received_samples: session.heard.length,
      ...(resume && { recovered: Boolean(known) }),
    });
    if (known) for (const event of session.events) if (event.seq > resume.last_seq) this.tell(socket, event);
  }

  #audio(socket, bytes) {
    const { session } = socket;
    const copy = bytes.slice();
    for (const sample of new Uint32Array(copy.buffer)) session.heard.push(sample);
    if (session.heard.length - socket.acked >= RATE) {
      socket.acked = session.heard.length;
      this.tell(socket, { type: "audio.ack", received_ms: (1000 * socket.acked) / RATE });
    }
  }

  #transcript(socket, { utterance, revision, final, text }) {
    const { session } = socket;
    if (session.answered.has(utterance)) {
      this.tell(socket, { type: "warning", name: "utterance_already_final", detail: utterance });
      return;
    }
    const ms = Math.round((1000 * session.heard.length) / RATE);
    const entity = {
      id: `${utterance}-e1`, version: revision, status: final ? "final" : "tentative", label: "PER",
      text, start: 0, end: 1, start_utf16: 0, end_utf16: 1, parent: null, start_ms: ms, end_ms: ms,
      time_source: "alignment", confidence: 0.9, audio_used: true,
    };
    if (final) {
      session.answered.add(utterance);
      // What the server heard last before the final text is what its times must lead back to.
      this.#event(socket, {
        type: "utterance.final", utterance, revision, text, entities: [entity], characters: [[ms, ms]],
        time_source: "alignment", audio_used: true, behind_live_ms: 5, last_heard: session.heard.at(-1) ?? -1,
      });
    } else {
      this.#event(socket, { type: "entity.upsert", utterance, revision, entity, behind_live_ms: 5 });
    }
  }

  #event(socket, event) {
    const { session } = socket;
    session.seq += 1;
    session.events.push({ ...event, seq: session.seq });
    this.tell(socket, session.events.at(-1));
  }
}
