#!/usr/bin/env node
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import * as module from "node:module"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

// Plain JavaScript, so that an older Node.js gets far enough to run the right one, or to say what is missing.
const nodeMin = 24
const folder = fileURLToPath(new URL("..", import.meta.url))
const { resolve } = module.createRequire(import.meta.url)

const installed = (name) => {
  try {
    return path.dirname(resolve(`${name}/package.json`))
  } catch {
    return undefined
  }
}

const say = (...lines) => process.stderr.write(lines.map((line) => `holdfast: ${line}\n`).join(""))

if (installed("effect") === undefined) {
  say(`the packages that it is made of are not installed: run "npm ci" in ${folder}`)
  process.exit(1)
}
if (Number(process.versions.node.split(".")[0]) < nodeMin) await runByOwnNode()
else {
  // What V8 has compiled once need not be compiled again: a third of what a start costs. It lies with the program, where
  // nobody but who installed it can write; where that is nobody, there is none.
  module.enableCompileCache(path.join(folder, "node_modules", ".cache", "holdfast"))
  // A checkout runs its sources, also where it was packed; the package has none, since Node.js strips no types there.
  const sources = new URL("../src/main.ts", import.meta.url)
  await import(existsSync(sources) ? sources.href : "../dist/main.js")
}

/** The Node.js that the package brings runs this file again: the one that was called is too old. */
async function runByOwnNode() {
  const node = path.join(installed("node") ?? "", "bin", process.platform === "win32" ? "node.exe" : "node")
  if (!path.isAbsolute(node) || !existsSync(node)) {
    say(
      `Node.js ${nodeMin} or later is needed, and this is ${process.version} (${process.execPath}).`,
      'The package "node" brings one, which npm did not set up, since it may run no install scripts:',
      `run "npm rebuild node" in ${folder}, or install Node.js ${nodeMin}.`
    )
    process.exit(1)
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit" })
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => child.kill(signal))
  child.on("error", (error) => {
    say(`${node} cannot be run: ${error.message}`)
    process.exit(1)
  })
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code ?? 1)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  })
}
