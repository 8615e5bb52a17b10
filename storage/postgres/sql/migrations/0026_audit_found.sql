-- What was asked for is kept: one subscription's is found without reading that of all others, and removed with it.
CREATE INDEX "commands_of_one" ON "headwater"."commands" ("subscription_id", "command_id");
