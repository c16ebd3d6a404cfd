// Runs in a worker: says when a block of a recording is due.

setInterval(() => postMessage(0), 40);
