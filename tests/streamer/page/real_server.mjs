// A real server with the model that comes along, and lines to it that are bad.

import { spawn } from "node:child_process";
import net from "node:net";

const { PAGE_PYTHON } = process.env;
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A server as people start it. @param {number} port 0: any. */
export async function startServer(port = 0, flags = []) {
  const child = spawn(PAGE_PYTHON, ["-m", "cnerta.streamer.commands.serve", "--port", String(port), ...flags], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  const found = await new Promise((resolve, reject) => {
    child.stderr.on("data", (data) => {
      log += data;
      const port = /listening on \S+ port (\d+)/.exec(log)?.[1];
      if (port) resolve(Number(port));
    });
    child.on("exit", (code) => reject(new Error(`the server ended with ${code}: ${log}`)));
  });
  return {
    port: found,
    url: `http://127.0.0.1:${found}`,
    signal: (name) => child.kill(name),
    stop: () => new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      child.removeAllListeners("exit");
      child.on("exit", resolve);
      child.kill("SIGCONT");
      child.kill("SIGKILL");
    }),
  };
}

/** A line to a server that is slow and far away. */
export function slowLine(port, { delayMs, bytesPerSecond }) {
  const proxy = net.createServer((client) => {
    const server = net.connect(port, "127.0.0.1");
    const carry = (from, to) => {
      let free = Date.now();
      from.on("data", (data) => {
        free = Math.max(free, Date.now()) + (1000 * data.length) / bytesPerSecond;
        if (free - Date.now() > 500) {
          from.pause();
          setTimeout(() => from.resume(), free - Date.now() - 500);
        }
        setTimeout(() => !to.destroyed && to.write(data), free - Date.now() + delayMs);
      });
      from.on("end", () => setTimeout(() => to.end(), Math.max(0, free - Date.now()) + delayMs + 20));
      from.on("error", () => to.destroy());
    };
    carry(client, server);
    carry(server, client);
  });
  return new Promise((resolve) => proxy.listen(0, "127.0.0.1", () => resolve({
    url: `http://127.0.0.1:${proxy.address().port}`, stop: () => proxy.close(),
  })));
}

/** A line that can be cut, to whatever listens at a port. */
export function fragileLine(port) {
  const open = new Set();
  const proxy = net.createServer((client) => {
    const server = net.connect(port, "127.0.0.1");
    for (const [from, to] of [[client, server], [server, client]]) {
      open.add(from);
      from.on("data", (data) => !to.destroyed && to.write(data));
      from.on("error", () => to.destroy());
      from.on("close", () => {
        open.delete(from);
        to.destroy();
      });
    }
  });
  return new Promise((resolve) => proxy.listen(0, "127.0.0.1", () => resolve({
    url: `ws://127.0.0.1:${proxy.address().port}`,
    cut: () => open.forEach((socket) => socket.resetAndDestroy()),
    stop: () => {
      proxy.close();
      open.forEach((socket) => socket.destroy());
    },
  })));
}
