export type { CallOptions } from "./CallOptions.ts"
export { type ClientOptions, HoldfastError, type Problem, createClient, entriesOf } from "./createClient.ts"
export type * from "./operations.ts"
