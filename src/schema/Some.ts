/**
 * Of some type. A list of definitions holds one of each type, and TypeScript has no other word for it: `unknown` would
 * refuse the functions that take it. Only for lists and defaults of type parameters; values are typed where they are used.
 */
// oxlint-disable-next-line typescript/no-explicit-any
export type Some = any
