import { assert, describe, it } from "@effect/vitest"
import { Ajv } from "ajv"
import addFormats from "ajv-formats"
import { createRequire } from "node:module"
import { topics } from "../../src/consumers/topics.ts"
import { asyncApi } from "../../src/http/AsyncApi.ts"
import { receivedTopics } from "../../src/schema/Topic.ts"

/** The document of messages: what AsyncAPI says that one must be, and what the program does. */

const load = createRequire(import.meta.url)
type Pointed = Readonly<Record<string, unknown>>

describe("/asyncapi.json", () => {
  it("is valid against the schema that AsyncAPI publishes", () => {
    // The published schema brings the schema of schemas along.
    const ajv = new Ajv({ allErrors: true, strict: false, meta: false, validateSchema: false })
    addFormats.default(ajv)
    const validate = ajv.compile(load("@asyncapi/specs/schemas/3.0.0.json") as object)
    validate(asyncApi)
    assert.deepStrictEqual(validate.errors ?? [], [])
    // A check that cannot fail would prove nothing.
    assert.isFalse(validate({ ...asyncApi, channels: { broken: { address: 7 } } }))
  })

  it("has every topic that is consumed, and no other", () => {
    assert.sameMembers(
      receivedTopics.map(({ topic }) => topic),
      topics.map(({ topic }) => topic)
    )
  })

  it("has no reference that leads nowhere", () => {
    const references: Array<string> = []
    const visit = (value: unknown): void => {
      if (typeof value !== "object" || value === null) return
      for (const [name, member] of Object.entries(value)) {
        if (name === "$ref") references.push(String(member))
        else visit(member)
      }
    }
    visit(asyncApi)
    assert.isAbove(references.length, 50)
    for (const reference of references) {
      let at: unknown = asyncApi
      for (const part of reference.replace(/^#\//, "").split("/")) at = (at as Pointed | undefined)?.[part]
      assert.isObject(at, reference)
    }
  })
})
