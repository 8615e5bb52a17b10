"""An app whose handler is in the middle of its work when its node is asked to leave."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from headwater import App, RecordedEvent

app = App("leaving")


@app.subscription("slow", drain_timeout=timedelta(seconds=60))
def slow(event: RecordedEvent) -> None:
    gate = Path(os.environ["LEAVING_GATE"])
    gate.with_suffix(f".begun-{event.position}").touch()
    while not gate.exists():
        time.sleep(0.01)  # pretended work
