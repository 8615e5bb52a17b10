"""How a new version takes over from an old one: which step is due, given where both stand.

Pure. Whoever plans asks again and again; every step is one transaction, so that neither the death of an owner nor that
of the supervisor leaves anything half done.

    catching up --stop old--> taking over --take over--> done
         ^------resume old---------'
"""

from __future__ import annotations

from typing import Final

from headwater.storage.postgres.replacing import Step, Versions

CLOSE: Final = 1000
"""When the new version is no further behind the old one than this, the old one is stopped."""
REST: Final = 1.0
"""For so many seconds at least the versions run beside each other before the old one is stopped."""


def next_step(versions: Versions) -> Step | None:
    """Return the step that is due, None when something has to happen first.

    The old version is neither stopped nor closed unless the new one runs: what cannot be started handles nothing, and
    is caught up when there is nothing to handle.
    The old version ends cleanly: it was drained, so nothing after its checkpoint has reached its handler. When its
    owner died instead, it is resumed, and its next owner sorts out what the dead one has begun.
    """
    runs = all(new.runs for _, new in versions.pairs)
    if versions.phase == "catching up":
        settled = all((old.owned or old.clean) and old.checkpoint >= versions.must_reach for old in versions.old)
        close = all(old.checkpoint - new.checkpoint <= CLOSE for old, new in versions.pairs)
        return "stop old" if settled and close and runs and versions.seconds >= REST else None
    if any(old.owned for old in versions.old):
        return None
    return "take over" if runs and all(old.clean for old in versions.old) else "resume old"
