-- The schema itself: whether it is there, how far it is migrated, and making and removing it.

-- name: schema_exists
SELECT EXISTS (SELECT FROM pg_namespace WHERE "nspname" = %(schema)s);

-- name: migrations_table_exists
SELECT to_regclass('"headwater"."migrations"') IS NOT NULL;

-- name: payload_type
-- What the payload columns of an existing schema are made of; no row when the tables are not there.
SELECT format_type("atttypid", NULL) FROM pg_attribute
WHERE "attrelid" = to_regclass('"headwater"."events"') AND "attname" = 'data';

-- name: applied_migrations
SELECT "number", "name", "applied_at" FROM "headwater"."migrations" ORDER BY "number";

-- name: record_migration
INSERT INTO "headwater"."migrations" ("number", "name") VALUES (%(number)s, %(name)s);

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS "headwater";

-- name: create_migrations_table
CREATE TABLE IF NOT EXISTS "headwater"."migrations" (
    "number" integer PRIMARY KEY,
    "name" text NOT NULL,
    "applied_at" timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: try_migration_lock
-- Held to the end of the transaction. Tried, never waited for: a waiting statement would hold back vacuum.
SELECT pg_try_advisory_xact_lock(hashtextextended('headwater migrations of "headwater"', 0));

-- name: drop_schema
DROP SCHEMA IF EXISTS "headwater" CASCADE;

-- name: database_exists
SELECT EXISTS (SELECT FROM pg_database WHERE "datname" = %(database)s);
