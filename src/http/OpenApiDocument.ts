import { Context, Option, Schema, SchemaAST } from "effect"
import { type HttpApiEndpoint, OpenApi } from "effect/http-api"
import { createRequire } from "node:module"
import { Api } from "./contract/Api.ts"
import { ExampleCall, RequiredPermission } from "./contract/Contract.ts"
import { introduction } from "./introduction.ts"
import {
  type Document,
  type Json,
  type JsonObject,
  type Schemas,
  isObject,
  mapOperations,
  nameOf,
  withExampleValues,
  withNamedBodies,
  withOpenAnswers,
  withStableNames,
  withoutAnything
} from "./openApiSchemas.ts"

/**
 * The contract as OpenAPI 3.1 for programs that make clients of it: what `HttpApi` writes, with what it has no place for.
 * Everything here is made from the contract, so that a new call needs nothing in this file.
 */

// Outside of what is compiled: the same file beside src and beside dist.
export const { version } = createRequire(import.meta.url)("../../package.json") as {
  readonly version: string
}

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
            {
              ...response,
              headers: headersOf(status, changes),
              description: descriptionOf(status, response, schemas)
            }
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
const descriptionOf = (status: string, { content, description }: JsonObject, schemas: Schemas): string => {
  if (status.startsWith("2"))
    return description === "Success" && status === "201" ? "Created" : String(description)
  const problem = (content as Readonly<Record<string, { readonly schema: JsonObject }>>)[
    "application/problem+json"
  ]!.schema
  const members = Array.isArray(problem["anyOf"])
    ? (problem["anyOf"] as ReadonlyArray<JsonObject>)
    : [problem]
  return members.map((member) => String(schemas[nameOf(member) ?? ""]?.["description"])).join(", or ")
}

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

const documentOf = (spec: Document): Document => {
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
