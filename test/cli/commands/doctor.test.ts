import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { randomUUID } from "node:crypto"
import { createServer } from "node:http"
import { diskFinding, unknownVariables } from "../../../src/cli/commands/doctor.ts"
import type { Finding } from "../../../src/services/Doctor.ts"
import { kafkaMissing } from "../../support/kafka.ts"
import { connect } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"
import { run } from "../../support/service.ts"
import { kafka } from "../../support/shared.ts"

/** `holdfast doctor` as a person runs it: what it prints, and how it ends. */

/** Processes start here, which takes its time where all processors are busy. */
const timeout = 120_000

/** The findings, and the exit code. */
const ask = Effect.fnUntraced(function* (environment: Readonly<Record<string, string>>) {
  const program = yield* run(environment, ["doctor", "--json"])
  const { code } = yield* program.ended
  const lines = program.stdout().trim().split("\n")
  const findings = lines.map((line) => JSON.parse(line) as Finding)
  const wrong = findings.filter(({ level }) => level === "WRONG")
  assert.strictEqual(code, wrong.length > 0 ? 1 : 0, `${program.stdout()}\n${program.stderr()}`)
  return { findings, wrong }
})

const dev = (url: string) => ({ DATABASE_URL: url, HOLDFAST_DEV: "1" })

describe("holdfast doctor", { timeout }, () => {
  it.live("names every wrong variable, and looks no further", () =>
    Effect.gen(function* () {
      const { findings, wrong } = yield* ask({ PORT: "high", DATABASE_URL: "mysql://db", HOLDFAST_PROT: "1" })
      assert.deepStrictEqual(
        wrong.map(({ check, found }) => `${check} ${found.split(":")[0]}`),
        ["configuration DATABASE_URL", "configuration PORT"]
      )
      assert.isTrue(wrong.every(({ mend }) => mend !== undefined))
      assert.include(findings[1], { level: "WARNING", found: "HOLDFAST_PROT is set, and nothing reads it" })
    })
  )

  it.live("says why the database cannot be reached, without its password, and the mend for each reason", () =>
    Effect.gen(function* () {
      const url = new URL(Redacted.value((yield* freshDatabase).url))
      const nobody = yield* ask(dev("postgres://u:secret-word@127.0.0.1:9/nowhere"))
      assert.match(nobody.wrong[0]!.found, /127\.0\.0\.1:9\/nowhere cannot be reached: .*ECONNREFUSED/)
      assert.match(nobody.wrong[0]!.mend!, /whether PostgreSQL runs at 127\.0\.0\.1:9/)
      const wrongPassword = new URL(url)
      wrongPassword.password = "secret-word"
      const stranger = yield* ask(dev(wrongPassword.href))
      assert.match(stranger.wrong[0]!.mend!, /user and password/)
      const absent = new URL(url)
      absent.pathname = "/absent"
      const missing = yield* ask(dev(absent.href))
      assert.strictEqual(missing.wrong[0]!.mend, "CREATE DATABASE absent")
      assert.notInclude(JSON.stringify([nobody, stranger, missing]), "secret-word")
    })
  )

  it.live("finds migrations that are not applied, and those that only a later version knows", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      yield* sql.run("INSERT INTO holdfast_migration (migration_id, name) VALUES (9999, 'tomorrow')")
      const ahead = yield* ask(dev(Redacted.value(url)))
      assert.match(ahead.wrong.find(({ check }) => check === "migrations")!.found, /9999_tomorrow/)
      yield* sql.run("DELETE FROM holdfast_migration WHERE migration_id IN (9999, 2)")
      const behind = yield* ask(dev(Redacted.value(url)))
      const lacking = behind.wrong.find(({ check }) => check === "migrations")!
      assert.match(lacking.found, /not applied: 0002_broker/)
      assert.match(lacking.mend!, /^holdfast migrate/)
    })
  )

  it.live("finds that nobody gives out keys for tokens", () =>
    Effect.gen(function* () {
      const server = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const listening = createServer((request, response) => {
            response.setHeader("content-type", "application/json")
            response.end(request.url === "/keys" ? '{"keys":[{"kty":"EC"}]}' : '{"keys":[]}')
          }).listen(0, "127.0.0.1", () => resume(Effect.succeed(listening)))
        }),
        (listening) => Effect.sync(() => listening.close())
      )
      const base = `http://127.0.0.1:${(server.address() as { readonly port: number }).port}`
      const { url } = yield* freshDatabase
      const issuer = (path: string) => ({
        DATABASE_URL: Redacted.value(url),
        JWKS_URL: `${base}${path}`,
        JWT_ISSUER: "issuer",
        JWT_AUDIENCE: "holdfast"
      })
      const without = yield* ask(issuer("/empty"))
      const tokens = without.wrong.find(({ check }) => check === "tokens")
      assert.match(tokens?.found ?? "", /does not answer with a set of keys/)
      const fine = yield* ask(issuer("/keys"))
      assert.isUndefined(fine.wrong.find(({ check }) => check === "tokens"))
      assert.include(
        fine.findings.find(({ check }) => check === "tokens")!,
        { level: "OK" }
      )
    })
  )

  it.live("finds that no broker answers at KAFKA_BROKERS", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const { wrong } = yield* ask({ ...dev(Redacted.value(url)), KAFKA_BROKERS: "127.0.0.1:9" })
      const broker = wrong.find(({ check }) => check === "broker")
      assert.strictEqual(broker?.found, "the broker does not answer")
      assert.match(broker?.mend ?? "", /KAFKA_BROKERS/)
    })
  )

  it.live.skipIf(kafkaMissing !== undefined)(
    "finds topics that nobody has made in Kafka, until they are made",
    () =>
      Effect.gen(function* () {
        const { brokers } = yield* kafka
        const { url } = yield* freshDatabase
        const environment = {
          ...dev(Redacted.value(url)),
          KAFKA_BROKERS: brokers,
          TOPIC_PREFIX: `doctor-${randomUUID()}.`
        }
        const broker = Effect.map(ask(environment), ({ findings }) =>
          findings.find(({ check }) => check === "broker")
        )
        const without = yield* broker
        assert.deepInclude(without, { level: "WARNING" })
        assert.match(without!.found, /^topics do not exist: .*payment\.success/)
        const made = yield* run(environment, ["topics", "create"])
        assert.strictEqual((yield* made.ended).code, 0, made.stderr())
        assert.deepInclude(yield* broker, { level: "OK", found: "the broker answers, and has every topic" })
      })
  )

  it.live("is read by a person: a line for each finding, and its mend below", () =>
    Effect.gen(function* () {
      const program = yield* run(dev("postgres://u:p@127.0.0.1:9/x"), ["doctor"])
      assert.strictEqual((yield* program.ended).code, 1)
      assert.match(program.stdout(), /^ok {7}node {11}Node\.js v\d+/m)
      assert.match(
        program.stdout(),
        /^WRONG {4}database {7}127\.0\.0\.1:9\/x .*\n +mend: see whether PostgreSQL/m
      )
      assert.strictEqual(program.stderr(), "holdfast: 1 must be mended\n")
    })
  )
})

describe("a finding", () => {
  it("is made of a variable that nothing reads", () => {
    assert.deepStrictEqual(
      unknownVariables({ HOLDFAST_DATADIR: "x", HOLDFAST_DATA_DIR: "y", PORT: "1" }).map(
        ({ found }) => found
      ),
      ["HOLDFAST_DATADIR is set, and nothing reads it"]
    )
  })

  it("is made of a disk that is nearly full, or full", () => {
    assert.strictEqual(diskFinding("/data", 10 * 2 ** 30).level, "OK")
    assert.strictEqual(diskFinding("/data", 2 ** 30).level, "WARNING")
    assert.strictEqual(diskFinding("/data", 2 ** 20).level, "WRONG")
  })
})
