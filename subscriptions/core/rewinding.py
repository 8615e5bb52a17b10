"""What is to be handed out again, or skipped, because an operator asked for it or because a stream was made anew.

Never says when: that is the machine's, which first waits for what is in flight.
"""

from __future__ import annotations

from headwater.storage.leases import Progress
from headwater.subscriptions.core import effects


class Rewinding:
    """The rewinds of one partition under one grant.

    1. A command is obeyed by the save of its effect, never before: until then the next owner finds it.
    2. A command that is told again is obeyed once.
    3. Of several that wait, the last one counts.
    """

    def __init__(self) -> None:
        self.stream_id: int | None = None
        """The incarnation of a stream that was made anew, if one was seen: it counts from the rewind to it on."""
        self._to: int | None = None
        self._settled = 0
        self._side_effects = True
        self._told: set[int] = set()
        self._commands: tuple[int, ...] = ()
        self._saving: tuple[int, ...] | None = None

    @property
    def wanted(self) -> bool:
        """Whether one waits to be begun."""
        return self._to is not None

    @property
    def saving(self) -> bool:
        """Whether one is being saved."""
        return self._saving is not None

    def ask(self, to: int, *, side_effects: bool, command: int | None) -> None:
        """Begin again after this number as soon as that is possible."""
        if command is not None:
            if command in self._told:
                return
            self._told.add(command)
            self._commands = (*self._commands, command)
        self._to, self._side_effects = to, side_effects

    def made_anew(self, stream_id: int) -> None:
        """Begin again with a stream that was deleted for good and created again: its numbers begin anew.

        Until that begins, what is saved counts in the old one: its numbers would pass events of the new one.
        """
        self.stream_id = stream_id
        self._to, self._settled = 0, -1

    def begin(self, watermark: int) -> int:
        """Return where to begin again; the save of it must follow."""
        assert self._to is not None
        number, self._to = self._to, None
        # Below 0: nothing of these numbers was settled before.
        self._settled = 0 if self._settled < 0 else max(self._settled, watermark)
        self._saving, self._commands = self._commands, ()
        return number

    def save(self, progress: Progress) -> effects.Save:
        """Return the save of what was begun."""
        return effects.Save(
            progress,
            rewind=True,
            settled=self._settled,
            side_effects=self._side_effects,
            commands=self._saving or (),
        )

    def saved(self) -> None:
        """Note that a save is durable."""
        self._saving = None

    def failed(self, number: int) -> None:
        """Note that a save failed: if it was that of a rewind to this number, it is begun anew."""
        if self._saving is None:
            return
        self._commands, self._saving = (*self._saving, *self._commands), None
        if self._to is None:
            self._to = number
