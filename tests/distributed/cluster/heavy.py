"""Three subscriptions whose handler actors need a whole processor each, for tests of nodes that have one."""

from __future__ import annotations

from headwater import App, RecordedEvent

app = App("heavy")


async def work(event: RecordedEvent) -> None: ...


for name in ("heavy-1", "heavy-2", "heavy-3"):
    app.subscription(name, consumers=1, resources=(("CPU", 1.0),))(work)
