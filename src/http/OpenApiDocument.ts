import { Context, Option, Schema, SchemaAST } from "effect"
import { type HttpApiEndpoint, OpenApi } from "effect/http-api"
import { createRequire } from "node:module"
import { Api } from "./contract/Api.ts"
import { ExampleCall, RequiredPermission } from "./contract/Contract.ts"
import { examplesOfFields, examplesOfSchemas } from "./exampleValues.ts"
import { introduction } from "./introduction.ts"

/**
 * The contract as OpenAPI 3.1 for programs that make clients of it: what `HttpApi` writes, with what it has no place for.
 * Everything here is made from the contract, so that a new call needs nothing in this file.
 */

// Outside of what is compiled: the same file beside src and beside dist.
export const { version } = createRequire(import.meta.url)("../../package.json") as {
  readonly version: string
}

type Json = null | boolean | number | string | ReadonlyArray<Json> | JsonObject
interface JsonObject {
  readonly [name: string]: Json
}
type Schemas = Readonly<Record<string, JsonObject>>
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

const isObject = (value: Json | undefined): value is JsonObject =>
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
const nameOf = ({ $ref }: JsonObject): string | undefined =>
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
const withStableNames = (document: Document): Document => {
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
const withNamedBodies = (document: Document): Document => {
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

const mapOperations = (
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
const withOpenAnswers = (document: Document): Document => {
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

const endpointsByOperation: ReadonlyMap<string, HttpApiEndpoint.Top> = new Map(
  Object.values(Api.groups).flatMap((group) =>
    Object.values(group.endpoints as Record<string, HttpApiEndpoint.Top>).map(
      (endpoint) => [`${group.identifier}.${endpoint.identifier}`, endpoint] as const
    )
  )
)

/** What is declared beside an endpoint: its permission and its example. And what all calls have: headers. */
const withAnnotations = (document: Document): Document => {
  const { schemas } = document.components
  return {
    ...document,
    paths: mapOperations(document, (operation, method) => {
      const { annotations, params, query } = endpointsByOperation.get(operation.operationId)!
      const permission = Context.getUnsafe(annotations, RequiredPermission)
      const example = Option.getOrElse(
        Context.getOption(annotations, ExampleCall),
        () => ({}) as ExampleCall["Service"]
      )
      const description = [
        ...(typeof operation["description"] === "string" ? [operation["description"]] : []),
        `Needs the permission \`${permission}\`.`
      ].join("\n\n")
      const declared = new Map([...declaredOf(params), ...declaredOf(query)])
      const parameters = operation.parameters.map((parameter) => {
        const name = parameter["name"] as string
        return describedParameter(parameter, schemas, declared.get(name)!, example.params?.[name])
      })
      const changes = method === "post" || method === "patch"
      return {
        ...operation,
        description,
        parameters: changes
          ? [...parameters, { $ref: "#/components/parameters/IdempotencyKey" }]
          : parameters,
        security: [{ bearer: [permission] }],
        ...(isObject(operation["requestBody"]) && example.body !== undefined
          ? { requestBody: withExample(operation["requestBody"], example.body as Json) }
          : {}),
        responses: Object.fromEntries(
          Object.entries(operation.responses).map(([status, response]) => [
            status,
            { ...response, headers: headersOf(status, changes), description: descriptionOf(status, response) }
          ])
        )
      }
    })
  }
}

/** What is said of parameters where they are declared, which is the side that they are decoded to. */
const declaredOf = (schema: Schema.Constraint | undefined): ReadonlyMap<string, SchemaAST.AST> => {
  const ast = schema && SchemaAST.toType(schema.ast)
  return new Map(
    ast !== undefined && SchemaAST.isObjects(ast)
      ? ast.propertySignatures.map(({ name, type }) => [String(name), type])
      : []
  )
}

/**
 * Readers show the description and example of a parameter itself, not those of its schema. In a query everything is text,
 * so that `HttpApi` calls a number a string: clients are told that it is a number.
 */
const describedParameter = (
  parameter: JsonObject,
  schemas: Schemas,
  declared: SchemaAST.AST,
  given: unknown
): JsonObject => {
  const said = (SchemaAST.resolve(declared) ?? {}) as {
    readonly description?: string
    readonly examples?: ReadonlyArray<Json>
  }
  const encoded = parameter["schema"] as JsonObject
  const isNumber = SchemaAST.isNumber(declared) && encoded["type"] === "string"
  const {
    description,
    examples: _,
    ...schema
  } = isNumber ? (Schema.toJsonSchemaDocument(Schema.make(declared)).schema as JsonObject) : encoded
  const example = (given as Json | undefined) ?? said.examples?.[0]
  return {
    ...parameter,
    description: said.description ?? description ?? schemas[nameOf(schema) ?? ""]?.["description"] ?? null,
    ...(example === undefined ? {} : { example }),
    schema
  }
}

const withExample = (body: JsonObject, example: Json): JsonObject => ({
  ...body,
  content: Object.fromEntries(
    Object.entries(body["content"] as Readonly<Record<string, JsonObject>>).map(([type, media]) => [
      type,
      { ...media, example }
    ])
  )
})

const headersOf = (status: string, changes: boolean): JsonObject => ({
  "X-Request-Id": { $ref: "#/components/headers/RequestId" },
  ...(status.startsWith("2") && changes
    ? { "Idempotency-Replayed": { $ref: "#/components/headers/IdempotencyReplayed" } }
    : {}),
  ...(status === "503" || status === "429"
    ? { "Retry-After": { $ref: "#/components/headers/RetryAfter" } }
    : {})
})

/** `HttpApi` lists the names of the failures; their titles say more. */
const descriptionOf = (status: string, { content, description }: JsonObject): string => {
  if (status.startsWith("2"))
    return description === "Success" && status === "201" ? "Created" : String(description)
  const problem = (content as Readonly<Record<string, { readonly schema: JsonObject }>>)[
    "application/problem+json"
  ]!.schema
  const members = Array.isArray(problem["anyOf"])
    ? (problem["anyOf"] as ReadonlyArray<JsonObject>)
    : [problem]
  return members.map((member) => titlesByProblem.get(nameOf(member) ?? "") ?? "").join(", or ")
}
const titlesByProblem = new Map<string, string>()

const components: JsonObject = {
  parameters: {
    IdempotencyKey: {
      name: "Idempotency-Key",
      in: "header",
      required: false,
      description:
        "A name that you make up for this request, 1 to 255 printable ASCII characters. Sent again with the same key and body, the request has its effect once and is answered as the first time, with Idempotency-Replayed: true. Kept for 24 hours.",
      schema: { type: "string", minLength: 1, maxLength: 255, pattern: "^[\\x20-\\x7e]+$" }
    }
  },
  headers: {
    RequestId: {
      description: "The X-Request-Id of the request, or one that was made for it; the instance of a problem.",
      schema: { type: "string" }
    },
    IdempotencyReplayed: {
      description: "true: the answer to an earlier request with the same Idempotency-Key.",
      schema: { type: "string", enum: ["true"] }
    },
    RetryAfter: {
      description: "Seconds after which the same request may be sent again.",
      schema: { type: "integer", minimum: 0 }
    }
  },
  securitySchemes: {
    bearer: {
      type: "http",
      scheme: "bearer",
      bearerFormat: "JWT",
      description:
        "A JWT (ES256, RS256 or EdDSA) with the claims sub, merchant_id, scope or roles, exp, iss, aud. The permission that is named beside each operation must be in scope, or follow from one of the roles; admin includes every permission of its merchant."
    }
  }
}

/** What stands for "anything else", which is read only to be refused in its own row, is no part of a contract. */
const withoutAnything = (document: Document): Document =>
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

const withExampleValues = (document: Document): Document => {
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

const documentOf = (spec: Document): Document => {
  for (const [name, schema] of Object.entries(spec.components.schemas)) {
    titlesByProblem.set(name, String(schema["description"]))
  }
  const named = withNamedBodies(withStableNames(withoutAnything(spec)))
  const finished = withExampleValues(withAnnotations(withOpenAnswers(named)))
  return {
    ...finished,
    info: {
      ...finished.info,
      version,
      description: introduction,
      license: { name: "Apache License 2.0", identifier: "Apache-2.0" }
    },
    servers: [{ url: "/", description: "The service that this document comes from" }],
    components: { ...components, ...finished.components, securitySchemes: components["securitySchemes"]! }
  } as unknown as Document
}

/** Made when it is first asked for: a tenth of a second that no start has to wait for. */
export const openApi = (): Document => (made ??= documentOf(OpenApi.fromApi(Api) as unknown as Document))
let made: Document | undefined
