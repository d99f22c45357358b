/**
 * What each code of a problem means and what to do about it: the text of `/docs/problems/<code>`, where the `type` of the
 * problem leads. Which failures have which code stands in `ProblemKinds.ts`.
 */

export interface ProblemCodeText {
  readonly meaning: string
  readonly remedy: string
}

/** A code without a text here does not compile as the code of a failure. */
const texts = {
  AMBIGUOUS_STOCK: {
    meaning:
      "The item lies at several locations or in several lots, and the call does not say which one it means.",
    remedy:
      "Send the call again with the locationId and lotNumber of one of the entries of stocks. GET /v1/api/inventory/stocks?productVariantId=… lists them too."
  },
  BALANCE_OVERFLOW: {
    meaning:
      "The movement would take a balance past 2^53−1 base units, which a JSON number cannot say exactly.",
    remedy: "Check the quantity. If it is right, stock the item in a larger base unit."
  },
  DISCREPANCY_PERSISTS: {
    meaning: "A discrepancy can be resolved by hand only when its condition has ended, and it has not.",
    remedy:
      "Correct the stock (adjust-stock with CORRECTION, or a count): the discrepancy then closes by itself."
  },
  FORBIDDEN: {
    meaning:
      "The token is valid, and does not carry the permission that this call needs. permission names the missing one.",
    remedy:
      'Ask the issuer of your tokens for the scope of that name, or, for a person, for a role that has it. A token that exists does not change: get a new one. At a development issuer: POST /dev/token with {"scope": "…"}, or without a scope for all of them.'
  },
  HISTORY_NOT_KEPT: {
    meaning: "The movements of the time that was asked for have been removed by age.",
    remedy: "Ask for a later time, or look into a backup of that time."
  },
  IDEMPOTENCY_KEY_REUSED: {
    meaning: "The Idempotency-Key was sent before with another method, path or body.",
    remedy:
      "Make a new key for each new request, and send the same key only with the same bytes. A key is remembered for 24 hours."
  },
  INSUFFICIENT_INVENTORY: {
    meaning:
      "Less can be sold than was asked for. Nothing was reserved or sold: all lines of a call succeed, or none.",
    remedy:
      "Lower the quantities to what is available in each entry of items, or wait for a receipt. Asking again without a change helps only when stock came in or was released meanwhile."
  },
  INTERNAL_ERROR: {
    meaning: "The service met a fault of its own. The cause is in its log, under the request id in instance.",
    remedy:
      "Send the request again: with the same Idempotency-Key it has its effect once. If it fails again, report the instance to those who run the service."
  },
  INVENTORY_TIMEOUT: {
    meaning:
      "The call was not decided within the service's time-out. Its outcome is unknown but whole: all of it happened, or nothing.",
    remedy:
      "Send the same request again: reserve, release, confirm and everything with an Idempotency-Key or a reference have their effect once, and the second answer says what is so."
  },
  INVENTORY_UNAVAILABLE: {
    meaning:
      "The service cannot work at the moment: its database or the keys of the token issuer do not answer, or too much work waits already. Nothing was changed.",
    remedy: "Send the same request again after the seconds of the Retry-After header."
  },
  ITEM_CONFLICT: {
    meaning: "The productVariantId and the sku that were given belong to two different items.",
    remedy: "Give one of the two items another sku first (PATCH /v1/api/inventory/product-variants/{id})."
  },
  LOT_MISMATCH: {
    meaning: "The lot is known with another expiry than the call gives.",
    remedy: "Leave expiresAt away, use another lotNumber, or correct the lot's expiry with a CORRECTION."
  },
  METHOD_NOT_ALLOWED: {
    meaning: "The path exists, and not with this method.",
    remedy: "Use one of the methods of the Allow header."
  },
  NOT_FOUND: {
    meaning:
      "There is nothing with that id for the merchant of the token, or no such path. What belongs to another merchant is not found either.",
    remedy:
      "Check the id, the path and the merchant of the token (merchant_id). Items and locations are created before stock is moved: POST /v1/api/inventory/product-variants and POST /v1/api/inventory/locations."
  },
  PAYLOAD_TOO_LARGE: {
    meaning: "The body has more bytes than limitBytes.",
    remedy: "Send several smaller requests."
  },
  RELEASE_EXCEEDS_RESERVATION: {
    meaning: "The call releases more than the order still holds.",
    remedy: "Release at most held, or leave quantity away to release all of it."
  },
  RESERVATION_CANCELLED: {
    meaning: "The reservation was released: the order holds nothing any more.",
    remedy: "Reserve again."
  },
  RESERVATION_CONFIRMED: {
    meaning: "The reservation has been sold, so that it can be neither released nor extended.",
    remedy: "To take goods back, record a RETURN with adjust-stock."
  },
  RESERVATION_EXPIRED: {
    meaning: "The reservation ended by its expiresAt, and its stock was given back.",
    remedy: "Reserve again, with a longer expiresIn, or extend in time."
  },
  RESERVATION_FAILED: {
    meaning: "The reservation can never be made as it was asked for: reason says why.",
    remedy:
      "UNKNOWN_ITEM: create the items first. DISCONTINUED_ITEM: leave them away. OTHER_ITEMS: the order holds other items, release it first. ORDER_CANCELLED: use a new order id."
  },
  ROW_REFUSED: {
    meaning: "One operation of an atomic bulk was refused, and with it all of them. Nothing was changed.",
    remedy: "Mend the operation at index by its own code, or use the mode continueOnFailure."
  },
  UNAUTHENTICATED: {
    meaning:
      "The call came without a token, or with one that is not valid: expired, from another issuer, for another audience, wrongly signed, or without merchant_id and sub. Why exactly is in the service's metrics and debug log only.",
    remedy:
      "Send Authorization: Bearer with a fresh token of the configured issuer. At a development issuer: POST /dev/token."
  },
  UNSUPPORTED_MEDIA_TYPE: {
    meaning: "The body is not sent as JSON, or it is compressed.",
    remedy: "Send Content-Type: application/json, without a Content-Encoding."
  },
  VALIDATION_FAILED: {
    meaning:
      "The request is not valid, and nothing was changed. errors names every bad field or parameter by its path; a name that is not known there comes with the one that was likely meant.",
    remedy: "Correct all of errors and send the request again."
  },
  VERSION_MISMATCH: {
    meaning: "The stock has moved since it was looked at, and nothing was changed.",
    remedy: "Read the stock again and repeat the call with its version (or quantity) as it is now."
  }
} satisfies Readonly<Record<string, ProblemCodeText>>

export type ProblemCode = keyof typeof texts
export const problemCodes: Readonly<Record<ProblemCode, ProblemCodeText>> = texts

/** The `type` of a problem (RFC 9457, section 3.1.1): a path, so that it leads to the service that answered. */
export const problemTypeOf = (code: string): string => `/docs/problems/${code}`
