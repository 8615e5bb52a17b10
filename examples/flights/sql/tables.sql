-- The read models' tables, in a schema of their own: the store's schema belongs to the store.

CREATE SCHEMA "flights";

-- Written by delay-statistics. The sums are added to, so an event that came twice, or not at all, would show for ever.
CREATE TABLE "flights"."delays" (
    "carrier" text NOT NULL,
    "month" text NOT NULL,
    "flights" integer NOT NULL,
    "departed" integer NOT NULL,
    "arrived" integer NOT NULL,
    "cancelled" integer NOT NULL,
    "diverted" integer NOT NULL,
    "departure_minutes" integer NOT NULL,
    "arrival_minutes" integer NOT NULL,
    PRIMARY KEY ("carrier", "month")
);

-- Written by airports. The position makes it safe to hand an event over twice: see the statement that writes it.
CREATE TABLE "flights"."airports" (
    "airport" text PRIMARY KEY,
    "departures" integer NOT NULL DEFAULT 0,
    "arrivals" integer NOT NULL DEFAULT 0,
    "cancellations" integer NOT NULL DEFAULT 0,
    "diversions" integer NOT NULL DEFAULT 0,
    "position" bigint NOT NULL DEFAULT 0,
    "turned_away" integer NOT NULL DEFAULT 0
);

-- Written by diversions: a plain INSERT, which a second delivery of the same event would break.
CREATE TABLE "flights"."diversions" (
    "flight" text PRIMARY KEY,
    "position" bigint NOT NULL,
    "dest" text NOT NULL,
    "at" timestamptz NOT NULL
);
