// Has the official parser judge the AsyncAPI document on standard input: `make asyncapi`.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

new Parser().validate(readFileSync(0, "utf-8")).then((found) => {
  for (const { code, path, message } of found) {
    console.log(`${code} at ${path.join(".")}: ${message}`);
  }
  console.log(`${found.length} findings`);
  process.exit(found.length ? 1 : 0);
});
