import { PgConnection, PgTypes } from "@effect/sql-pg"
import { Effect, Redacted } from "effect"
import { text } from "node:stream/consumers"
import { type Script, clientsMax, uniqueStride } from "./Script.ts"

/** The stand-in for pgbench: reads its options as JSON and prints transactions per second. */

const options = JSON.parse(await text(process.stdin)) as {
  readonly databaseUrl: string
  readonly script: Script
  readonly clients: number
  readonly seconds: number
  readonly run: number
}

/** Each statement with $1, $2, … for its variables, which are all whole numbers. */
const statements = options.script.statements.map((statement) => {
  const names: Array<string> = []
  const numbered = statement.trim().replace(/(?<!:):([a-z]+)/g, (_, name: string) => {
    if (!names.includes(name)) names.push(name)
    return `$${names.indexOf(name) + 1}`
  })
  return { text: numbered, names }
})

const client = (id: number, until: number) =>
  Effect.gen(function* () {
    const connection = yield* PgConnection.make({ url: Redacted.make(options.databaseUrl) })
    let count = 0
    while (performance.now() < until) {
      count += 1
      const values = new Map(
        options.script.variables.map((variable) => [
          variable.name,
          "random" in variable
            ? variable.random[0] + Math.floor(Math.random() * (variable.random[1] - variable.random[0] + 1))
            : (options.run * clientsMax + id) * uniqueStride + count
        ])
      )
      for (const { names, text } of statements) {
        yield* connection.query(
          text,
          names.map((name) => ({
            [PgTypes.ParameterTypeId]: PgTypes.ParameterTypeId,
            oid: PgTypes.OID.int8,
            value: BigInt(values.get(name)!)
          }))
        )
      }
    }
    return count
  })

const startedAt = performance.now()
const counts = await Effect.runPromise(
  Effect.scoped(
    Effect.all(
      Array.from({ length: options.clients }, (_, id) => client(id, startedAt + options.seconds * 1000)),
      { concurrency: "unbounded" }
    )
  )
)
const elapsedSeconds = (performance.now() - startedAt) / 1000
process.stdout.write(`${counts.reduce((sum, count) => sum + count, 0) / elapsedSeconds}\n`)
