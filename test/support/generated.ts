import { readFile, writeFile } from "node:fs/promises"
import { type FormatConfig, format } from "oxfmt"
import path from "node:path"
import { openApi } from "../../src/http/OpenApiDocument.ts"
import { asyncApi } from "../../src/http/AsyncApi.ts"
import { Permission, permissionMeanings } from "../../src/schema/Principal.ts"
import { rolesWith } from "../../src/schema/Role.ts"
import { variables } from "../../src/layers/Configuration.ts"
import { clientSource } from "./clientSource.ts"

/** Files that are made from the code are checked in and proven current: `--check` fails when one is not, `--write` mends it. */

const root = path.join(import.meta.dirname, "..", "..")

/** Padded as the formatter pads it, which looks at the same file. */
const tableOf = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (cells: ReadonlyArray<string>): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(" | ")} |`
  const [head, ...body] = rows.map(line)
  return [head, line(widths.map((width) => "-".repeat(width))), ...body].join("\n")
}

const configurationTable = tableOf([
  ["variable", "default", "meaning"],
  ...Object.values(variables).map(({ fallback, meaning, name }) => [`\`${name}\``, fallback, meaning])
])

const permissionTable = tableOf([
  ["permission", "allows", "roles that have it"],
  ...Permission.literals.map((permission) => [
    `\`${permission}\``,
    permissionMeanings[permission],
    rolesWith(permission).join(", ")
  ])
])

const callTable = tableOf([
  ["call", "needs", "what it does"],
  ...Object.entries(openApi().paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { security, summary }]) => [
      `\`${method.toUpperCase()} ${path}\``,
      security.flatMap(({ bearer }) => bearer.map((permission) => `\`${permission}\``)).join(", "),
      summary
    ])
  )
])

const betweenMarkers = (text: string, name: string, content: string): string =>
  text.replace(
    new RegExp(`(<!-- ${name}: generated -->\\n)[\\s\\S]*?(<!-- end of ${name} -->)`),
    (_, before: string, after: string) => `${before}\n${content}\n\n${after}`
  )

/** As the formatter leaves it, which looks at the same file. */
const formatted = async (file: string, source: string): Promise<string> => {
  const options = JSON.parse(await readFile(path.join(root, ".oxfmtrc.json"), "utf8")) as FormatConfig
  return (await format(file, source, options)).code
}

const generated: ReadonlyArray<{
  readonly file: string
  readonly make: (current: string) => string | Promise<string>
}> = [
  { file: "openapi.json", make: () => `${JSON.stringify(openApi(), undefined, 2)}\n` },
  { file: "src/client/operations.ts", make: () => formatted("operations.ts", clientSource()) },
  { file: "asyncapi.json", make: () => `${JSON.stringify(asyncApi, undefined, 2)}\n` },
  {
    file: "docs/configuration.md",
    make: (current) => betweenMarkers(current, "configuration", configurationTable)
  },
  {
    file: "docs/permissions.md",
    make: (current) =>
      betweenMarkers(betweenMarkers(current, "permissions", permissionTable), "calls", callTable)
  }
]

const write = process.argv.includes("--write")
for (const { file, make } of generated) {
  const at = path.join(root, file)
  const current = await readFile(at, "utf8").catch(() => "")
  const wanted = await make(current)
  if (current === wanted) continue
  if (write) await writeFile(at, wanted)
  else {
    console.error(`${file} is not current: run "npm run generate" and commit it.`)
    process.exitCode = 1
  }
}
