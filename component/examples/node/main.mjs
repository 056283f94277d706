// Opens a log, appends a batch, closes it, opens it again and reads it back.
//
//   npm install
//   npx jco transpile seawall.wasm -o out --name seawall
//   node main.mjs <folder>

import { _setPreopens } from "@bytecodealliance/preview2-shim/filesystem";

const folder = process.argv[2];
// All the authority that the component gets.
_setPreopens({ "/": folder });
const { log } = await import("./out/seawall.js");

// Records cross the boundary flat: keys and values one after the other, and their lengths.
const text = new TextEncoder();
const pairs = [["user:42", "alice@example.com"], ["user:43", "bob@example.com"]];
const parts = pairs.flat().map((part) => text.encode(part));
const batch = {
  data: Uint8Array.from(parts.flatMap((part) => [...part])),
  lengths: Uint32Array.from(parts.map((part) => part.length)),
  attributes: [],
};

const [first, found] = log.Log.open("", log.defaultConfig());
const appended = first.appendBatch(batch, "disk");
first.close();
console.log(`new: ${found.isNew}; appended ${appended.first} to ${appended.last}`);

const [again, recovery] = log.Log.open("", log.defaultConfig());
const page = again.readFrom({ tag: "first" }, "durable").readBatch(1 << 20);
const bytes = new TextDecoder();
let at = 0;
const read = Array.from(page.records.lengths, (length) => {
  at += length;
  return bytes.decode(page.records.data.slice(at - length, at));
});
again.close();
console.log(`clean: ${recovery.wasClean}; read ${read.join(" ")}`);
const same = JSON.stringify(read) === JSON.stringify(pairs.flat());
process.exit(same && recovery.wasClean && found.isNew ? 0 : 1);
