#!/usr/bin/env node
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
await import("../src/main.ts")
