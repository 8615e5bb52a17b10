-- A write that its owner has given up, because no answer came, and has made anew since may still be executed after that one,
-- also where no checkpoint fell meanwhile: it would set the count of attempts back, or park once more what was settled.
ALTER TABLE "headwater"."partitions"
    -- The number of the last write of each kind under this epoch: one that comes after it with a lower number writes nothing.
    ADD COLUMN "saves" bigint NOT NULL DEFAULT 0,
    ADD COLUMN "parks" bigint NOT NULL DEFAULT 0,
    ADD COLUMN "retries" bigint NOT NULL DEFAULT 0,
    ADD COLUMN "reports" bigint NOT NULL DEFAULT 0;

-- How much is parked is counted for each partition whenever somebody looks how it stands.
CREATE INDEX "parked_events_of_partition" ON "headwater"."parked_events" ("subscription_id", "partition")
    WHERE "status" IN ('parked', 'retrying');
