-- The number of partitions of a subscription can change while it runs: the old set is let go, and in one transaction the
-- new one takes its place. What the old partitions had settled beyond the new checkpoints is left out by their marks.

ALTER TABLE "headwater"."subscriptions"
    -- What the present partitions are split by; the options may say something else already.
    ADD COLUMN "partition_by" text,
    -- How many partitions there will be; null: as many as there are. While it is set nobody is given the old ones.
    ADD COLUMN "repartition_to" integer CHECK ("repartition_to" > 0),
    ADD COLUMN "repartition_since" timestamptz,
    -- The marks of the sets before this one.
    ADD COLUMN "seam" json;

UPDATE "headwater"."subscriptions" SET "partition_by" = "options" ->> 'partition_by';

-- Whether the subscription's seam counts for this partition: not when all of it is settled, nor after a rewind.
ALTER TABLE "headwater"."partitions" ADD COLUMN "seamed" boolean NOT NULL DEFAULT false;

-- How many handler actors work for it; null: the handler runs in the owner's process, or nobody said.
ALTER TABLE "headwater"."partitions" ADD COLUMN "consumers" integer;
