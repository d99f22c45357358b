import { examplesOfFields, examplesOfSchemas } from "./exampleValues.ts"

/** The schemas of an OpenAPI document, as those who generate clients from it need them: named, open, with examples. */

export type Json = null | boolean | number | string | ReadonlyArray<Json> | JsonObject
export interface JsonObject {
  readonly [name: string]: Json
}
export type Schemas = Readonly<Record<string, JsonObject>>
export interface Operation extends JsonObject {
  readonly operationId: string
  readonly summary: string
  readonly security: ReadonlyArray<{ readonly bearer: ReadonlyArray<string> }>
  readonly parameters: ReadonlyArray<JsonObject>
  readonly responses: Readonly<Record<string, JsonObject>>
}
export interface Document extends JsonObject {
  readonly info: JsonObject
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Schemas }
}

export const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The value with each object in it replaced, inner ones first. */
const mapObjects = (value: Json, change: (object: JsonObject) => Json): Json => {
  if (Array.isArray(value)) return value.map((element: Json) => mapObjects(element, change))
  if (!isObject(value)) return value
  return change(
    Object.fromEntries(Object.entries(value).map(([name, field]) => [name, mapObjects(field, change)]))
  )
}

const refPrefix = "#/components/schemas/"
const refOf = (name: string): JsonObject => ({ $ref: `${refPrefix}${name}` })
export const nameOf = ({ $ref }: JsonObject): string | undefined =>
  typeof $ref === "string" ? $ref.slice(refPrefix.length) : undefined

/** Without the number that `HttpApi` adds to the second one of a name. */
const baseOf = (name: string): string => name.replace(/_\d+$/, "")

const annotationNames = new Set(["description", "title", "examples", "default"])
const split = (schema: JsonObject, isWanted: (name: string) => boolean): JsonObject =>
  Object.fromEntries(Object.entries(schema).filter(([name]) => isWanted(name)))
const annotationsOf = (schema: JsonObject) => split(schema, (name) => annotationNames.has(name))
const shapeOf = (schema: JsonObject) => JSON.stringify(split(schema, (name) => !annotationNames.has(name)))

/**
 * Schemas that differ in nothing but their description have one name. `HttpApi` numbers them in the order in which it
 * meets them, so that a new call would rename the types of every generated client.
 */
export const withStableNames = (document: Document): Document => {
  const { schemas } = document.components
  const uses = Map.groupBy(
    JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g),
    ([, name]) => name!
  )
  const usesOf = (name: string): number => uses.get(name)?.length ?? 0
  const kept = new Map<string, string>()
  for (const name of Object.keys(schemas)) {
    const base = baseOf(name)
    const other = kept.get(base)
    if (other !== undefined && shapeOf(schemas[other]!) !== shapeOf(schemas[name]!)) {
      throw new Error(`two schemas that differ have the identifier ${base}: give one of them another`)
    }
    // Which description is the common one: the one of most places, and the first of several.
    if (other === undefined || usesOf(name) > usesOf(other)) kept.set(base, name)
  }
  const renamed = mapObjects(document, (object) => {
    const name = nameOf(object)
    if (name === undefined) return object
    const base = baseOf(name)
    return kept.get(base) === name ? refOf(base) : { ...refOf(base), ...annotationsOf(schemas[name]!) }
  }) as Document
  const named = [...kept]
    .map(([base, name]) => [base, renamed.components.schemas[name]!] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  return { ...renamed, components: { ...renamed.components, schemas: Object.fromEntries(named) } }
}

const capitalized = (text: string): string =>
  text
    .split(/[^A-Za-z0-9]/)
    .map((word) => `${word.slice(0, 1).toUpperCase()}${word.slice(1)}`)
    .join("")

/** Bodies and answers that have no name of their own are named after their operation. */
export const withNamedBodies = (document: Document): Document => {
  const schemas: Record<string, JsonObject> = { ...document.components.schemas }
  const named = (name: string, content: JsonObject): JsonObject =>
    Object.fromEntries(
      Object.entries(content as Readonly<Record<string, { readonly schema: JsonObject }>>).map(
        ([type, media]) => {
          if (type !== "application/json" || nameOf(media.schema) !== undefined) return [type, media]
          const other = schemas[name]
          if (other !== undefined && shapeOf(other) !== shapeOf(media.schema)) {
            throw new Error(`two answers that differ would be named ${name}: give them identifiers`)
          }
          schemas[name] = other ?? media.schema
          return [type, { ...media, schema: refOf(name) }]
        }
      )
    )
  const paths = mapOperations(document, (operation) => {
    const name = capitalized(operation.operationId)
    const { requestBody } = operation
    const withContent = (part: Json | undefined, suffix: string): JsonObject =>
      isObject(part) && isObject(part["content"])
        ? { ...part, content: named(`${name}${suffix}`, part["content"]) }
        : (part as JsonObject)
    return {
      ...operation,
      ...(requestBody === undefined ? {} : { requestBody: withContent(requestBody, "Body") }),
      responses: Object.fromEntries(
        Object.entries(operation.responses).map(([status, response]) => [
          status,
          withContent(response, "Answer")
        ])
      )
    }
  })
  return { ...document, paths, components: { ...document.components, schemas } }
}

export const mapOperations = (
  { paths }: Document,
  change: (operation: Operation, method: string, path: string) => Operation
): Document["paths"] =>
  Object.fromEntries(
    Object.entries(paths).map(([path, operations]) => [
      path,
      Object.fromEntries(
        Object.entries(operations).map(([method, operation]) => [method, change(operation, method, path)])
      )
    ])
  )

/**
 * Answers gain fields over time, so that a client must take those that it does not know (CONTRACTS section 2). Bodies
 * stay closed: a field that is not known is refused.
 */
export const withOpenAnswers = (document: Document): Document => {
  const { schemas } = document.components
  const answered = new Set<string>()
  const visit = (value: Json): void => {
    for (const name of namesIn(value)) {
      if (answered.has(name)) continue
      answered.add(name)
      visit(schemas[name]!)
    }
  }
  const paths = mapOperations(document, (operation) => {
    visit(operation.responses)
    return { ...operation, responses: open(operation.responses) as Operation["responses"] }
  })
  return {
    ...document,
    paths,
    components: {
      ...document.components,
      schemas: Object.fromEntries(
        Object.entries(schemas).map(([name, schema]) => [
          name,
          answered.has(name) ? (open(schema) as JsonObject) : schema
        ])
      )
    }
  }
}

const open = (value: Json): Json =>
  mapObjects(value, ({ additionalProperties, ...object }) =>
    additionalProperties === undefined || additionalProperties === false
      ? object
      : { ...object, additionalProperties }
  )
const namesIn = (value: Json): ReadonlyArray<string> =>
  [...JSON.stringify(value).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name!)

/** What stands for "anything else", which is read only to be refused in its own row, is no part of a contract. */
export const withoutAnything = (document: Document): Document =>
  mapObjects(document, (object) =>
    Array.isArray(object["anyOf"])
      ? {
          ...object,
          anyOf: (object["anyOf"] as ReadonlyArray<JsonObject>).filter(
            (member) => Object.keys(annotationsOf(member)).length < Object.keys(member).length
          )
        }
      : object
  ) as Document

export const withExampleValues = (document: Document): Document => {
  const shown = mapObjects(document, (object) => {
    const { properties } = object
    if (object["type"] !== "object" || !isObject(properties)) return object
    const fields = Object.entries(properties).map(([name, schema]) => [
      name,
      // A field of another kind may have the same name.
      name in examplesOfFields && isObject(schema) && isOfText(schema) && schema["examples"] === undefined
        ? { ...schema, examples: [examplesOfFields[name]!] }
        : schema
    ])
    return { ...object, properties: Object.fromEntries(fields) as JsonObject }
  }) as Document
  const schemas = Object.entries(shown.components.schemas).map(([name, schema]) => [
    name,
    name in examplesOfSchemas ? { ...schema, examples: [examplesOfSchemas[name]!] } : schema
  ])
  return { ...shown, components: { ...shown.components, schemas: Object.fromEntries(schemas) as Schemas } }
}

const isOfText = (schema: JsonObject): boolean => {
  const { anyOf } = schema
  return Array.isArray(anyOf)
    ? anyOf.some((member: JsonObject) => isOfText(member))
    : schema["type"] === "string" || typeof examplesOfSchemas[nameOf(schema) ?? ""] === "string"
}
