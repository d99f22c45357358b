import type { Some } from "../../schema/Some.ts"
import { arrays, rowsOf } from "../PostgresTypes.ts"
import type { Question } from "./Question.ts"

/**
 * What a table is to the kernel: one definition, from which the statements that read and write it, the type of its rows,
 * the unit of work, the tests' in-memory store, the audit of its constraints and the test of its shape are derived.
 *
 * A field of a row is the column of the same name in snake case.
 */

type ColumnType = keyof typeof arrays
interface Column<T> {
  readonly type: ColumnType
  /** Not there at run time: what the column holds. */
  readonly holds?: T
}
const columnOf =
  (type: ColumnType) =>
  <T>(): Column<T> => ({ type })

export const text = <T extends string = string>(): Column<T> => columnOf("text")<T>()
export const uuid = columnOf("uuid")<string>
/** A safe integer. */
export const int8 = columnOf("int8")<number>
export const int4 = columnOf("int4")<number>
export const bool = columnOf("bool")<boolean>
/** Epoch milliseconds. */
export const timestamptz = columnOf("timestamptz")<number>
export const jsonb = columnOf("jsonb")<Readonly<Record<string, unknown>>>
export const orNull = <T>({ type }: Column<T>): Column<T | null> => ({ type })

type Columns = Readonly<Record<string, Column<Some>>>
type Fields<C extends Columns> = {
  -readonly [F in keyof C]: NonNullable<C[F]["holds"]> | Extract<C[F]["holds"], null>
}

/** How the unit of work finds rows: by what a row is called under, inside its merchant; `null`: not under this index. */
interface Index<R> {
  /** The fields that the name is made of: a change of another one leaves the index alone. */
  readonly fields: ReadonlyArray<string>
  readonly nameOf: (row: R) => string | null
}

export interface Table<R extends object = Some, Unique extends string = Some, Lists extends string = Some> {
  readonly name: string
  readonly columns: Columns
  /** The fields that a row is found by. */
  readonly key: ReadonlyArray<string>
  /** The fields that an update writes; all others are written once. */
  readonly changing: ReadonlyArray<string>
  /** Other sets of fields that no two rows share. */
  readonly unique: ReadonlyArray<ReadonlyArray<string>>
  /** CHECK constraints that the books rely on. */
  readonly checks: ReadonlyArray<string>
  /** Unique names that may pass from one row to another within a batch: they are given up before they are taken. */
  readonly passing: ReadonlyArray<string>
  /** What an INSERT does when its key is there already; without it, it fails. */
  readonly onConflict: string
  /** Whether an INSERT overwrites what is there: of several rows of one key the last is written. */
  readonly isUpserted: boolean
  /** The trigger function that refuses to change rows once they are written. */
  readonly appendOnly: string | null
  /** The field of which the unit of work remembers the value before the batch. */
  readonly watched: string | null
  readonly indexes: Readonly<Record<Unique, Index<R>>>
  readonly lists: Readonly<Record<Lists, Index<R>>>
  /** The items that are locked when a row is read before the decision. */
  readonly itemsOf: ((row: R) => Iterable<string>) | null
  /** What is read along with items once they are locked. */
  readonly ofItems: ReadOfItems<R> | null
  /** What `holdfast audit` asks of its rows. */
  readonly questions: ReadonlyArray<Question>
  /** Not there at run time: a row, with what is read along with it from other tables. */
  readonly row?: R
}

/** Reads rows by the items that are locked, in a statement of its own and so a snapshot that sees what the locks waited for. */
export interface ReadOfItems<R> {
  /** Of two arrays: merchants and item ids. With `subjects`, two more: merchants and the ids of the batch's documents. */
  readonly statement: string
  readonly subjects: boolean
  readonly rowOf: (values: ReadonlyArray<unknown>) => R
}

export type RowOf<T> = T extends Table<infer R> ? R : never

export const by = <R>(field: keyof R & string): Index<R> => ({
  fields: [field],
  nameOf: (row) => row[field] as string | null
})

/** `related` is what rows carry of other tables: it is neither read nor written with the columns. */
export const defineTable = <
  K extends Columns,
  F extends Columns,
  C extends Columns,
  Related extends object = {}
>(shape: {
  readonly name: string
  readonly key: K
  readonly fixed: F
  readonly changing: C
  readonly related?: Related
}) => {
  type R = Readonly<Fields<K> & Fields<F>> & Fields<C> & Related
  return <Unique extends string = never, Lists extends string = never>(
    options: {
      readonly unique?: ReadonlyArray<ReadonlyArray<keyof R & string>>
      readonly checks?: ReadonlyArray<string>
      readonly passing?: ReadonlyArray<keyof C & string>
      readonly onConflict?: string
      readonly appendOnly?: string
      readonly watched?: keyof C & string
      readonly indexes?: Readonly<Record<Unique, Index<R>>>
      readonly lists?: Readonly<Record<Lists, Index<R>>>
      readonly itemsOf?: (row: R) => Iterable<string>
      readonly questions?: ReadonlyArray<Question>
    } = {}
  ): Table<R, Unique, Lists> => ({
    name: shape.name,
    columns: { ...shape.key, ...shape.fixed, ...shape.changing },
    key: Object.keys(shape.key),
    changing: Object.keys(shape.changing),
    unique: options.unique ?? [],
    checks: options.checks ?? [],
    passing: options.passing ?? [],
    onConflict: options.onConflict ?? "",
    isUpserted: options.onConflict?.includes("DO UPDATE") ?? false,
    appendOnly: options.appendOnly ?? null,
    watched: options.watched ?? null,
    indexes: options.indexes ?? ({} as Readonly<Record<Unique, Index<R>>>),
    lists: options.lists ?? ({} as Readonly<Record<Lists, Index<R>>>),
    itemsOf: options.itemsOf ?? null,
    ofItems: null,
    questions: options.questions ?? []
  })
}

/** A table whose rows are read with the items that are locked. */
export const readOfItems = <R extends object, U extends string, L extends string>(
  table: Table<R, U, L>,
  ofItems: ReadOfItems<R>
): Table<R, U, L> => ({ ...table, ofItems })

export const columnName = (field: string): string =>
  field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const namesOf = (fields: ReadonlyArray<string>): ReadonlyArray<string> => fields.map(columnName)
const fieldsOf = ({ columns }: Table): ReadonlyArray<string> => Object.keys(columns)

/** All columns of a table, for a SELECT; `rowReader` makes a row of what that gives. */
export const columnsOf = (table: Table, alias: string): string =>
  namesOf(fieldsOf(table))
    .map((name) => `${alias}.${name}`)
    .join(", ")

/** How many values a row takes. */
export const widthOf = (table: Table): number => fieldsOf(table).length

/** Some columns under the names of their fields, for a reader whose rows are `Pick`s of the table's. */
export const fieldsInSql = <R extends object>(
  _table: Table<R>,
  alias: string,
  fields: ReadonlyArray<keyof R & string>
): string => fields.map((field) => `${alias}.${columnName(field)} AS "${field}"`).join(", ")

/** Reads a row from the values of a SELECT, from `offset` on. */
export const rowReader = <R extends object>(
  table: Table<R>,
  offset = 0
): ((values: ReadonlyArray<unknown>) => R) => {
  const fields = fieldsOf(table)
  // Rows are copies of one, so that all have its shape: V8 makes a slow dictionary of one that gets many fields one by one.
  const blank: Record<string, unknown> = JSON.parse(
    JSON.stringify(Object.fromEntries(fields.map((field) => [field, null])))
  )
  return (values) => {
    const row = { ...blank }
    for (let index = 0; index < fields.length; index++) row[fields[index]!] = values[offset + index]
    return row as R
  }
}

/** Rows of a table by one of its fields, inside their merchants: read before the decision, under the batch's locks. */
export interface ReadBy<R extends object = Some> {
  readonly table: Table<R>
  readonly field: keyof R & string
  /** Of two arrays: merchants and values of the field. */
  readonly statement: string
  readonly type: ColumnType
  /** Adds what a statement answered to the rows that are known. */
  readonly rowsOf: (answer: ReadonlyArray<ReadonlyArray<unknown>>) => ReadonlyArray<R>
}

/** `statement` is given the columns and the rows that are wanted; without it, the field has an index of its own. */
export const readBy = <R extends object>(
  table: Table<R>,
  field: keyof R & string,
  given: {
    readonly statement?: string
    readonly rowsOf?: (answer: ReadonlyArray<ReadonlyArray<unknown>>) => ReadonlyArray<R>
  } = {}
): ReadBy<R> => {
  const rowOf = rowReader(table)
  return {
    table,
    field,
    type: table.columns[field]!.type,
    statement:
      given.statement ??
      `
  SELECT ${columnsOf(table, "t")}
  FROM ${rowsOf(["merchant_id", "value"])} AS wanted
  JOIN ${table.name} t ON t.merchant_id = wanted.merchant_id AND t.${columnName(field)} = wanted.value`,
    rowsOf: given.rowsOf ?? ((answer) => answer.map(rowOf))
  }
}

/** A set-based write: one typed array a column, for `rowsOf`. */
export interface Write {
  readonly statement: string
  readonly columns: ReadonlyArray<readonly [type: ColumnType, field: string]>
  /** Whether a last parameter says how many rows it must match. */
  readonly isCounted: boolean
}

/** The statements that write a table, in the order in which they go. */
export interface Writes {
  /** In a statement of its own before the others: within one, a unique key does not pass from row to row. */
  readonly free: Write
  readonly remove: Write
  readonly update: Write
  readonly insert: Write
}

const writeOf = (
  { columns }: Table,
  statement: string,
  fields: ReadonlyArray<string>,
  isCounted = false
): Write => ({
  statement,
  columns: fields.map((field) => [columns[field]!.type, field]),
  isCounted
})

export const writesOf = (table: Table): Writes => {
  const { changing, key, name, onConflict, passing } = table
  const all = namesOf(fieldsOf(table))
  const keyNames = namesOf(key)
  const matches = keyNames.map((column) => `t.${column} = u.${column}`).join(" AND ")
  const changed = [...key, ...changing]
  return {
    free: writeOf(
      table,
      `
    UPDATE ${name} t SET ${namesOf(passing)
      .map((column) => `${column} = NULL`)
      .join(", ")}
    FROM ${rowsOf(keyNames)} AS u
    WHERE ${matches}`,
      key
    ),
    remove: writeOf(
      table,
      `
    DELETE FROM ${name} t
    USING ${rowsOf(keyNames)} AS u
    WHERE ${matches}`,
      key
    ),
    update: writeOf(
      table,
      `
    WITH written AS (
      UPDATE ${name} AS t SET ${namesOf(changing)
        .map((column) => `${column} = u.${column}`)
        .join(", ")}
      FROM ${rowsOf(namesOf(changed))} AS u
      WHERE ${matches}
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $${changed.length + 1}, '${name}')::text FROM written`,
      changed,
      true
    ),
    insert: writeOf(
      table,
      `
    INSERT INTO ${name} (${all.join(", ")})
    SELECT * FROM ${rowsOf(all)} AS u
    ${onConflict}`,
      fieldsOf(table)
    )
  }
}
