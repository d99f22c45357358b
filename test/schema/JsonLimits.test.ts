import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { checkJson, jsonDepthMax } from "../../src/schema/JsonLimits.ts"

// Goal: what the parser would take in silence is refused, and nothing that is right. Method: objects that fast-check
// makes, written by JSON.stringify in several forms, and the same with one name written twice.

const nested = (depth: number): string => `${'{"a":['.repeat(depth / 2)}${"]}".repeat(depth / 2)}`

const list = (length: number): string => JSON.stringify(Array.from({ length }, () => [1, 2, 3]))
const members = (length: number): string => Array.from({ length }, (_, index) => `"k${index}":0`).join(",")

/** The name, written with an escape for every character. */
const escaped = (name: string): string =>
  `"${[...Array(name.length).keys()]
    .map((index) => `\\u${name.charCodeAt(index).toString(16).padStart(4, "0")}`)
    .join("")}"`

describe("checkJson", () => {
  it("takes every object that JSON.stringify can write", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 6 })), fc.nat(4), (object, indent) => {
        assert.isUndefined(checkJson(JSON.stringify(object, undefined, indent)))
      })
    )
  })

  it("refuses a name that is there twice, at any depth and however it is written", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { minKeys: 1, maxKeys: 40 }),
        fc.nat(10),
        fc.boolean(),
        (object, depth, asEscapes) => {
          const names = Object.keys(object)
          const again = asEscapes ? escaped(names[0]!) : JSON.stringify(names[0])
          const twice = `${JSON.stringify(object).slice(0, -1)},${again}:1}`
          const text = `${'{"outer":['.repeat(depth)}${twice}${"]}".repeat(depth)}`
          assert.match(checkJson(text)!, /two members of the same name/)
        }
      )
    )
  })

  it("takes the same name in different objects, and in text", () => {
    for (const text of [
      '{"a":{"a":[{"a":1},{"a":2}]},"b":"a"}',
      '{"a":["a","a"],"b":["b"]}',
      '{"a":"\\"a\\":1,\\"a\\":2"}',
      '{"a\\"":1,"a":2,"a\\\\":3}'
    ]) {
      assert.isUndefined(checkJson(text), text)
    }
  })

  it("refuses what is nested deeper than the limit", () => {
    assert.isUndefined(checkJson(nested(jsonDepthMax)))
    assert.match(checkJson(nested(jsonDepthMax + 2))!, /nested deeper/)
  })

  it("refuses an object with more members than it is told, and such a list where the outermost object has it", () => {
    for (const text of [
      `{"a":${list(50)}}`,
      `{"a":${list(30)},"b":${list(50)}}`,
      `{"a":{"b":${list(60)}}}`,
      `{"a":[${list(60)}]}`,
      `{${members(50)}}`,
      `{"a":{${members(50)}},"b":{${members(50)}}}`
    ]) {
      assert.isUndefined(checkJson(text, 50), text)
      assert.isUndefined(checkJson(text))
    }
    for (const text of [
      `{"a":${list(51)}}`,
      `{"a":${list(30)},"b":${list(51)}}`,
      `{"a":[${",".repeat(50)}]}`,
      `{${members(51)}}`,
      `{"a":[[{${members(51)}}]]}`
    ]) {
      assert.match(checkJson(text, 50)!, /more than 50 entries/, text)
      assert.isUndefined(checkJson(text))
    }
  })

  it("refuses what is not an object", () => {
    for (const text of ["", " ", "[]", "1", '"{}"', "null", "x"])
      assert.match(checkJson(text)!, /JSON object/)
  })

  it("leaves what is merely broken to the parser, whatever it is", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (tail) => {
        checkJson(`{${tail}`)
      })
    )
  })
})
