/**
 * A transaction that clients repeat: statements with `:name` for variables, each of which is an expression of pgbench.
 * A run that has no pgbench sends the same statements from plainClients.ts.
 */
export interface Script {
  readonly variables: ReadonlyArray<Variable>
  readonly statements: ReadonlyArray<string>
}

export type Variable =
  /** Uniformly random, both ends included. */
  | { readonly name: string; readonly random: readonly [from: number, to: number] }
  /** Unlike that of any other transaction of this run: counted on by each client from a base of its own. */
  | { readonly name: string; readonly unique: true }

/** Clients of a run, and transactions that one client may run in it, so that the numbers of 256 rows each stay small. */
export const clientsMax = 100
export const uniqueStride = 1_000_000

export const pgbenchText = (script: Script): string => {
  const lines = script.variables.map((variable) =>
    "random" in variable
      ? `\\set ${variable.name} random(${variable.random[0]}, ${variable.random[1]})`
      : `\\set n :n + 1\n\\set ${variable.name} (:run * ${clientsMax} + :client_id) * ${uniqueStride} + :n`
  )
  // pgbench ends a statement at its semicolon, whatever the lines.
  return [...lines, ...script.statements.map((statement) => `${statement.trim()};`)].join("\n") + "\n"
}
