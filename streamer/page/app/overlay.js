// ?overlay=1: the captions alone, on nothing. It follows the page that runs in another window.

const CHANNEL = "cnerta-captions";
const SHOWN = 2;

/** Tells overlays what is shown. */
export function broadcaster(store) {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => data === "hello" && tell();
  const tell = () => channel.postMessage(store.newest(SHOWN));
  return tell;
}

/** Shows what another window tells. */
export function follow(draw) {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => Array.isArray(data) && draw({ newest: (count) => data.slice(-count) });
  channel.postMessage("hello");
}
