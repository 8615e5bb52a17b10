-- A parked event that is handled again is counted before the handler gets it: one that ends its owner's process at every
-- attempt is set aside again, and does not go from owner to owner.
ALTER TABLE "headwater"."parked_events"
    -- Attempts since it was last asked for of which nobody has said how they ended.
    ADD COLUMN "begun" integer NOT NULL DEFAULT 0;
