import { Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"

/** A consumer group of the broker in PostgreSQL. Times are epoch milliseconds. */
export interface ConsumerGroup {
  readonly group: string
  /** Processes that take part in it. */
  readonly members: number
  readonly committedAt: number | null
  /** Messages that it has not committed: none of them is removed, however old. */
  readonly behind: number
  readonly oldestAt: number | null
}

/** Who reads the broker that PostgreSQL keeps, and who has stopped doing so. */
export class ConsumerGroups extends Context.Service<
  ConsumerGroups,
  {
    readonly list: Effect.Effect<ReadonlyArray<ConsumerGroup>, DatabaseUnavailable>
    /**
     * Forgets where a group without members is, so that it pins messages no longer; if it ever comes back it begins at
     * the earliest message that is kept. Whether there was such a group.
     */
    readonly forget: (group: string) => Effect.Effect<boolean, DatabaseUnavailable>
  }
>()("holdfast/services/ConsumerGroups") {
  static readonly layer = Layer.effect(
    ConsumerGroups,
    Effect.gen(function* () {
      const db = yield* Db
      return ConsumerGroups.of({
        list: Effect.map(db.maintain<GroupRow>(groupsStatement, []), (rows) =>
          rows.map((row) => ({
            group: row.group_name,
            members: row.members,
            committedAt: row.committed_at,
            behind: row.behind,
            oldestAt: row.oldest_at
          }))
        ),
        forget: (group) =>
          Effect.map(
            db.maintain<{ forgotten: number }>(forgetStatement, [parameter("text", group)]),
            ([row]) => row!.forgotten > 0
          )
      })
    })
  )
}

interface GroupRow {
  readonly group_name: string
  readonly members: number
  readonly committed_at: number | null
  readonly behind: number
  readonly oldest_at: number | null
}

/**
 * The advisory locks by which members take part in a group and have its partitions (`PostgresBroker`); they end with
 * their session. `group` is SQL.
 */
export const groupLocks = (group: string): string => `l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND l.classid::int8 = (hashtext(${group})::int8 & 4294967295)`

// broker_offset_pkey, broker_partition_pkey; broker_message_pkey for the first message that each group has not committed
const groupsStatement = `
  SELECT o.group_name, max(o.committed_at) AS committed_at,
         sum(p.next_offset - o.committed_offset)::bigint AS behind, min(oldest.published_at) AS oldest_at,
         (SELECT count(DISTINCT l.pid) FROM pg_locks l WHERE ${groupLocks("o.group_name")}) AS members
  FROM broker_offset o
  JOIN broker_partition p ON p.partition_id = o.partition_id
  LEFT JOIN LATERAL (
    SELECT m.published_at
    FROM broker_message m
    WHERE m.partition_id = o.partition_id AND m.message_offset >= o.committed_offset
    ORDER BY m.message_offset
    LIMIT 1
  ) oldest ON true
  GROUP BY o.group_name
  ORDER BY o.group_name`

// broker_offset
const forgetStatement = `
  WITH forgotten AS (
    DELETE FROM broker_offset o
    WHERE o.group_name = $1
      AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE ${groupLocks("$1")})
    RETURNING 1
  )
  SELECT count(*) AS forgotten FROM forgotten`
