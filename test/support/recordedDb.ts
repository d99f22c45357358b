import { Effect, Layer } from "effect"
import { Db, type Parameters } from "../../src/services/Db.ts"

/** A database that is told of every statement before it runs, and by which of its ways it was asked. */
export const recordedDb = <E, R>(
  database: Layer.Layer<Db, E, R>,
  note: (statement: string, parameters: Parameters, way: "session" | "read" | "maintain") => void
): Layer.Layer<Db, E, R> =>
  Layer.effect(
    Db,
    Effect.map(Db, (db) =>
      Db.of({
        ...db,
        session: Effect.map(db.session, (session) => ({
          ...session,
          run: (statement, parameters) => {
            note(statement, parameters, "session")
            return session.run(statement, parameters)
          }
        })),
        read: (merchantId, statement, parameters) => {
          note(statement, parameters, "read")
          return db.read(merchantId, statement, parameters)
        },
        maintain: (statement, parameters) => {
          note(statement, parameters, "maintain")
          return db.maintain(statement, parameters)
        }
      })
    )
  ).pipe(Layer.provide(database))
