-- Events in ranges of positions, each a table of its own, so that old ranges can be archived. What is made here stays
-- empty and unused until "partition_events_v1" is called: a store that is not partitioned appends and reads as before.
--
-- Postgres wants the partition key in each unique index of the whole table. (stream, version) needs none: the head's lock
-- and "streams"."version" give each version out once, and a unique index in each range watches over it. Event ids are
-- unique by a table of their own, which keeps the ids of archived ranges, too: an append that is sent again is recognised
-- although its events are gone from here.

CREATE TABLE "headwater"."partitioning" (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    "size" bigint NOT NULL CHECK ("size" > 0),
    -- How far the conversion of an existing store has copied the ids, and where its first range will end.
    "ids_to" bigint NOT NULL DEFAULT 0,
    "first_range_to" bigint,
    "partitioned_at" timestamptz,
    -- True while programs may run that opened the store before it was partitioned: they know of no archive.
    "unaware_readers" boolean NOT NULL DEFAULT false,
    -- How often a range came back: a reader that missed it and then finds no mark has to look again.
    "restores" bigint NOT NULL DEFAULT 0
);

CREATE TABLE "headwater"."event_ids" (
    "event_id" uuid PRIMARY KEY,
    "position" bigint NOT NULL,
    "version" bigint NOT NULL,
    -- Finds the stream's name among the archived ones.
    "stream_hash" bigint NOT NULL
);

-- The catalogue of ranges. Those that are archived are always the oldest.
CREATE TABLE "headwater"."ranges" (
    "first_position" bigint PRIMARY KEY,
    "last_position" bigint NOT NULL,
    "table_name" text NOT NULL,
    -- Raised by whatever removes events of the range: an export that saw an older number is not taken.
    "changes" bigint NOT NULL DEFAULT 0,
    "archived_at" timestamptz,
    -- What follows is known of archived ranges: the file, what the manifest beside it must hash to, what is in it.
    "file" text,
    "manifest_sha256" text,
    "events" bigint,
    "first_time" timestamptz,
    "last_time" timestamptz
);

-- Which streams have events in an archived range, and between which places.
CREATE TABLE "headwater"."archived_streams" (
    "stream" text COLLATE "C" NOT NULL,
    "first_position" bigint NOT NULL REFERENCES "headwater"."ranges",
    "first_version" bigint NOT NULL,
    "last_version" bigint NOT NULL,
    "lowest_position" bigint NOT NULL,
    "highest_position" bigint NOT NULL,
    "stream_hash" bigint NOT NULL,
    PRIMARY KEY ("stream", "first_position")
);
CREATE INDEX "archived_streams_hash" ON "headwater"."archived_streams" ("first_position", "stream_hash");

-- What was deleted or truncated for good while older events of it stood in an archive: no reader gets them any more.
CREATE TABLE "headwater"."archived_erasures" (
    "erasure_id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "stream" text COLLATE "C" NOT NULL,
    "before_version" bigint NOT NULL,
    "up_to_position" bigint NOT NULL,
    "erased_at" timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION "headwater"."keep_ids_v1"() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO "headwater"."event_ids" ("event_id", "position", "version", "stream_hash")
    SELECT "event_id", "position", "version", hashtextextended("stream", 0) FROM "added";
    RETURN NULL;
END $$;

CREATE FUNCTION "headwater"."forget_ids_v1"() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM "headwater"."event_ids" USING "removed" WHERE "event_ids"."event_id" = "removed"."event_id";
    UPDATE "headwater"."ranges" AS "range" SET "changes" = "changes" + 1
    WHERE EXISTS (
        SELECT FROM "removed" WHERE "removed"."position" BETWEEN "range"."first_position" AND "range"."last_position"
    );
    RETURN NULL;
END $$;

CREATE FUNCTION "headwater"."note_erasure_v1"() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM "headwater"."archived_streams" WHERE "stream" = OLD."name") THEN
        INSERT INTO "headwater"."archived_erasures" ("stream", "before_version", "up_to_position")
        SELECT
            OLD."name",
            CASE WHEN TG_OP = 'DELETE' THEN 9223372036854775807 ELSE NEW."truncated_before" END, "position"
        FROM "headwater"."head";
        DELETE FROM "headwater"."archived_streams"
        WHERE "stream" = OLD."name" AND (TG_OP = 'DELETE' OR "last_version" < NEW."truncated_before");
    END IF;
    RETURN NULL;
END $$;

-- Makes the table of a range, not yet a part of the events. Its name has its first position in it, which is why the text
-- is put together here: names cannot be parameters.
CREATE FUNCTION "headwater"."make_range_v1"(p_first bigint, p_last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_table CONSTANT text := format('events_%s', p_first);
BEGIN
    EXECUTE format(
        'CREATE TABLE "headwater".%I (LIKE "headwater"."events"
            INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION, PRIMARY KEY ("position"))', v_table);
    EXECUTE format('CREATE UNIQUE INDEX ON "headwater".%I ("stream", "version")', v_table);
    -- Says what the range will be checked for, so that joining it to the events need not look at its rows.
    EXECUTE format(
        'ALTER TABLE "headwater".%I ADD CONSTRAINT "in_range" CHECK ("position" >= %s AND "position" < %s)',
        v_table, p_first, p_last + 1);
    EXECUTE format(
        'CREATE TRIGGER "events_are_facts" BEFORE UPDATE OR DELETE OR TRUNCATE ON "headwater".%I
            FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."refuse_change_v1"()', v_table);
END $$;

CREATE FUNCTION "headwater"."attach_range_v1"(p_first bigint, p_last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_table CONSTANT text := format('events_%s', p_first);
BEGIN
    EXECUTE format(
        'ALTER TABLE "headwater"."events" ATTACH PARTITION "headwater".%I FOR VALUES FROM (%s) TO (%s)',
        v_table, p_first, p_last + 1);
    EXECUTE format('ALTER TABLE "headwater".%I DROP CONSTRAINT "in_range"', v_table);
END $$;

CREATE FUNCTION "headwater"."add_range_v1"(p_first bigint, p_last bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM "headwater"."make_range_v1"(p_first, p_last);
    PERFORM "headwater"."attach_range_v1"(p_first, p_last);
    INSERT INTO "headwater"."ranges" ("first_position", "last_position", "table_name")
    VALUES (p_first, p_last, format('events_%s', p_first));
END $$;

-- The same, for a range that is not needed yet: it waits for nobody.
CREATE FUNCTION "headwater"."add_range_soon_v1"(p_first bigint, p_last bigint) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '50ms' AS $$
BEGIN
    PERFORM "headwater"."add_range_v1"(p_first, p_last);
END $$;

-- Sees to it that there are ranges up to a position, and two more. The caller has locked the head. There is no default
-- partition: with one, each new range would lock it against all readers and look through it.
CREATE FUNCTION "headwater"."cover_v1"(p_position bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_size bigint;
    v_covered bigint;
    v_last bigint;
BEGIN
    SELECT "size" INTO v_size FROM "headwater"."partitioning";
    SELECT max("last_position") INTO v_covered FROM "headwater"."ranges";
    IF v_covered < p_position THEN
        -- One append that goes beyond all ranges gets one range, as large as it takes.
        v_last := v_covered + v_size * ((p_position - v_covered + v_size - 1) / v_size);
        PERFORM "headwater"."add_range_v1"(v_covered + 1, v_last);
        v_covered := v_last;
    END IF;
    BEGIN
        WHILE v_covered < p_position + 2 * v_size LOOP
            PERFORM "headwater"."add_range_soon_v1"(v_covered + 1, v_covered + v_size);
            v_covered := v_covered + v_size;
        END LOOP;
    EXCEPTION
        -- Somebody holds the table, or the caller's own cursor reads from it. The next range is there already; the one
        -- after it is made when the head enters the next range.
        WHEN lock_not_available OR object_in_use THEN
            NULL;
    END;
END $$;

CREATE FUNCTION "headwater"."cover_ahead_v1"() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM "headwater"."cover_v1"(NEW."position");
    RETURN NULL;
END $$;

-- Begins to keep the ids of new events; those of older ones are then copied in batches. Returns the head.
CREATE FUNCTION "headwater"."begin_partitioning_v1"(p_size bigint) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '500ms' AS $$
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    INSERT INTO "headwater"."partitioning" ("size") VALUES (p_size);
    CREATE TRIGGER "keep_ids" AFTER INSERT ON "headwater"."events" REFERENCING NEW TABLE AS "added"
        FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."keep_ids_v1"();
    CREATE TRIGGER "forget_ids" AFTER DELETE ON "headwater"."events" REFERENCING OLD TABLE AS "removed"
        FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."forget_ids_v1"();
    RETURN (SELECT "position" FROM "headwater"."head");
END $$;

-- Says where the first range will end: the end of a range, and so far behind the head that the check, which every append
-- now passes, cannot be met while the events are looked through for it. Without events, the first range is as any other.
CREATE FUNCTION "headwater"."bound_first_range_v1"(p_room bigint) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '500ms' AS $$
DECLARE
    v_last bigint;
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    UPDATE "headwater"."partitioning" SET
        "first_range_to" = "size" * CASE WHEN "head"."position" = 0 THEN 1
            ELSE ("head"."position" + greatest(p_room, 2 * "size")) / "size" END,
        "unaware_readers" = "head"."position" > 0
    FROM "headwater"."head" RETURNING "first_range_to" INTO v_last;
    EXECUTE format(
        'ALTER TABLE "headwater"."events" ADD CONSTRAINT "in_range" CHECK ("position" >= 1 AND "position" < %s) NOT VALID',
        v_last + 1);
END $$;

-- The change itself: the events become the first range of a new table. Nothing is copied or looked at under the lock.
-- The whole of "head" is locked here: an append that waits for its row has a lock on the table, which the new trigger would
-- wait for in turn. Whoever waits for us and has what we wait for is safe: we give up before a deadlock is looked for.
CREATE FUNCTION "headwater"."partition_events_v1"() RETURNS void LANGUAGE plpgsql
SET lock_timeout = '500ms' AS $$
DECLARE
    v_size bigint;
    v_last bigint;
    v_head bigint;
BEGIN
    LOCK TABLE "headwater"."head" IN SHARE ROW EXCLUSIVE MODE;
    SELECT "position" INTO v_head FROM "headwater"."head";
    SELECT "size", "first_range_to" INTO v_size, v_last FROM "headwater"."partitioning";
    ALTER TABLE "headwater"."events" RENAME TO "events_1";
    ALTER INDEX "headwater"."events_pkey" RENAME TO "events_1_pkey";
    ALTER INDEX "headwater"."events_stream_version" RENAME TO "events_1_stream_version_idx";
    DROP INDEX "headwater"."events_event_id";
    DROP TRIGGER "keep_ids" ON "headwater"."events_1";
    DROP TRIGGER "forget_ids" ON "headwater"."events_1";
    CREATE TABLE "headwater"."events" (
        LIKE "headwater"."events_1" INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION, PRIMARY KEY ("position")
    ) PARTITION BY RANGE ("position");
    CREATE TRIGGER "keep_ids" AFTER INSERT ON "headwater"."events" REFERENCING NEW TABLE AS "added"
        FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."keep_ids_v1"();
    CREATE TRIGGER "forget_ids" AFTER DELETE ON "headwater"."events" REFERENCING OLD TABLE AS "removed"
        FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."forget_ids_v1"();
    CREATE TRIGGER "events_are_facts" BEFORE UPDATE OR DELETE OR TRUNCATE ON "headwater"."events"
        FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."refuse_change_v1"();
    INSERT INTO "headwater"."ranges" ("first_position", "last_position", "table_name") VALUES (1, v_last, 'events_1');
    PERFORM "headwater"."attach_range_v1"(1, v_last);
    PERFORM "headwater"."cover_v1"(v_head);
    -- Asked at each append, so it costs a division; done only when the head enters another range.
    EXECUTE format(
        'CREATE TRIGGER "cover_ahead" AFTER UPDATE OF "position" ON "headwater"."head" FOR EACH ROW
            WHEN (NEW."position" / %1$s <> OLD."position" / %1$s) EXECUTE FUNCTION "headwater"."cover_ahead_v1"()',
        v_size);
    CREATE TRIGGER "note_deletion" AFTER DELETE ON "headwater"."streams"
        FOR EACH ROW EXECUTE FUNCTION "headwater"."note_erasure_v1"();
    CREATE TRIGGER "note_truncation" AFTER UPDATE OF "truncated_before" ON "headwater"."streams" FOR EACH ROW
        WHEN (NEW."truncated_before" > OLD."truncated_before")
        EXECUTE FUNCTION "headwater"."note_erasure_v1"();
    UPDATE "headwater"."partitioning" SET "partitioned_at" = clock_timestamp();
END $$;

-- Says by an error which events are needed and not here.
CREATE FUNCTION "headwater"."refuse_archived_v1"(p_last bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events up to position % are archived', p_last USING ERRCODE = 'HW420', DETAIL = p_last::text;
END $$;

-- The append on a condition, where a part of what it asks about may be archived. Tags of archived events are kept, and so
-- is which streams they are of; where those cannot decide, it is refused and not guessed.
CREATE FUNCTION "headwater"."append_if_partitioned_v1"(
    p_after bigint, p_with_types text[], p_with_tags text[], p_with_streams text[], p_with_categories text[],
    p_with_prefix text,
    p_streams text[], p_stream_of integer[], p_expected bigint[], p_counts integer[], p_units integer[],
    p_append_of integer[], p_ids uuid[], p_types text[], p_data "payload"[], p_metadata "payload"[],
    p_causations uuid[], p_correlations uuid[], p_tags text[], p_schema_versions integer[], p_times timestamptz[],
    OUT versions_before bigint[], OUT positions_before bigint[], OUT outcomes integer[], OUT conflict bigint
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_archived bigint;
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    SELECT max("last_position") INTO v_archived FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL;
    IF p_after < v_archived AND (CASE
        WHEN p_with_tags IS NOT NULL THEN EXISTS (
            SELECT FROM "headwater"."event_tags"
            WHERE "tag" = p_with_tags[1] AND "position" > p_after AND "position" <= v_archived)
        WHEN p_with_streams IS NOT NULL THEN EXISTS (
            SELECT FROM "headwater"."archived_streams"
            WHERE "stream" = ANY (p_with_streams) AND "highest_position" > p_after)
        ELSE true
    END)
    THEN
        PERFORM "headwater"."refuse_archived_v1"(v_archived);
    END IF;
    SELECT "written"."versions_before", "written"."positions_before", "written"."outcomes", "written"."conflict"
    INTO versions_before, positions_before, outcomes, conflict
    FROM "headwater"."append_if_v1"(
        p_after, p_with_types, p_with_tags, p_with_streams, p_with_categories, p_with_prefix,
        p_streams, p_stream_of, p_expected, p_counts, p_units, p_append_of, p_ids, p_types, p_data, p_metadata,
        p_causations, p_correlations, p_tags, p_schema_versions, p_times
    ) AS "written";
END $$;

-- As link_v1, with the events found by the table of ids. An event that is archived cannot be linked: whether it is in the
-- stream already is not known here.
CREATE FUNCTION "headwater"."link_partitioned_v1"(
    p_stream text, p_expected bigint, p_ids uuid[], OUT version bigint, OUT outcome integer, OUT culprit uuid
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_stream "headwater"."streams"%ROWTYPE;
    v_found boolean;
    v_before bigint;
    v_positions bigint[];
    v_archived bigint;
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    SELECT * INTO v_stream FROM "headwater"."streams" WHERE "name" = p_stream;
    v_found := FOUND;
    version := v_stream."version";
    v_before := coalesce(version, 0);

    IF v_stream."deleted_at" IS NOT NULL THEN
        outcome := 2;
        RETURN;
    ELSIF NOT (p_expected = -1 OR p_expected = v_before OR p_expected = -2 AND v_before = 0 OR p_expected = -3 AND v_found)
    THEN
        outcome := 1;
        RETURN;
    END IF;

    SELECT array_agg("id"."position" ORDER BY "i") INTO v_positions
    FROM generate_subscripts(p_ids, 1) AS "i"
    LEFT JOIN "headwater"."event_ids" AS "id" ON "id"."event_id" = p_ids["i"];
    IF array_position(v_positions, NULL) IS NOT NULL THEN
        outcome := 3;
        culprit := p_ids[array_position(v_positions, NULL)];
        RETURN;
    END IF;
    SELECT max("last_position") INTO v_archived FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL;
    IF v_archived >= ANY (v_positions) THEN
        PERFORM "headwater"."refuse_archived_v1"(v_archived);
    END IF;

    SELECT "event"."event_id" INTO culprit
    FROM generate_subscripts(p_ids, 1) AS "i"
    JOIN "headwater"."events" AS "event" ON "event"."position" = v_positions["i"]
    LEFT JOIN "headwater"."links" AS "link" ON "link"."stream" = p_stream AND "link"."position" = v_positions["i"]
    WHERE "event"."stream" = p_stream OR "link"."stream" IS NOT NULL
    ORDER BY "i" LIMIT 1;
    IF FOUND THEN
        outcome := 4;
        RETURN;
    END IF;

    outcome := 0;
    version := v_before + cardinality(p_ids);
    IF v_found THEN
        UPDATE "headwater"."streams" AS "stream"
        SET "version" = link_partitioned_v1."version", "has_links" = true WHERE "stream"."name" = p_stream;
    ELSE
        INSERT INTO "headwater"."streams" ("name", "version", "has_links") VALUES (p_stream, version, true);
    END IF;
    INSERT INTO "headwater"."links" ("stream", "version", "position")
    SELECT p_stream, v_before + "i", v_positions["i"] FROM generate_subscripts(p_ids, 1) AS "i";
END $$;

-- Marks a range as archived, if nothing of it was removed since its export began; the head's lock keeps it so.
CREATE FUNCTION "headwater"."archive_range_v1"(
    p_first bigint, p_changes bigint, p_file text, p_manifest_sha256 text, p_events bigint,
    p_first_time timestamptz, p_last_time timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    UPDATE "headwater"."ranges" SET
        "archived_at" = clock_timestamp(), "file" = p_file, "manifest_sha256" = p_manifest_sha256, "events" = p_events,
        "first_time" = p_first_time, "last_time" = p_last_time
    WHERE "first_position" = p_first AND "changes" = p_changes AND "archived_at" IS NULL;
    RETURN FOUND;
END $$;

-- Forgets what is left here of archived events that were erased: ids, tags, links.
CREATE FUNCTION "headwater"."forget_archived_v1"(p_positions bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('headwater.allow_change', 'on', true);
    DELETE FROM "headwater"."event_ids" WHERE "position" = ANY (p_positions);
    DELETE FROM "headwater"."event_tags" WHERE "position" = ANY (p_positions);
    DELETE FROM "headwater"."links" WHERE "position" = ANY (p_positions);
    PERFORM set_config('headwater.allow_change', 'off', true);
END $$;

-- Takes a range back whose table has been filled from its file.
CREATE FUNCTION "headwater"."restore_range_v1"(p_first bigint) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '500ms' AS $$
DECLARE
    v_last bigint;
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    UPDATE "headwater"."ranges" SET
        "archived_at" = NULL, "file" = NULL, "manifest_sha256" = NULL, "events" = NULL, "first_time" = NULL,
        "last_time" = NULL
    WHERE "first_position" = p_first RETURNING "last_position" INTO v_last;
    PERFORM "headwater"."attach_range_v1"(p_first, v_last);
    UPDATE "headwater"."partitioning" SET "restores" = "restores" + 1;
    DELETE FROM "headwater"."archived_streams" WHERE "first_position" = p_first;
    DELETE FROM "headwater"."archived_erasures"
    WHERE NOT EXISTS (SELECT FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL);
END $$;
