#!/usr/bin/env node
import { existsSync } from "node:fs"
import * as module from "node:module"
import { fileURLToPath } from "node:url"

// Plain JavaScript, so that an older Node.js gets far enough to say what is missing.
const nodeMin = 24
const major = Number(process.versions.node.split(".")[0])
if (major < nodeMin) {
  process.stderr.write(
    `holdfast: Node.js ${nodeMin} or later is needed, and this is ${process.version} (${process.execPath}).\n` +
      `holdfast: the project brings its own: run it by "npm start". If npm did not install it, run\n` +
      `holdfast: "npm rebuild node", and with npm 11 or later see allowScripts in package.json.\n`
  )
  process.exit(1)
}
// What V8 has compiled once need not be compiled again: a third of what a start costs. It lies with the program, where
// nobody but who installed it can write; where that is nobody, there is none.
module.enableCompileCache(fileURLToPath(new URL("../node_modules/.cache/holdfast", import.meta.url)))
// A checkout runs its sources, also where it was packed; the package has none, since Node.js strips no types there.
const sources = new URL("../src/main.ts", import.meta.url)
await import(existsSync(sources) ? sources.href : "../dist/main.js")
