-- The store: streams, events, links, snapshots, and the head that orders them all.
-- The schema is written "headwater" throughout; the loader puts the store's own schema name in its place.
-- So does the type of the payload columns, "payload": json, jsonb or bytea, chosen when the schema is made.

CREATE TABLE "headwater"."head" (
    -- One row. Its lock is the store's order: whoever holds it gives out the next positions, until its commit.
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    "position" bigint NOT NULL DEFAULT 0,
    -- The creation time of the event at the head; an event never gets an earlier one, unless it brings its own.
    "created_at" timestamptz NOT NULL DEFAULT '-infinity',
    -- False once an import brought a time that falls as positions rise: a search by time can then not bisect.
    "times_ordered" boolean NOT NULL DEFAULT true
);
-- Room on the page, so that each bump of the head is a heap-only update.
ALTER TABLE "headwater"."head" SET (fillfactor = 10, autovacuum_vacuum_threshold = 1000);
INSERT INTO "headwater"."head" DEFAULT VALUES;

CREATE TABLE "headwater"."streams" (
    "name" text COLLATE "C" PRIMARY KEY,
    -- Tells two incarnations of one name apart, so that a subscription notices a stream that was created again.
    "stream_id" bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    "version" bigint NOT NULL DEFAULT 0,
    "truncated_before" bigint NOT NULL DEFAULT 1,
    "has_links" boolean NOT NULL DEFAULT false,
    "created_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    "deleted_at" timestamptz
);
ALTER TABLE "headwater"."streams" SET (fillfactor = 70);

CREATE TABLE "headwater"."events" (
    "position" bigint PRIMARY KEY,
    "stream" text COLLATE "C" NOT NULL,
    "version" bigint NOT NULL,
    "event_id" uuid NOT NULL,
    "type" text COLLATE "C" NOT NULL,
    "data" "payload" NOT NULL,
    "metadata" "payload",
    "causation_id" uuid,
    "correlation_id" uuid,
    "created_at" timestamptz NOT NULL,
    "tags" text[] COLLATE "C",
    "schema_version" smallint NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX "events_stream_version" ON "headwater"."events" ("stream", "version");
CREATE UNIQUE INDEX "events_event_id" ON "headwater"."events" ("event_id");

-- Only tagged events stand here: the others pay nothing for it.
CREATE TABLE "headwater"."event_tags" (
    "tag" text COLLATE "C" NOT NULL,
    "position" bigint NOT NULL,
    PRIMARY KEY ("tag", "position")
);

-- A link puts an event that is stored elsewhere into a further stream, under a version of that stream.
CREATE TABLE "headwater"."links" (
    "stream" text COLLATE "C" NOT NULL,
    "version" bigint NOT NULL,
    "position" bigint NOT NULL,
    PRIMARY KEY ("stream", "version")
);
CREATE UNIQUE INDEX "links_stream_position" ON "headwater"."links" ("stream", "position");
CREATE INDEX "links_position" ON "headwater"."links" ("position");

CREATE TABLE "headwater"."snapshots" (
    "source" text COLLATE "C" NOT NULL,
    "version" bigint NOT NULL,
    "type" text COLLATE "C" NOT NULL,
    "data" "payload" NOT NULL,
    "metadata" "payload",
    "created_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY ("source", "version")
);

-- Events are facts. What guards them is a trigger for each statement kind, so that it also holds for the owner of
-- the tables; the functions that delete on purpose set a variable that ends with their transaction.
CREATE FUNCTION "headwater"."refuse_change_v1"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('headwater.allow_change', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION '% on "%" is refused: events are facts; use the store''s delete functions', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'HW100';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER "events_are_facts" BEFORE UPDATE OR DELETE OR TRUNCATE ON "headwater"."events"
    FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."refuse_change_v1"();
CREATE TRIGGER "links_are_facts" BEFORE UPDATE OR DELETE OR TRUNCATE ON "headwater"."links"
    FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."refuse_change_v1"();
CREATE TRIGGER "streams_stay" BEFORE DELETE OR TRUNCATE ON "headwater"."streams"
    FOR EACH STATEMENT EXECUTE FUNCTION "headwater"."refuse_change_v1"();
