-- The message broker that is used when no Kafka is configured. Not merchant data: no row-level security, and the
-- reader role is granted nothing here.

CREATE TABLE broker_topic (
  topic_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL
);

-- The row is the lock under which offsets are given: it is held until the messages are committed, so that whoever sees
-- an offset sees all before it. fillfactor 50 keeps its updates HOT.
CREATE TABLE broker_partition (
  partition_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic_id integer NOT NULL REFERENCES broker_topic,
  partition integer NOT NULL CHECK (partition >= 0),
  -- What the next message gets.
  next_offset bigint NOT NULL DEFAULT 0,
  -- Time never decreases within a partition, so that what is old enough to go is always its beginning.
  last_published_at timestamptz NOT NULL,
  UNIQUE (topic_id, partition)
) WITH (fillfactor = 50);

-- key is the text's UTF-8: text would refuse NUL. headers is a JSON object of texts. value NULL is a tombstone.
-- The foreign key to broker_partition is left out: its check would cost a lock of the row for every message, and the
-- one statement that inserts takes the number from the row itself.
CREATE TABLE broker_message (
  partition_id integer NOT NULL,
  message_offset bigint NOT NULL,
  published_at timestamptz NOT NULL,
  key bytea,
  headers text NOT NULL,
  value bytea,
  PRIMARY KEY (partition_id, message_offset)
);
-- Messages are inserted at the one end and removed at the other: vacuum by a share of a large table would come late.
ALTER TABLE broker_message SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
DO $$
BEGIN
  ALTER TABLE broker_message ALTER COLUMN value SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  ALTER TABLE broker_message ALTER COLUMN value SET STORAGE EXTERNAL;
END $$;

-- A member without a row is out of its group for good: it joins again under a new id.
CREATE TABLE broker_member (
  group_name text NOT NULL,
  member_id uuid NOT NULL,
  topics text[] NOT NULL,
  heartbeat_at timestamptz NOT NULL,
  PRIMARY KEY (group_name, member_id)
) WITH (fillfactor = 50);

-- Where a group is in a partition, and whose it is. epoch grows with each change of owner: a commit names the one that
-- it was delivered under, so that who lost the partition without noticing cannot commit.
CREATE TABLE broker_offset (
  partition_id integer NOT NULL REFERENCES broker_partition,
  group_name text NOT NULL,
  -- What the group reads next.
  committed_offset bigint NOT NULL,
  committed_at timestamptz,
  owner uuid,
  epoch bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (partition_id, group_name)
) WITH (fillfactor = 50);
