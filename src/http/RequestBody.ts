import { Effect, Result } from "effect"
import type { HttpServerRequest } from "effect/http"
import { isUtf8 } from "node:buffer"
import { IncomingMessage } from "node:http"
import { checkJson } from "../schema/JsonLimits.ts"
import { ValidationFailed } from "../schema/Validation.ts"
import { maxLines } from "./contract/Contract.ts"
import { PayloadTooLarge, UnsupportedMediaType } from "./contract/HttpFailure.ts"

export const bodyLimitBytes = 1024 * 1024
/** Bodies with longer lists are not looked at. What a call takes is less, and refused by the name of its field. */
const entriesMax = 2 * maxLines

/** The body, read once within its limit. It must be a JSON object; what is in it is the schema's business. */
export const bodyOf = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<string, PayloadTooLarge | UnsupportedMediaType | ValidationFailed> => {
  const contentType = request.headers["content-type"]
  const encoding = request.headers["content-encoding"]
  if (
    (contentType !== undefined && !/^application\/json\s*(;|$)/i.test(contentType)) ||
    (encoding !== undefined && encoding !== "identity")
  ) {
    return Effect.fail(new UnsupportedMediaType())
  }
  if (Number(request.headers["content-length"] ?? 0) > bodyLimitBytes) return tooLarge
  return Effect.flatMap(bytesOf(request), (bytes) => {
    const text = decoder.decode(bytes)
    // What is not UTF-8 was decoded to this character: two ids that differ would become one.
    const garbled = text.includes("\uFFFD") && !isUtf8(bytes)
    const defect = garbled ? "must be UTF-8" : checkJson(text, entriesMax)
    return defect === undefined
      ? Effect.succeed(text)
      : Effect.fail(new ValidationFailed({ errors: [{ path: "body", message: defect }] }))
  })
}
const decoder = new TextDecoder()
const tooLarge = Effect.suspend(() => Effect.fail(new PayloadTooLarge({ limitBytes: bodyLimitBytes })))

/**
 * A body whose length was told, and is within the limit, is taken from Node as it comes: `request.arrayBuffer` watches
 * a stream of any length and kind until it is closed, which takes 20 µs longer. Node reads no further than the length.
 */
const bytesOf = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<Uint8Array, PayloadTooLarge> => {
  const { headers, source } = request
  return source instanceof IncomingMessage &&
    headers["content-length"] !== undefined &&
    headers["expect"] === undefined &&
    headers["upgrade"] === undefined
    ? Effect.callback((resume) => {
        const chunks: Array<Buffer> = []
        const onData = (chunk: Buffer): unknown => chunks.push(chunk)
        const onEnd = (): void =>
          resume(Effect.succeed(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
        source.on("data", onData).on("end", onEnd)
        // Whoever goes away before the end is nobody to answer: the server interrupts their request.
        return Effect.sync(() => source.off("data", onData).off("end", onEnd).destroy())
      })
    : Effect.matchEffect(request.arrayBuffer, {
        onFailure: () => tooLarge,
        onSuccess: (buffer) => Effect.succeed(new Uint8Array(buffer))
      })
}

export const parseJson = (body: string): Result.Result<unknown, ValidationFailed> => {
  try {
    return Result.succeed(JSON.parse(body))
  } catch {
    const errors = [{ path: "body", message: "Expected a valid JSON body" }]
    return Result.fail(new ValidationFailed({ errors }))
  }
}
