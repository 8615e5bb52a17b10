-- A stop by the failure policy, or by the breaker, is the partition's and not its owner's: the next one must not run the handler
-- before an operator has resumed it.
ALTER TABLE "headwater"."partitions"
    -- In which phase it waits for an operator; null when it does not.
    ADD COLUMN "halted" text CHECK ("halted" IN ('paused', 'failed')),
    ADD COLUMN "halt_reason" text,
    -- Since when; kept when an operator resumes it, until an owner has gone on: attempts count anew then.
    ADD COLUMN "halted_at" timestamptz,
    -- Which write of which owner said so last, or said that it goes on. One that is executed late names an earlier one, and
    -- changes nothing.
    ADD COLUMN "halt_epoch" bigint NOT NULL DEFAULT 0,
    ADD COLUMN "halts" bigint NOT NULL DEFAULT 0;
