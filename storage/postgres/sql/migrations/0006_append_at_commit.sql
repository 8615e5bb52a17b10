-- Appends that are part of a caller's own transaction, without holding the store's order until it ends.
-- The append is noted in a table; a deferred trigger writes it as the very last thing that the transaction does, so the
-- head is locked for the length of a commit and not for the length of the caller's work.

CREATE UNLOGGED TABLE "headwater"."appends_at_commit" (
    -- A row lives only within its transaction: it is inserted, written and deleted before anybody else can see it.
    "append_id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "streams" text[] NOT NULL, "stream_of" integer[] NOT NULL, "expected" bigint[] NOT NULL,
    "counts" integer[] NOT NULL, "units" integer[] NOT NULL, "append_of" integer[] NOT NULL, "ids" uuid[] NOT NULL,
    "types" text[] NOT NULL, "data" "payload"[] NOT NULL, "metadata" "payload"[], "causations" uuid[],
    "correlations" uuid[], "tags" text[], "schema_versions" integer[], "times" timestamptz[]
);

CREATE FUNCTION "headwater"."append_at_commit_v1"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_outcomes integer[];
BEGIN
    SELECT "outcomes" INTO v_outcomes FROM "headwater"."append_v1"(
        NEW."streams", NEW."stream_of", NEW."expected", NEW."counts", NEW."units", NEW."append_of", NEW."ids",
        NEW."types", NEW."data", NEW."metadata", NEW."causations", NEW."correlations", NEW."tags",
        NEW."schema_versions", NEW."times"
    );
    IF v_outcomes IS NOT NULL THEN
        RAISE EXCEPTION 'the append to % was refused: %', NEW."streams",
            CASE WHEN 2 = ANY (v_outcomes) THEN 'a stream is deleted' ELSE 'a stream is not at the expected version' END
            USING ERRCODE = CASE WHEN 2 = ANY (v_outcomes) THEN 'HW410' ELSE 'HW409' END;
    END IF;
    DELETE FROM "headwater"."appends_at_commit" WHERE "append_id" = NEW."append_id";
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER "write_at_commit" AFTER INSERT ON "headwater"."appends_at_commit"
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "headwater"."append_at_commit_v1"();
