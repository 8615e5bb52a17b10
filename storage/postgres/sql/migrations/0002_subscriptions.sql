-- Persistent subscriptions: what should run, who runs it, how far it came, and what was set aside.

CREATE TABLE "headwater"."subscriptions" (
    "subscription_id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "name" text COLLATE "C" NOT NULL UNIQUE,
    -- Where a process finds the handler: 'package.module:attribute'.
    "handler" text NOT NULL,
    -- A stream's name, or '$all'. Fixed: the checkpoints count in it.
    "source" text COLLATE "C" NOT NULL DEFAULT '$all',
    -- The options as registered (source, filter, delivery mode, batch sizes, failure policy, ...).
    "options" json NOT NULL,
    "partitions" integer NOT NULL DEFAULT 1 CHECK ("partitions" > 0),
    "wanted" text NOT NULL DEFAULT 'running' CHECK ("wanted" IN ('running', 'paused', 'stopped')),
    "created_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    "updated_at" timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE "headwater"."partitions" (
    "lock_id" integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "subscription_id" bigint NOT NULL REFERENCES "headwater"."subscriptions" ON DELETE CASCADE,
    "partition" integer NOT NULL DEFAULT 0,
    -- The checkpoint: everything of the source up to this number is settled.
    "checkpoint" bigint NOT NULL DEFAULT 0,
    -- The incarnation of the stream that the checkpoint counts in; null for a source in the store-wide order.
    "stream_id" bigint,
    -- Raised at each grant of the lease; whoever writes with an older one writes nothing.
    "epoch" bigint NOT NULL DEFAULT 0,
    "owner" text,
    "granted_at" timestamptz,
    -- Everything after the checkpoint up to here may have reached the handler: counted before the handler runs, so that
    -- a handler that kills its process is counted too. "attempt" is how often that range has been begun.
    "in_flight_to" bigint NOT NULL DEFAULT 0,
    "attempt" integer NOT NULL DEFAULT 0,
    "phase" text NOT NULL DEFAULT 'new',
    "reason" text,
    "since" timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who should own it and who should stand by, as the supervisor last decided.
    "wanted_owner" text,
    "wanted_standby" text,
    -- The host whose handler is loaded, connected and waiting to take over.
    "standby" text,
    "checkpointed_at" timestamptz,
    -- Totals since registration, for the operator: events handed to the handler, handed again, set aside.
    "delivered" bigint NOT NULL DEFAULT 0,
    "redelivered" bigint NOT NULL DEFAULT 0,
    "parked" bigint NOT NULL DEFAULT 0,
    UNIQUE ("subscription_id", "partition")
);
ALTER TABLE "headwater"."partitions" SET (fillfactor = 50);

-- The processes that can run subscriptions. One is alive while it holds the advisory lock of its lock_id.
CREATE TABLE "headwater"."hosts" (
    "lock_id" integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "host" text COLLATE "C" NOT NULL UNIQUE,
    "node" text NOT NULL,
    "facts" json NOT NULL DEFAULT '{}',
    "draining" boolean NOT NULL DEFAULT false,
    "started_at" timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row: which plan of assignments is in force. Whoever becomes the supervisor raises the generation, and a supervisor
-- that was replaced meanwhile writes nothing.
CREATE TABLE "headwater"."plan" (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    "generation" bigint NOT NULL DEFAULT 0,
    "supervisor" text,
    "since" timestamptz
);
INSERT INTO "headwater"."plan" DEFAULT VALUES;

CREATE TABLE "headwater"."parked_events" (
    "parked_id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "subscription_id" bigint NOT NULL REFERENCES "headwater"."subscriptions" ON DELETE CASCADE,
    "partition" integer NOT NULL,
    "position" bigint NOT NULL,
    "number" bigint NOT NULL,
    "partition_key" text,
    "status" text NOT NULL DEFAULT 'parked' CHECK ("status" IN ('parked', 'retrying', 'settled', 'discarded')),
    -- Why: 'failed' for the event that failed, 'behind' for a later one of the same key that waits for it.
    "reason" text NOT NULL,
    "error" text,
    "attempts" integer NOT NULL DEFAULT 0,
    "parked_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    "updated_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE ("subscription_id", "position")
);
-- What holds up a key.
CREATE INDEX "parked_events_open" ON "headwater"."parked_events" ("subscription_id", "partition_key", "position")
    WHERE "status" IN ('parked', 'retrying');

-- What operators asked for; obeyed by whoever owns the partition, once, and kept as the audit.
CREATE TABLE "headwater"."commands" (
    "command_id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "subscription_id" bigint NOT NULL REFERENCES "headwater"."subscriptions" ON DELETE CASCADE,
    "partition" integer,
    "verb" text NOT NULL,
    "arguments" json NOT NULL DEFAULT '{}',
    "issued_by" text NOT NULL,
    "issued_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    "applied_at" timestamptz,
    "outcome" text
);
CREATE INDEX "commands_open" ON "headwater"."commands" ("subscription_id") WHERE "applied_at" IS NULL;
