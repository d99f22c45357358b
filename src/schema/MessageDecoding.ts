import { Result, Schema } from "effect"
import { hash } from "node:crypto"
import { OutsideId } from "./Identifier.ts"
import { checkJson } from "./JsonLimits.ts"
import { formatIssues } from "./Validation.ts"

/**
 * Decoding of a message before any operation is called (CONTRACTS section 5): its JSON, its merchant and its identity.
 * Decoding the same message again fails again, so each failure is the reason of a dead letter.
 */

/** Why a message became a dead letter. `detail` is for a person: it names fields and shows no values. */
export interface DeadLetterReason {
  readonly code: string
  readonly detail: string
}

/** The parts of a message that are decoded. */
export interface EncodedMessage {
  readonly key: string | null
  readonly headers: Readonly<Record<string, string>>
  /** `null` is a tombstone. */
  readonly value: Uint8Array | null
}

/** A longer value is not parsed: every payload of the contract fits many times. */
export const valueBytesMax = 1024 * 1024

export interface Defaults {
  /** DEFAULT_MERCHANT_ID: the merchant of a message that names none. */
  readonly merchantId: string | undefined
}

export type Decoded<A> = Result.Result<A, DeadLetterReason>
export type JsonObject = Readonly<Record<string, unknown>>

const failed = (code: string, detail: string): Decoded<never> => Result.fail({ code, detail })

const utf8 = new TextDecoder("utf-8", { fatal: true })
const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))
/** Whole numbers past 2^53−1 as their own text: the parser would round them, and they may be ids. */
const decodeExactJson = Schema.decodeUnknownResult(
  Schema.fromJsonString(Schema.Unknown, {
    reviver: ((_: string, value: unknown, context?: { readonly source?: string }) =>
      typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
        ? context!.source
        : value) as never
  })
)

/** The JSON object in the value of a message. */
export const decodeObject = (value: Uint8Array | null): Decoded<JsonObject> =>
  decodeObjectWith(value, decodeJson)

/** The same without rounding: for change records, whose ids may be numbers. */
export const decodeExactObject = (value: Uint8Array | null): Decoded<JsonObject> =>
  decodeObjectWith(value, decodeExactJson)

const decodeObjectWith = (value: Uint8Array | null, decode: typeof decodeJson): Decoded<JsonObject> => {
  if (value === null || value.byteLength === 0) return failed("EMPTY", "there is no value")
  if (value.byteLength > valueBytesMax) {
    return failed("TOO_LARGE", `${value.byteLength} bytes are more than ${valueBytesMax}`)
  }
  let text: string
  try {
    text = utf8.decode(value)
  } catch {
    return failed("NOT_JSON", "is not UTF-8")
  }
  const defect = checkJson(text)
  if (defect !== undefined) return failed("NOT_JSON", defect)
  return Result.mapError(decode(text), () => ({
    code: "NOT_JSON",
    detail: "is not JSON"
  })) as Decoded<JsonObject>
}

const own = (object: JsonObject, name: string): unknown =>
  Object.hasOwn(object, name) ? object[name] : undefined
export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/**
 * The payload: the object itself, or its `data`. A producer may use an envelope or not, and an unrelated field named
 * `data` does not count as one.
 */
export const payloadOf = <A>(
  body: JsonObject,
  decode: (value: unknown) => Result.Result<A, Schema.SchemaError>
): Decoded<A> => {
  const plain = decode(body)
  const data = own(body, "data")
  const decoded = Result.isFailure(plain) && isObject(data) ? decode(data) : plain
  return Result.mapError(decoded, (error) => invalid(error))
}

const issuesShownMax = 10

/** Each bad field with its defect. `under` is the path of the object that holds the fields. */
export const invalid = (error: Schema.SchemaError, under?: string): DeadLetterReason => {
  const { issues } = formatIssues(error.issue)
  const shown = issues.slice(0, issuesShownMax).map(({ message, path }) => {
    const at = [...(under === undefined ? [] : [under]), ...(path ?? [])]
      .map((part) => String(typeof part === "object" ? part.key : part))
      .join(".")
    return at === "" ? message : `${at} ${message}`
  })
  const more = issues.length - shown.length
  return { code: "INVALID", detail: [...shown, ...(more > 0 ? [`and ${more} more`] : [])].join("; ") }
}

const isMerchantId = Schema.is(OutsideId)

/** `merchantId` at the top level or in `data`, or the header. Two different merchants are refused. */
export const merchantOf = (
  body: JsonObject,
  { headers }: EncodedMessage,
  defaults: Defaults
): Decoded<string> => {
  const data = own(body, "data")
  return resolveMerchant(
    [own(body, "merchantId"), isObject(data) ? own(data, "merchantId") : undefined, headers["x-merchant-id"]],
    defaults
  )
}

/** The one merchant that is named, or the default. */
export const resolveMerchant = (named: ReadonlyArray<unknown>, defaults: Defaults): Decoded<string> => {
  const candidates = [...new Set(named.filter((value) => value !== undefined && value !== null))]
  if (candidates.length > 1) return failed("MERCHANT_UNRESOLVED", "names merchants that differ")
  const merchantId = candidates[0] ?? defaults.merchantId
  if (merchantId === undefined)
    return failed("MERCHANT_UNRESOLVED", "names no merchant, and there is no default")
  return isMerchantId(merchantId)
    ? Result.succeed(merchantId)
    : failed("MERCHANT_UNRESOLVED", "merchantId is not an id (text of 1 to 128 characters)")
}

/** `id`, or the header `ce_id`, or the hash of a value that carries a timestamp: the same bytes are the same message. */
export const identityOf = (body: JsonObject, { headers, value }: EncodedMessage): Decoded<string> => {
  const data = own(body, "data")
  const given = own(body, "id") ?? headers["ce_id"]
  if (given !== undefined) {
    return isMerchantId(given)
      ? Result.succeed(given)
      : failed("IDENTITY_UNRESOLVED", "id is not an id (text of 1 to 128 characters)")
  }
  const timestamp = own(body, "timestamp") ?? (isObject(data) ? own(data, "timestamp") : undefined)
  return typeof timestamp === "string" && timestamp !== ""
    ? Result.succeed(hash("sha256", value!))
    : failed(
        "IDENTITY_UNRESOLVED",
        "has neither an id nor a timestamp by which it could be told from another"
      )
}
