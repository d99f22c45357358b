import { readFile, writeFile } from "node:fs/promises"
import path from "node:path"
import { openApi } from "../../src/http/OpenApiDocument.ts"
import { asyncApi } from "../../src/http/AsyncApi.ts"
import { variables } from "../../src/layers/Configuration.ts"

/** Files that are made from the code are checked in and proven current: `--check` fails when one is not, `--write` mends it. */

const root = path.join(import.meta.dirname, "..", "..")

/** Padded as the formatter pads it, which looks at the same file. */
const configurationTable = (): string => {
  const rows = [
    ["variable", "default", "meaning"],
    ...Object.values(variables).map(({ fallback, meaning, name }) => [`\`${name}\``, fallback, meaning])
  ]
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (cells: ReadonlyArray<string>): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(" | ")} |`
  const [head, ...body] = rows.map(line)
  return [head, line(widths.map((width) => "-".repeat(width))), ...body].join("\n")
}

const betweenMarkers = (text: string, content: string): string =>
  text.replace(
    /(<!-- configuration: generated -->\n)[\s\S]*?(<!-- end of configuration -->)/,
    (_, before: string, after: string) => `${before}\n${content}\n\n${after}`
  )

const generated: ReadonlyArray<{ readonly file: string; readonly make: (current: string) => string }> = [
  { file: "openapi.json", make: () => `${JSON.stringify(openApi(), undefined, 2)}\n` },
  { file: "asyncapi.json", make: () => `${JSON.stringify(asyncApi, undefined, 2)}\n` },
  { file: "docs/configuration.md", make: (current) => betweenMarkers(current, configurationTable()) }
]

const write = process.argv.includes("--write")
for (const { file, make } of generated) {
  const at = path.join(root, file)
  const current = await readFile(at, "utf8").catch(() => "")
  const wanted = make(current)
  if (current === wanted) continue
  if (write) await writeFile(at, wanted)
  else {
    console.error(`${file} is not current: run "npm run generate" and commit it.`)
    process.exitCode = 1
  }
}
