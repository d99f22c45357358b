import { type Permission, permissionMeanings } from "../schema/Principal.ts"
import { rolesWith } from "../schema/Role.ts"

/** What `/docs` begins with: Markdown, the description of the OpenAPI document. */

const permissionRows = Object.entries(permissionMeanings)
  .map(
    ([permission, meaning]) =>
      `| \`${permission}\` | ${meaning} | ${rolesWith(permission as Permission).join(", ")} |`
  )
  .join("\n")

export const introduction = `The inventory service that never oversells: stock, reservations and a ledger.

## Try it

On a development machine these calls work as they are, one after the other: send them from this page (*Try it out*, then
*Execute*), where their bodies are filled in, and the token too. Elsewhere put your own token into *Authorize* first.

1. \`POST /v1/api/inventory/product-variants\` stocks a product variant.
2. \`POST /api/v1/inventory/adjust-stock\` receives a hundred of it.
3. \`POST /api/v1/inventory/reserve\` holds two for an order: all lines or none, for half an hour.
4. \`POST /api/v1/inventory/confirm\` sells what the order holds. \`release\` would give it back.
5. \`GET /api/v1/inventory/{productVariantId}\` shows what is left, and \`…/ledger\` what moved, when and why.

## Tokens

Each call carries \`Authorization: Bearer <JWT>\`, signed with ES256, RS256 or EdDSA by the issuer that the service is
configured for (\`JWKS_URL\`, \`JWT_ISSUER\`, \`JWT_AUDIENCE\`). Its claims: \`sub\` (who calls), \`merchant_id\` (whose
stock: a call sees and changes nothing else), \`scope\` (permissions, separated by spaces) or \`roles\` (a list), \`exp\`,
\`iss\`, \`aud\`.

Where the service is its own issuer, on a development machine, \`POST /dev/token\` with \`{}\` answers with a token for the
merchant \`demo\` and every permission; \`{"scope": "inventory:read"}\` asks for less.

## Permissions

Each operation below names the one permission that it needs. A token has it by its \`scope\`, or by a role.

| permission | allows | roles that have it |
| --- | --- | --- |
${permissionRows}

A call without it is answered with 403, and the answer names the permission that is missing.

## Repeating a call

Reserving, releasing, confirming and extending by order may be repeated as they are: the second call changes nothing.
Any \`POST\` or \`PATCH\` may be repeated with an \`Idempotency-Key\` header, a name that you make up for the request: it has
its effect once, and the answer is the first one again, with \`Idempotency-Replayed: true\`. Keys are kept for 24 hours; the
same key with another body is refused (422). A receipt, damage, or partial release without a key is another one each time.

After 408 or a lost connection the outcome is unknown but whole: send the same request again.

## Errors

Every error is a problem (RFC 9457, \`application/problem+json\`) with \`status\`, a \`code\` for programs, a \`detail\` that
says what to do, the request id as \`instance\`, and a \`type\` that leads to a page about it:
[all codes](/docs/problems). Bad input is answered with 400 and one entry in \`errors\` for each bad field; a field or a
parameter that is not known is one too, with the name that was likely meant. Errors change nothing.

## Three families of routes

There are three because three kinds of clients were there first, and each keeps the paths and the form of answers that
it was written for. Stock is the same behind all of them, so that they may be mixed.

| paths | for | answers |
| --- | --- | --- |
| \`/api/v1/inventory/…\` | order services and shops: by order, and by product variant | by order in an envelope \`{success, data, meta}\`; by variant plain |
| \`/inventory/…\` | warehouses: by sku and batch | plain |
| \`/v1/api/inventory/…\` | point-of-sale and back office: items, locations, stocks, discrepancies | plain |

## Lists, times, limits

Lists take \`limit\` (50, at most 200) and \`cursor\`, the \`nextCursor\` of the page before. Times are RFC 3339, in answers
UTC with milliseconds. Quantities are whole numbers in the item's base unit. A body has at most 1 MiB and 500 lines.
Answers gain fields over time: ignore those that you do not know.

A typed client for TypeScript: \`npm install holdfast-client\`. For other languages generate one from
[/openapi.json](/openapi.json). Messages are described by [/asyncapi.json](/asyncapi.json).
`
