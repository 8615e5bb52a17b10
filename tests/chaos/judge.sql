-- What stands beside the product in the database and judges it: the read models of the exactly-once subscriptions, and
-- triggers that write down each change that a former owner got through. They refuse nothing.
CREATE SCHEMA "chaos";

CREATE TABLE "chaos"."totals" (
    "subscription" text NOT NULL,
    "stream" text COLLATE "C" NOT NULL,
    "events" bigint NOT NULL,
    "amount" bigint NOT NULL,
    "first_version" bigint NOT NULL,
    "last_version" bigint NOT NULL,
    -- How often what came next was not the version after the last one.
    "broken" integer NOT NULL,
    PRIMARY KEY ("subscription", "stream")
);
ALTER TABLE "chaos"."totals" SET (fillfactor = 50);

CREATE TABLE "chaos"."ledger" (
    "subscription" text NOT NULL,
    "partition" integer NOT NULL,
    "epoch" bigint NOT NULL,
    "first" bigint NOT NULL,
    "last" bigint NOT NULL,
    "events" integer NOT NULL
);

CREATE TABLE "chaos"."stale_writes" (
    "what" text NOT NULL,
    "details" jsonb NOT NULL,
    "at" timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Asked as the handler's transaction commits: is the epoch it was handled under still the partition's?
CREATE FUNCTION "chaos"."judge_ledger"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    "now" bigint;
BEGIN
    SELECT "p"."epoch" INTO "now"
    FROM "headwater"."partitions" AS "p" JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
    WHERE "s"."name" = NEW."subscription" AND "p"."partition" = NEW."partition";
    IF "now" IS DISTINCT FROM NEW."epoch" THEN
        INSERT INTO "chaos"."stale_writes" ("what", "details")
        VALUES ('effects of a former owner', to_jsonb(NEW) || jsonb_build_object('now', "now"));
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER "judge" AFTER INSERT ON "chaos"."ledger"
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "chaos"."judge_ledger"();

-- Each host says who it is by a setting of its sessions: a checkpoint may be written by the owner's host alone, and
-- nobody rewinds here.
CREATE FUNCTION "chaos"."judge_checkpoint"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    "writer" text := current_setting('chaos.node', true);
BEGIN
    IF "writer" <> '' AND NEW."owner" NOT LIKE "writer" || '-%' THEN
        INSERT INTO "chaos"."stale_writes" ("what", "details")
        VALUES ('checkpoint of a former owner', to_jsonb(NEW) || jsonb_build_object('writer', "writer"));
    END IF;
    IF NEW."checkpoint" < OLD."checkpoint" THEN
        INSERT INTO "chaos"."stale_writes" ("what", "details")
        VALUES ('checkpoint set back', to_jsonb(NEW) || jsonb_build_object('was', OLD."checkpoint"));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER "judge" AFTER UPDATE OF "checkpoint", "in_flight_to", "attempt" ON "headwater"."partitions"
    FOR EACH ROW WHEN (OLD."epoch" = NEW."epoch") EXECUTE FUNCTION "chaos"."judge_checkpoint"();
