import { openApi } from "../../src/http/OpenApiDocument.ts"
import { problemCodes } from "../../src/http/contract/ProblemCodes.ts"

/** `src/client/operations.ts`: the calls of the contract and the types of what they take and answer, as TypeScript. */

interface JsonSchema {
  readonly $ref?: string
  readonly type?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly anyOf?: ReadonlyArray<JsonSchema>
  readonly items?: JsonSchema
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: ReadonlyArray<string>
  readonly additionalProperties?: JsonSchema | boolean
  readonly description?: string
}

const comment = (text: string | undefined): string =>
  text === undefined ? "" : `/** ${text.replaceAll("*/", "* /").replace(/\s*\n+\s*/g, " ")} */\n`

const sentences = (summary: string, description = ""): string =>
  `${/[.?!]$/.test(summary) ? summary : `${summary}.`} ${description}`

const typeOf = (schema: JsonSchema): string => {
  if (schema.$ref !== undefined) return schema.$ref.split("/").at(-1)!
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" | ")
  if (schema.anyOf !== undefined) return [...new Set(schema.anyOf.map(typeOf))].join(" | ")
  switch (schema.type) {
    case "string":
    case "boolean":
    case "null":
      return schema.type
    case "integer":
    case "number":
      return "number"
    case "array":
      return `ReadonlyArray<${typeOf(schema.items ?? {})}>`
    case "object":
      return schema.properties === undefined
        ? `{ readonly [name: string]: ${typeof schema.additionalProperties === "object" ? typeOf(schema.additionalProperties) : "unknown"} }`
        : fieldsOf(schema.properties, schema.required ?? [])
    default:
      return "unknown"
  }
}

const fieldsOf = (
  properties: Readonly<Record<string, JsonSchema>>,
  required: ReadonlyArray<string>
): string => {
  const fields = Object.entries(properties).map(
    ([name, schema]) =>
      `${comment(schema.description)}readonly ${name}${required.includes(name) ? "" : "?"}: ${typeOf(schema)}`
  )
  return `{\n${fields.join("\n")}\n}`
}

interface Described {
  readonly description?: string
  readonly summary: string
  readonly operationId: string
  readonly parameters: ReadonlyArray<{
    readonly name: string
    readonly in: string
    readonly required: boolean
    readonly description: string
    readonly schema: JsonSchema
  }>
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: JsonSchema }>> }
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: JsonSchema }>> }>
  >
}

/** What a call takes: its parameters, and the fields of its body, whose names must differ. */
const inputOf = ({ parameters, requestBody }: Described, schemas: Readonly<Record<string, JsonSchema>>) => {
  const own = parameters.filter(({ in: place }) => place === "path" || place === "query")
  const body = requestBody?.content["application/json"]!.schema
  const clash = Object.keys((body && schemas[typeOf(body)]?.properties) ?? {}).find((name) =>
    own.some((parameter) => parameter.name === name)
  )
  if (clash !== undefined) throw new Error(`${clash} is a parameter and a field of the body`)
  const fields = Object.fromEntries(
    own.map(({ description, name, schema }) => [name, { ...schema, description }])
  )
  const required = own.filter((parameter) => parameter.required).map(({ name }) => name)
  const parts = [
    ...(own.length === 0 ? [] : [fieldsOf(fields, required)]),
    ...(body === undefined ? [] : [typeOf(body)])
  ]
  return {
    type: parts.length === 0 ? "{}" : parts.join(" & "),
    isOptional: body === undefined && required.length === 0
  }
}

export const clientSource = (): string => {
  const document = JSON.parse(JSON.stringify(openApi())) as {
    readonly paths: Readonly<Record<string, Readonly<Record<string, Described>>>>
    readonly components: { readonly schemas: Readonly<Record<string, JsonSchema>> }
  }
  const { schemas } = document.components
  const calls = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => {
      const [group, name] = operation.operationId.split(".") as [string, string]
      const answers = Object.entries(operation.responses).flatMap(([status, { content }]) =>
        status.startsWith("2") ? [typeOf(content!["application/json"]!.schema)] : []
      )
      const input = inputOf(operation, schemas)
      return {
        group,
        name,
        route: `${name}: ["${method.toUpperCase()}", "${path}"]`,
        signature: `${comment(sentences(operation.summary, operation.description))}readonly ${name}: (input${input.isOptional ? "?" : ""}: ${input.type}, options?: CallOptions) => Promise<${[...new Set(answers)].join(" | ")}>`
      }
    })
  )
  const groups = Map.groupBy(calls, ({ group }) => group)
  return `import type { CallOptions } from "./CallOptions.ts"

/** Made from the contract by "npm run generate": the calls, and the types of what they take and answer. */

export const operations = {
${[...groups].map(([group, members]) => `${group}: {\n${members.map(({ route }) => route).join(",\n")}\n}`).join(",\n")}
} as const satisfies Readonly<Record<string, Readonly<Record<string, readonly [method: string, path: string]>>>>

export interface Client {
${[...groups].map(([group, members]) => `readonly ${group}: {\n${members.map(({ signature }) => signature).join("\n")}\n}`).join("\n")}
}

/** The codes that problems have today; later versions may add some. */
export type ProblemCode = ${Object.keys(problemCodes)
    .map((code) => `"${code}"`)
    .join(" | ")}

${Object.entries(schemas)
  .map(([name, schema]) => `${comment(schema.description)}export type ${name} = ${typeOf(schema)}`)
  .join("\n\n")}
`
}
