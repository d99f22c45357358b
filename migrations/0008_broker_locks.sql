-- Groups of the broker in PostgreSQL hold their partitions by advisory locks of sessions (docs/decisions/0019): a session
-- that ends takes them with it, so that memberships, heartbeats and epochs have nothing left to say.
DROP TABLE broker_member;
ALTER TABLE broker_offset DROP COLUMN owner, DROP COLUMN epoch;
