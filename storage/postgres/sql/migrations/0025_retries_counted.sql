-- A retry of parked events hands out what it counts, as fast as it may, and nothing once it was taken back; and why something
-- should not run is kept where it is seen.
ALTER TABLE "headwater"."parked_events"
    -- Which command asked for it to be handled again.
    ADD COLUMN "retry_id" bigint;
ALTER TABLE "headwater"."commands"
    -- A retry with a rate: so many seconds lie between two of its deliveries, whoever makes them. Null: as fast as can be.
    ADD COLUMN "every" double precision,
    -- Its next delivery is made no earlier.
    ADD COLUMN "next_at" timestamptz;
ALTER TABLE "headwater"."subscriptions"
    -- Who wanted it to rest, when, and why; null when it should run.
    ADD COLUMN "wanted_why" text;
