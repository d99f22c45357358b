import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { readFileSync } from "node:fs"
import { gzipSync } from "node:zlib"
import { withServices } from "../support/processes.ts"
import { answersOf, opened } from "./clients.ts"
import { percentile, report, residentMb, stocked } from "./load.ts"

/**
 * What RELIABILITY lists under HTTP, byte by byte: each is refused with a 4xx or a closed connection, none with a 5xx,
 * nothing changes, and a client that behaves keeps its speed beside it. Slow and lying clients: slowClients.test.ts.
 */

/** Promised are 100 ms; on a machine that does other things, too, a multiple of what there was alone. */
const p99MsMax = 100
const p99TimesMax = 4
/** Of these the best counts: what the machine does otherwise is not in all of them. */
const roundsMax = 3
/** Requests of the one that behaves, alone and beside them. */
const samples = 300
/** Connections that attack at once, one request after the other. */
const attackers = 2
/** Of the service, a request on average, good and hostile ones. */
const processorMsMax = 15
/** A connection that is neither answered nor closed within this is one that the service holds for nothing. */
const silenceMsMax = 20_000

interface Attack {
  readonly name: string
  /** What goes over the wire, in pieces. */
  readonly bytes: (token: string) => ReadonlyArray<string | Buffer>
  /** What each answer may be; none at all, but a closed connection, only where 0 is among them. */
  readonly statuses: ReadonlyArray<number>
  /** Whether the connection may go on and is ours to end. */
  readonly keepsOpen?: boolean
}

const reserve = "/api/v1/inventory/reserve"
const good = JSON.stringify({ orderId: "hostile", items: [{ variantId: "cup", quantity: 1 }] })
const mebibyte = 1_048_576

const request = (
  token: string,
  body: string | Buffer,
  headers: ReadonlyArray<string> = [`content-length: ${Buffer.byteLength(body)}`],
  line = `POST ${reserve} HTTP/1.1`
): ReadonlyArray<string | Buffer> => [
  [
    line,
    "host: localhost",
    `authorization: Bearer ${token}`,
    "content-type: application/json",
    ...headers,
    "",
    ""
  ].join("\r\n"),
  body
]

const withBody = (name: string, body: string | Buffer, status: number): Attack => ({
  name,
  bytes: (token) => request(token, body),
  statuses: [status],
  keepsOpen: true
})

const withHeaders = (name: string, ...headers: ReadonlyArray<string>): Attack => ({
  name,
  bytes: (token) => request(token, good, headers),
  statuses: [400]
})

const withLine = (name: string, line: string, ...statuses: ReadonlyArray<number>): Attack => ({
  name,
  bytes: (token) => request(token, "", [], line),
  statuses,
  keepsOpen: true
})

const length = `content-length: ${good.length}`
const chunked = `${good.length.toString(16)}\r\n${good}\r\n0\r\n\r\n`

const attacks: ReadonlyArray<Attack> = [
  // Framing: where two readers of the same bytes could see different requests.
  withHeaders("Content-Length and Transfer-Encoding", length, "transfer-encoding: chunked"),
  withHeaders("Transfer-Encoding and Content-Length", "transfer-encoding: chunked", length),
  withHeaders("two Content-Lengths", length, `content-length: ${good.length - 1}`),
  withHeaders("the same Content-Length twice", length, length),
  withHeaders("a Content-Length that is a list", `content-length: ${good.length}, ${good.length}`),
  withHeaders("a negative Content-Length", "content-length: -1"),
  withHeaders("a signed Content-Length", `content-length: +${good.length}`),
  withHeaders("a hexadecimal Content-Length", `content-length: 0x${good.length.toString(16)}`),
  withHeaders("a Content-Length beyond all numbers", "content-length: 99999999999999999999999999"),
  withHeaders("an unknown transfer coding last", "transfer-encoding: chunked, identity"),
  withHeaders("a space before a header's colon", "content-length : 5", length),
  withHeaders("a folded header", length, "x-folded: a\r\n b"),
  withHeaders("a header without a colon", length, "nonsense"),
  withHeaders("NUL in a header", length, "x-nul: a\u0000b"),
  withHeaders("a bare CR in a header", length, "x-cr: a\rb"),
  {
    name: "a chunk whose size is not a number",
    bytes: (token) => request(token, "zz\r\nabc\r\n0\r\n\r\n", ["transfer-encoding: chunked"]),
    statuses: [400]
  },
  {
    name: "a chunk that is longer than it says",
    bytes: (token) => request(token, `3\r\n${good}\r\n0\r\n\r\n`, ["transfer-encoding: chunked"]),
    statuses: [400]
  },
  {
    name: "an endless chunk extension",
    bytes: (token) =>
      request(token, `3;${"x".repeat(100_000)}\r\nabc\r\n0\r\n\r\n`, ["transfer-encoding: chunked"]),
    statuses: [400, 413]
  },
  // Floods. Who does not stop talking may lose the answer with its connection.
  {
    name: "5,000 headers",
    bytes: (token) =>
      request(token, good, [length, ...Array.from({ length: 5_000 }, (_, index) => `x-${index}: ${index}`)]),
    statuses: [431, 0]
  },
  {
    name: "a header of a mebibyte",
    bytes: (token) => request(token, good, [length, `x-large: ${"x".repeat(mebibyte)}`]),
    statuses: [431, 0]
  },
  { name: "a token of 100 KB", bytes: () => request("x".repeat(100_000), good), statuses: [431, 0] },
  withLine("a URL of 100 KB", `GET /${"x".repeat(100_000)} HTTP/1.1`, 431, 0),
  {
    name: "a gigabyte announced",
    bytes: (token) => request(token, good, ["content-length: 1073741824"]),
    statuses: [413]
  },
  {
    name: "16 MiB in chunks",
    bytes: (token) => [
      ...request(token, "", ["transfer-encoding: chunked"]),
      ...Array.from({ length: 256 }, () => `10000\r\n${"x".repeat(65_536)}\r\n`)
    ],
    statuses: [413, 0]
  },
  {
    name: "a bomb",
    bytes: (token) => {
      const packed = gzipSync(Buffer.alloc(32 * mebibyte, 0x20))
      return request(token, packed, ["content-encoding: gzip", `content-length: ${packed.length}`])
    },
    statuses: [415],
    keepsOpen: true
  },
  // Bodies.
  withBody(
    "200,000 members",
    `{${Array.from({ length: 200_000 }, (_, index) => `"k${index}":0`).join(",")}}`,
    413
  ),
  withBody(
    "80,000 members",
    `{${Array.from({ length: 80_000 }, (_, index) => `"k${index}":0`).join(",")}}`,
    400
  ),
  withBody("a million elements", `{"orderId":"hostile","items":[${"0,".repeat(999_999)}0]}`, 413),
  withBody("400,000 elements", `{"orderId":"hostile","items":[${"0,".repeat(399_999)}0]}`, 400),
  withBody(
    "100,000 levels",
    `{"orderId":"hostile","items":${"[".repeat(100_000)}${"]".repeat(100_000)}}`,
    400
  ),
  withBody("100,000 levels of objects", `${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`, 400),
  withBody("NUL in an id", good.replace("hostile", "hos\\u0000tile"), 400),
  withBody("a raw NUL", good.replace("hostile", "hos\u0000tile"), 400),
  withBody("a lone surrogate", good.replace("hostile", "hos\\ud800tile"), 400),
  withBody("bytes that are not UTF-8", Buffer.from(good.replace("hostile", "hos\u00fftile"), "latin1"), 400),
  withBody("a name twice", good.replace("{", '{"orderId":"other",'), 400),
  withBody("a number beyond all numbers", good.replace(":1}", ":1e400}"), 400),
  withBody("nothing", "", 400),
  // Requests that are none.
  withLine("TRACE", `TRACE ${reserve} HTTP/1.1`, 405),
  withLine("CONNECT", "CONNECT localhost:22 HTTP/1.1", 400, 404, 405, 0),
  withLine("a method that is none", `RESERVE ${reserve} HTTP/1.1`, 400),
  withLine("HTTP/3", `GET ${reserve} HTTP/3.0`, 400),
  withLine("HTTP/0.9", `GET ${reserve}`, 400, 404),
  withLine("an encoded slash", "GET /api/v1/inventory/cup%2Fledger HTTP/1.1", 404),
  withLine("dots that lead out", "GET /api/v1/inventory/..%2f..%2fetc%2fpasswd HTTP/1.1", 404),
  withLine("dots that are not encoded", "GET /api/v1/inventory/../../../etc/passwd HTTP/1.1", 404),
  withLine("an encoded NUL", "GET /api/v1/inventory/cup%00 HTTP/1.1", 400, 404),
  withLine("an escape that is none", "GET /api/v1/inventory/%zz HTTP/1.1", 400, 404),
  withLine("an escape that is not UTF-8", "GET /api/v1/inventory/%ff%fe HTTP/1.1", 400, 404),
  withLine("another host's URL", "GET http://169.254.169.254/latest/meta-data HTTP/1.1", 404),
  withLine(
    "a list of too many ids",
    `GET /api/v1/inventory?productVariantIds=${"a,".repeat(500)}a HTTP/1.1`,
    400
  ),
  {
    name: "no Host",
    bytes: () => [`GET ${reserve} HTTP/1.1\r\n\r\n`],
    statuses: [400]
  },
  {
    name: "two Hosts",
    bytes: () => [`GET ${reserve} HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n`],
    statuses: [400, 401, 404, 405],
    keepsOpen: true
  },
  {
    name: "an expectation that is none",
    bytes: (token) => request(token, good, [length, "expect: miracles"]),
    statuses: [417],
    keepsOpen: true
  },
  {
    name: "an upgrade to something else",
    bytes: () => [
      `GET ${reserve} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`
    ],
    statuses: [400, 401, 404, 405, 426, 0],
    keepsOpen: true
  },
  {
    name: "TLS",
    bytes: () => [Buffer.from("16030100c8010000c40303", "hex"), Buffer.alloc(200, 7)],
    statuses: [400]
  },
  {
    name: "another protocol",
    bytes: () => ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    statuses: [400, 404, 405, 505, 0]
  },
  {
    name: "a request behind one that is cut off",
    bytes: (token) => [
      ...request(token, chunked.slice(0, -5), ["transfer-encoding: chunked"]),
      "\r\nGET / HTTP/1.1\r\n"
    ],
    statuses: [400]
  }
]

/** An attack whose bytes are made: what that costs is not the service's. */
interface Prepared extends Omit<Attack, "bytes"> {
  readonly bytes: ReadonlyArray<Buffer>
}

const prepare = (token: string): ReadonlyArray<Prepared> =>
  attacks.map((attack) => ({
    ...attack,
    bytes: attack.bytes(token).map((piece) => Buffer.from(piece as string))
  }))

/** Says its bytes and listens until the connection ends, or until it is answered where it may go on. */
const commit = async (port: number, { bytes, keepsOpen, name }: Prepared): Promise<ReadonlyArray<number>> => {
  const socket = await opened(port)
  const statuses: Array<number> = []
  socket.on(
    "data",
    answersOf((status) => {
      // The end of an answer in chunks is read as one more.
      if (status > 0) statuses.push(status)
      if (keepsOpen === true) socket.end()
    })
  )
  const silent = setTimeout(() => socket.destroy(), silenceMsMax)
  const since = performance.now()
  // Not by `once`: a connection that is reset is closed, too.
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()))
  for (const piece of bytes) {
    if (socket.destroyed) break
    if (!socket.write(piece))
      await Promise.race([new Promise((resolve) => socket.once("drain", resolve)), closed])
  }
  await closed
  clearTimeout(silent)
  assert.isBelow(performance.now() - since, silenceMsMax, `${name}: neither answered nor closed`)
  return statuses
}

const holds = ({ alone, beside }: { readonly alone: number; readonly beside: number }): boolean =>
  beside < Math.max(p99MsMax, p99TimesMax * alone)

/** Linux counts in hundredths of a second (CLK_TCK). */
const processorMsOf = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ")
  return (Number(fields[11]) + Number(fields[12])) * 10
}

describe("hostile requests", () => {
  it.live("are refused with a 4xx or closed, change nothing, and harm nobody who behaves", () =>
    withServices(1, ([service], { sql }) =>
      Effect.gen(function* () {
        const { pid, port } = service!
        const shop = yield* stocked(service!)
        const prepared = prepare(shop.token)
        const rows = sql.run(everything)
        const before = yield* rows

        // One after the other: each does what is said of it.
        const seen = new Map<string, Set<number>>()
        for (const attack of prepared) {
          const statuses = yield* Effect.promise(() => commit(port, attack))
          seen.set(attack.name, new Set(statuses.length === 0 ? [0] : statuses))
        }
        const wrong = attacks.flatMap(({ name, statuses }) =>
          [...seen.get(name)!]
            .filter((status) => !statuses.includes(status))
            .map((status) => `${name}: ${status}`)
        )
        assert.deepStrictEqual(wrong, [])
        assert.deepStrictEqual(yield* rows, before)

        // All of them again, several at once, beside a client that behaves.
        let orders = 0
        const behave = (sample: Array<number>) =>
          Effect.gen(function* () {
            const since = performance.now()
            const answer = yield* shop.reserve(`good-${orders++}`, [["cup", 1]])
            assert.strictEqual(answer.status, 201, answer.text)
            sample.push(performance.now() - since)
            yield* Effect.sleep("5 millis")
          })
        const memory = [residentMb(pid)]
        const rounds: Array<{ alone: number; beside: number; attacks: number }> = []
        const spent: Array<number> = []
        while (rounds.length < roundsMax && !rounds.some(holds)) {
          const alone: Array<number> = []
          for (let index = 0; index < samples; index++) yield* behave(alone)
          const beside: Array<number> = []
          let committed = 0
          const cpuBefore = processorMsOf(pid)
          const attacker = (from: number) =>
            Effect.gen(function* () {
              for (let index = from; beside.length < samples; index++) {
                const attack = prepared[index % prepared.length]!
                for (const status of yield* Effect.promise(() => commit(port, attack))) {
                  assert.include(attack.statuses, status, attack.name)
                }
                committed += 1
              }
            })
          const attacking = yield* Effect.forEach(Array.from({ length: attackers }), (_, number) =>
            Effect.forkChild(attacker(Math.floor((number * prepared.length) / attackers)))
          )
          while (beside.length < samples) yield* behave(beside)
          yield* Effect.forEach(attacking, Fiber.join)
          spent.push((processorMsOf(pid) - cpuBefore) / (committed + samples))
          rounds.push({
            alone: percentile(alone, 0.99),
            beside: percentile(beside, 0.99),
            attacks: committed
          })
          memory.push(residentMb(pid))
        }
        report("hostile requests", { kinds: attacks.length, rounds, processorMsPerRequest: spent, memory })
        assert.isTrue(rounds.some(holds), JSON.stringify(rounds))
        for (const { attacks: committed } of rounds) assert.isAtLeast(committed, attacks.length)
        // However busy the machine is: none takes the service long.
        assert.isBelow(Math.max(...spent), processorMsMax)
        assert.notInclude(service!.stdout(), "level=ERROR")
        const others = yield* sql.run<{ count: number }>(
          "SELECT count(*) AS count FROM reservation WHERE order_id NOT LIKE 'good-%'"
        )
        assert.deepStrictEqual(others, [{ count: 0 }])
      })
    )
  )
})

const everything = `
  SELECT
    (SELECT count(*) FROM reservation) AS reservations,
    (SELECT count(*) FROM inventory_ledger) AS movements,
    (SELECT count(*) FROM tracking) AS tracking,
    (SELECT count(*) FROM idempotency) AS keys,
    (SELECT count(*) FROM item) AS items,
    (SELECT sum(on_hand + 3 * reserved + 7 * unallocatable) FROM stock) AS balances`
