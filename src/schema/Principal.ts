import { Schema } from "effect"
import { OutsideId } from "./Identifier.ts"

/** What a caller may do (CONTRACTS section 4). Which call asks for which is declared beside the routes. */
export const Permission = Schema.Literals([
  "inventory:read",
  "inventory:reserve",
  "inventory:adjust",
  "catalog:write",
  "procurement:write",
  "kitchen:write",
  "wms:sync",
  "notifications:read",
  "admin"
]).annotate({ identifier: "Permission" })
export type Permission = typeof Permission.Type

/** What each permission allows, in the words of the documentation. */
export const permissionMeanings: Readonly<Record<Permission, string>> = {
  "inventory:read": "reading stock, reservations, the ledger, items, locations and discrepancies",
  "inventory:reserve": "checking availability; reserving, releasing, confirming and extending",
  "inventory:adjust": "receiving, selling, taking back, damage and counts; bulk; resolving discrepancies",
  "catalog:write": "creating and changing items and locations",
  "procurement:write": "purchase orders and transfers, in a coming version",
  "kitchen:write": "materials and recipes, in a coming version",
  "wms:sync": "synchronising with a warehouse system, in a coming version",
  "notifications:read": "live notifications, in a coming version",
  admin: "everything, for the merchant of the token"
}

export const everyPermission: ReadonlySet<Permission> = new Set(Permission.literals)

/** What is granted together with what it implies: `admin` holds every permission of its merchant. */
export const withImplied = (granted: Iterable<Permission>): ReadonlySet<Permission> => {
  const permissions = new Set(granted)
  return permissions.has("admin") ? everyPermission : permissions
}

/**
 * What a token whose signature, issuer, audience and times are good says about its bearer. Scopes and roles are as
 * the issuer wrote them: unknown ones are kept here and grant nothing.
 */
export const VerifiedClaims = Schema.Struct({
  subject: OutsideId,
  merchantId: OutsideId,
  scopes: Schema.Array(Schema.String),
  roles: Schema.Array(Schema.String),
  /** Epoch milliseconds. */
  expiresAt: Schema.Finite
})
export type VerifiedClaims = typeof VerifiedClaims.Type

/** Who calls, for which merchant, and what they may do until the token ends. */
export const Principal = Schema.Struct({
  subject: OutsideId,
  merchantId: OutsideId,
  /** Complete: whatever `admin` implies is in it, so that asking is one `has`. */
  permissions: Schema.ReadonlySet(Permission),
  /** Epoch milliseconds; a socket opened with the token ends then. */
  expiresAt: Schema.Finite
})
export type Principal = typeof Principal.Type

/**
 * No valid token came with the request. It has no fields on purpose: why a token was refused helps only whoever
 * forges one, so every refusal has the same body (RELIABILITY, "Attacks to refuse").
 */
export class Unauthenticated extends Schema.TaggedError<Unauthenticated>()("Unauthenticated", {}) {}
