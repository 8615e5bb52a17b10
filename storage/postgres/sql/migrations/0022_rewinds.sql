-- A write that its owner has given up may be executed late, under an epoch that goes on: the server hears it when a network or
-- a pooler lets it through. Where the checkpoint was set back meanwhile, by a rewind, or at-most-once by what nobody took, it
-- would pass what is to be handed out again.
ALTER TABLE "headwater"."partitions"
    -- Which of these was made last under this epoch, by a number that rises with each try; 0: none. What was sent before it
    -- names a lower one and writes nothing.
    ADD COLUMN "rewinds" bigint NOT NULL DEFAULT 0;
