-- name: add_delays
-- Adds a batch's sums, one row for each carrier and month in it.
INSERT INTO "flights"."delays" AS "known"
    ("carrier", "month", "flights", "departed", "arrived", "cancelled", "diverted", "departure_minutes", "arrival_minutes")
SELECT * FROM unnest(%s::text[], %s::text[], %s::int[], %s::int[], %s::int[], %s::int[], %s::int[], %s::int[], %s::int[])
ON CONFLICT ("carrier", "month") DO UPDATE SET
    "flights" = "known"."flights" + excluded."flights",
    "departed" = "known"."departed" + excluded."departed",
    "arrived" = "known"."arrived" + excluded."arrived",
    "cancelled" = "known"."cancelled" + excluded."cancelled",
    "diverted" = "known"."diverted" + excluded."diverted",
    "departure_minutes" = "known"."departure_minutes" + excluded."departure_minutes",
    "arrival_minutes" = "known"."arrival_minutes" + excluded."arrival_minutes"

-- name: open_airports
-- The rows must be there before they can be locked.
INSERT INTO "flights"."airports" ("airport")
SELECT unnest(%s::text[])
ON CONFLICT ("airport") DO NOTHING

-- name: lock_airports
-- Up to which position each airport's events are counted. Locked, in one order for all, until the new counts stand, so
-- that a consumer that was taken for dead and its successor cannot both count an event.
SELECT "airport", "position" FROM "flights"."airports" WHERE "airport" = ANY(%s::text[]) ORDER BY "airport" FOR UPDATE

-- name: add_airports
-- "turned_away" counts the events that came a second time and were not counted again.
UPDATE "flights"."airports" AS "known" SET
    "departures" = "known"."departures" + "new"."departures",
    "arrivals" = "known"."arrivals" + "new"."arrivals",
    "cancellations" = "known"."cancellations" + "new"."cancellations",
    "diversions" = "known"."diversions" + "new"."diversions",
    "position" = "new"."position",
    "turned_away" = "known"."turned_away" + "new"."turned_away"
FROM unnest(%s::text[], %s::int[], %s::int[], %s::int[], %s::int[], %s::bigint[], %s::int[])
    AS "new" ("airport", "departures", "arrivals", "cancellations", "diversions", "position", "turned_away")
WHERE "known"."airport" = "new"."airport"

-- name: add_diversions
INSERT INTO "flights"."diversions" ("flight", "position", "dest", "at")
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::timestamptz[])

-- name: read_delays
SELECT "carrier", "month", "flights", "departed", "arrived", "cancelled", "diverted", "departure_minutes", "arrival_minutes"
FROM "flights"."delays"

-- name: read_airports
SELECT "airport", "departures", "arrivals", "cancellations", "diversions" FROM "flights"."airports"

-- name: count_turned_away
SELECT coalesce(sum("turned_away"), 0)::bigint FROM "flights"."airports"

-- name: read_diversions
SELECT "flight" FROM "flights"."diversions"

-- name: schemas_there
-- Which of the demo's two schemas a given database has already.
SELECT nspname FROM pg_namespace WHERE nspname IN ('flights', 'flights_store') ORDER BY nspname

-- name: drop_schemas
DROP SCHEMA IF EXISTS "flights", "flights_store" CASCADE
