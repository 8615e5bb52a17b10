-- Handing out again what was settled before: rewinds that are known as such, replays of a range, a new version that
-- follows an old one and takes over from it. And parked events that are corrected before they are handled again.

ALTER TABLE "headwater"."partitions"
    -- Up to this number everything was settled before, here or by the version that this one has replaced: what is handed
    -- out of it is a replay.
    ADD COLUMN "replay_to" bigint NOT NULL DEFAULT 0,
    -- Whether handlers may have effects outside while they replay.
    ADD COLUMN "replay_side_effects" boolean NOT NULL DEFAULT true,
    -- The partition of the old version whose checkpoint this one must not pass; it cannot be deleted meanwhile.
    ADD COLUMN "follows" integer CONSTRAINT "partitions_follows" REFERENCES "headwater"."partitions" ("lock_id"),
    -- Nobody is granted the lease any more: another version goes on after the checkpoint.
    ADD COLUMN "closed" boolean NOT NULL DEFAULT false;
CREATE INDEX "partitions_follows" ON "headwater"."partitions" ("follows") WHERE "follows" IS NOT NULL;

-- How far each replay of a range came. It belongs to a command, which stays open until the replay has ended.
CREATE TABLE "headwater"."replays" (
    "command_id" bigint PRIMARY KEY REFERENCES "headwater"."commands" ON DELETE CASCADE,
    "lock_id" integer NOT NULL REFERENCES "headwater"."partitions" ON DELETE CASCADE,
    "after" bigint NOT NULL,
    "until" bigint NOT NULL,
    "side_effects" boolean NOT NULL DEFAULT true,
    "checkpoint" bigint NOT NULL,
    "in_flight_to" bigint NOT NULL DEFAULT 0,
    "attempt" integer NOT NULL DEFAULT 0,
    "delivered" bigint NOT NULL DEFAULT 0,
    "failed" bigint NOT NULL DEFAULT 0,
    "last_error" text,
    "started_at" timestamptz,
    "cancelled_by" text
);
CREATE INDEX "replays_lock_id" ON "headwater"."replays" ("lock_id");

-- New versions beside old ones. Whoever plans takes each through its phases; every step is one transaction.
CREATE TABLE "headwater"."replacements" (
    "replacement_id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "old_id" bigint NOT NULL REFERENCES "headwater"."subscriptions" ON DELETE CASCADE,
    "new_id" bigint NOT NULL REFERENCES "headwater"."subscriptions" ON DELETE CASCADE,
    "phase" text NOT NULL DEFAULT 'catching up'
        CHECK ("phase" IN ('catching up', 'taking over', 'done', 'cancelled')),
    "since" timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What the old version was meant to do before it was stopped, for the case that it goes on.
    "old_wanted" text,
    -- What the old version has to settle before it is stopped again: an owner that died while it was drained had begun it.
    "must_reach" bigint NOT NULL DEFAULT 0,
    -- The sum of the new version's checkpoints at the beginning: tells the rate.
    "began_at" bigint NOT NULL,
    "issued_by" text NOT NULL,
    "issued_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ("old_id" <> "new_id")
);
CREATE UNIQUE INDEX "replacements_old" ON "headwater"."replacements" ("old_id")
    WHERE "phase" IN ('catching up', 'taking over');
CREATE UNIQUE INDEX "replacements_new" ON "headwater"."replacements" ("new_id")
    WHERE "phase" IN ('catching up', 'taking over');

ALTER TABLE "headwater"."parked_events"
    -- A retry that is spread over time: not before this.
    ADD COLUMN "retry_at" timestamptz,
    -- The corrected payload that the handler gets instead; the stored event stays as it is.
    ADD COLUMN "edited" json;

-- Every correction: who, when, why, what it was and what it became.
CREATE TABLE "headwater"."parked_edits" (
    "edit_id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "parked_id" bigint NOT NULL REFERENCES "headwater"."parked_events" ON DELETE CASCADE,
    "edited_by" text NOT NULL,
    "edited_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    "reason" text NOT NULL DEFAULT '',
    "before" json,
    "after" json NOT NULL
);
CREATE INDEX "parked_edits_parked_id" ON "headwater"."parked_edits" ("parked_id");
