import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { promisify } from "node:util"
import manifest from "../package.json" with { type: "json" }
import { emptyFolder } from "./support/Postgres.ts"
import { merchantAt, run, startService } from "./support/service.ts"
import { pick } from "./support/shape.ts"

/**
 * What `npm pack` makes, as who installs it has it: unpacked into the node_modules of an empty folder, beside links to
 * the packages that it says it depends on and to no others. Nothing is downloaded.
 */

const root = path.join(import.meta.dirname, "..")
const dependencies = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })
/** Processes start and stop here, which takes its time where all processors are busy. */
const timeout = 180_000

const execute = (folder: string, command: string, ...parameters: ReadonlyArray<string>) =>
  Effect.promise(() =>
    promisify(execFile)(command, [...parameters], {
      cwd: folder,
      env: {
        ...process.env,
        PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env["PATH"]}`,
        // Nothing of the test's own configuration reaches the program.
        DATABASE_URL: undefined,
        NODE_OPTIONS: undefined,
        // What npx does not find here it must not look for elsewhere.
        npm_config_offline: "true",
        npm_config_yes: "false"
      }
    })
  )

/** A folder where the packed package is installed, and the names of the files in it. */
class Installed extends Context.Service<
  Installed,
  { readonly folder: string; readonly home: string; readonly files: ReadonlyArray<string> }
>()("holdfast/test/Installed") {
  static readonly layer = Layer.effect(
    Installed,
    Effect.suspend(() => install)
  )
}

const install = Effect.gen(function* () {
  const folder = yield* emptyFolder
  const { stdout } = yield* execute(root, "npm", "pack", "--json", "--silent", "--pack-destination", folder)
  const answer: unknown = JSON.parse(stdout)
  const packed = (Array.isArray(answer) ? answer : Object.values(answer as object))[0] as {
    readonly filename: string
    readonly files: ReadonlyArray<{ readonly path: string }>
  }
  const modules = path.join(folder, "node_modules")
  const home = path.join(modules, manifest.name)
  yield* Effect.promise(() => fs.mkdir(home, { recursive: true }))
  yield* execute(folder, "tar", "-xzf", packed.filename, "-C", home, "--strip-components=1")
  yield* Effect.promise(async () => {
    for (const name of dependencies) {
      const source = path.join(root, "node_modules", name)
      // The database's binaries for other machines are not installed here either.
      if (!(await fs.stat(source).catch(() => undefined))) continue
      await fs.mkdir(path.dirname(path.join(modules, name)), { recursive: true })
      await fs.symlink(source, path.join(modules, name))
    }
    await fs.mkdir(path.join(modules, ".bin"))
    for (const [name, script] of Object.entries(manifest.bin)) {
      await fs.chmod(path.join(home, script), 0o755)
      await fs.symlink(path.join(home, script), path.join(modules, ".bin", name))
    }
  })
  return { folder, home, files: packed.files.map((file) => file.path) }
})

layer(Installed.layer, { excludeTestServices: true, timeout: "180 seconds" })("the package", (it) => {
  it.effect(
    "runs in an empty folder: help, migrations, the service with a database of its own",
    () =>
      Effect.gen(function* () {
        const { files, folder, home } = yield* Installed
        assert.includeMembers(
          [...files],
          [
            "LICENSE",
            "README.md",
            "bin/holdfast.js",
            "dist/main.js",
            "dist/http/contract/Api.d.ts",
            "migrations/0001_kernel.sql",
            "openapi.json",
            "asyncapi.json"
          ]
        )
        const astray = files.filter((file) => /^(src|test|bench)\//.test(file) || /(?<!\.d)\.ts$/.test(file))
        assert.deepStrictEqual(astray, [])

        const help = yield* execute(folder, "npx", "holdfast", "--help")
        assert.include(help.stdout, "holdfast <subcommand>")
        const told = yield* execute(folder, "npx", "holdfast", "--version")
        assert.include(told.stdout, manifest.version)
        yield* execute(folder, "npx", "holdfast", "migrate")

        // Over the data folder that is there now, under the name that it has without configuration.
        const service = yield* startService(
          undefined,
          {},
          { folder, parameters: ["serve"], script: path.join(home, manifest.bin.holdfast) }
        )
        assert.strictEqual((yield* service.call("GET", "/health/ready")).status, 200)
        const { item, receive, reserve } = yield* merchantAt(service, "demo")
        yield* item("cup")
        yield* receive("cup", 2)
        const answer = yield* reserve("order-1", [["cup", 2]])
        assert.strictEqual(answer.status, 201, answer.text)
        assert.strictEqual(pick(answer.body, "data.orderId"), "order-1")
        assert.isTrue((yield* Effect.promise(() => fs.stat(path.join(folder, ".holdfast")))).isDirectory())
        yield* service.kill("SIGTERM")
        assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null })
      }),
    timeout
  )

  it.effect(
    "runs under an older Node.js by the one that it brings, which has its signals and its exit code",
    () =>
      Effect.gen(function* () {
        const { folder, home } = yield* Installed
        const script = path.join(home, manifest.bin.holdfast)
        const wrong = yield* run({ NODE_OPTIONS: olderNode }, ["stok"], script, folder)
        assert.deepStrictEqual(yield* wrong.ended, { code: 2, signal: null })
        assert.include(wrong.stderr(), 'holdfast has no command "stok"')
        const service = yield* startService(
          undefined,
          { NODE_OPTIONS: olderNode },
          { folder, parameters: ["serve"], script }
        )
        yield* service.kill("SIGTERM")
        assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null })
      }),
    timeout
  )

  it.effect(
    "says what is not installed, in words",
    () =>
      Effect.gen(function* () {
        const { home } = yield* Installed
        const folder = yield* emptyFolder
        const copied = path.join(folder, "holdfast")
        yield* Effect.promise(() => fs.cp(home, copied, { recursive: true }))
        const script = path.join(copied, manifest.bin.holdfast)
        const bare = yield* run({}, ["stock"], script, folder)
        assert.strictEqual((yield* bare.ended).code, 1)
        assert.strictEqual(
          bare.stderr(),
          `holdfast: the packages that it is made of are not installed: run "npm ci" in ${copied}/\n`
        )
        // Installed but for Node.js, whose install script npm was not allowed to run.
        yield* Effect.promise(async () => {
          await fs.mkdir(path.join(copied, "node_modules", "effect"), { recursive: true })
          await fs.writeFile(path.join(copied, "node_modules", "effect", "package.json"), "{}")
        })
        const old = yield* run({ NODE_OPTIONS: olderNode }, ["stock"], script, folder)
        assert.strictEqual((yield* old.ended).code, 1)
        assert.match(
          old.stderr(),
          /Node\.js 24 or later is needed, and this is v20\.20\.2 \(.*npm rebuild node/s
        )
      }),
    timeout
  )

  it.effect(
    "has the types of its contract, for a client of somebody else",
    () =>
      Effect.gen(function* () {
        const { folder } = yield* Installed
        yield* Effect.promise(() => fs.writeFile(path.join(folder, "client.ts"), client))
        yield* Effect.promise(() =>
          fs.writeFile(path.join(folder, "package.json"), JSON.stringify({ type: "module" }))
        )
        const { stdout } = yield* execute(
          folder,
          process.execPath,
          path.join(root, "node_modules", "typescript", "bin", "tsc"),
          ...flags
        )
        assert.strictEqual(stdout, "")
      }),
    timeout
  )
})

/** What is started says that it is an older Node.js, and starts others as they are. */
const olderNode = `--import=data:text/javascript,${encodeURIComponent(
  `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.20.2" } });
   Object.defineProperty(process, "version", { value: "v20.20.2" });
   delete process.env.NODE_OPTIONS`
)}`

const flags = "--noEmit --strict --module nodenext --target es2024 --skipLibCheck client.ts".split(" ")

/** Compiles only if the types are known: an unknown field, or `any` in its place, is an error. */
const client = `
import { Effect } from "effect"
import { HttpApiClient } from "effect/http-api"
import { Api } from "holdfast"
import { createClient } from "holdfast/client"

export const held = async (): Promise<string> => {
  const client = createClient({ baseUrl: "http://127.0.0.1:8080", token: "" })
  const answer = await client.orders.reserve({
    orderId: "order-1",
    items: [{ variantId: "cup", quantity: 1 }]
  })
  // @ts-expect-error there is no such field
  void answer.data.nothing
  return answer.data.reservationId
}

export const reserve = Effect.gen(function* () {
  const client = yield* HttpApiClient.make(Api, { baseUrl: "http://127.0.0.1:8080" })
  const answer = yield* client.orders.reserve({
    payload: { orderId: "order-1", items: [{ variantId: "cup", quantity: 1 }] }
  })
  const id: string = answer.data.reservationId
  // @ts-expect-error there is no such field
  const none: string = answer.data.nothing
  return [id, none]
})
`
