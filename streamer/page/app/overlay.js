// ?overlay=1: the captions alone, on nothing. In another window of the same browser it follows the
// page; OBS is a browser of its own, and is told by the server what the page shows under a key.

const CHANNEL = "cnerta-captions";
const KEY = "cnerta-overlay";
const SHOWN = 2;
const MOST_CHARACTERS = 30_000;
const RETRY_MS = 2_000;
/** How often is looked whether a caption has had its time. */
const LOOK_MS = 250;

/** Of this browser: an address that stands in OBS stays good. */
function ownKey() {
  const fresh = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const key = localStorage.getItem(KEY) ?? fresh;
    localStorage.setItem(KEY, key);
    return key;
  } catch {
    return fresh;
  }
}

/** A connection that is made again and again. */
function connected(query, token, { onOpen, onMessage }) {
  let socket;
  let timer = 0;
  const connect = () => {
    const url = `${location.origin.replace("http", "ws")}/v1/overlay?${query}`;
    socket = new WebSocket(url, token ? ["cnerta.v1", `bearer.${token}`] : ["cnerta.v1"]);
    socket.onopen = onOpen;
    socket.onmessage = ({ data }) => onMessage?.(JSON.parse(data));
    socket.onclose = () => (timer = setTimeout(connect, RETRY_MS));
  };
  connect();
  return {
    /** Whether it went out. */
    send(text) {
      const isFree = socket.readyState === WebSocket.OPEN && socket.bufferedAmount === 0;
      if (isFree) socket.send(text);
      return isFree;
    },
    close() {
      socket.onclose = null;
      socket.close();
      clearTimeout(timer);
    },
  };
}

/** Tells overlays what is shown: those of this browser, and if asked to, those that have the key. */
export class Broadcaster {
  #channel = new BroadcastChannel(CHANNEL);
  #store;
  #token;
  #key = "";
  #connection = null;
  #told = "";
  #timer = 0;

  constructor(store, token) {
    this.#store = store;
    this.#token = token;
    this.#channel.onmessage = ({ data }) => data === "hello" && this.tell();
  }

  tell() {
    const shown = this.#store.newest(SHOWN);
    this.#channel.postMessage(shown);
    if (!this.#connection) return;
    const text = [shown, shown.slice(-1)].map((each) => JSON.stringify(each.map(({ characters, ...rest }) => rest))).find(({ length }) => length < MOST_CHARACTERS);
    if (!text || text === this.#told) return;
    clearTimeout(this.#timer);
    if (this.#connection.send(text)) this.#told = text;
    else this.#timer = setTimeout(() => this.tell(), LOOK_MS);
  }

  /** @returns {string} The address for OBS; "": it is not wanted. */
  share(isWanted, settings) {
    if (!isWanted) {
      this.#connection?.close();
      this.#connection = null;
      return "";
    }
    this.#key ||= ownKey();
    this.#connection ??= connected(`key=${this.#key}&show=1`, this.#token, {
      onOpen: () => {
        this.#told = "";
        if (this.#store.open.length) this.tell();
      },
    });
    const { language, size, density, first } = settings;
    const query = new URLSearchParams({ overlay: "1", lang: language, size, density, ...(first && { first: "1" }) });
    return `${location.origin}/?${query}#watch=${this.#key}`;
  }
}

/**
 * Shows what is told, each caption until nothing was new in it for a while.
 * @param {(store: {newest: (count: number) => any[]}) => void} draw
 * @param {string} key "": another window of this browser tells.
 * @param {string} token
 * @param {number} clearS 0: never.
 */
export function follow(draw, key, token, clearS) {
  const changed = new Map();
  let timer = 0;
  const show = (told) => {
    const now = performance.now();
    for (const { key, text, final } of told) {
      const stamp = text + final;
      if (changed.get(key)?.stamp !== stamp) changed.set(key, { stamp, at: now });
    }
    for (const key of changed.keys()) if (!told.some((each) => each.key === key)) changed.delete(key);
    const fresh = told.filter(({ key }) => !clearS || now - changed.get(key).at < 1000 * clearS);
    draw({ newest: (count) => fresh.slice(-count) });
    clearTimeout(timer);
    if (fresh.length && clearS) timer = setTimeout(() => show(told), LOOK_MS);
  };
  if (key) {
    connected(new URLSearchParams({ key }), token, { onMessage: show });
    return;
  }
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => Array.isArray(data) && show(data);
  channel.postMessage("hello");
}
