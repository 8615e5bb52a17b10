"""The folder a server lives in: made, locked by one server at a time, swept when its owner died.

Never looks inside a server's own data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from headwater.storage.errors import ConfigurationError

LOCK_NAME: Final = "lock"
TEMPORARY_PREFIX: Final = "headwater-"


class ServerFolder:
    """A locked folder for one server.

    Invariants:

    1. At most one object, in any process, holds the folder; the lock lives as long as the descriptor, which the
       server inherits: it is free again exactly when the server is gone.
    2. A throw-away folder is removed by whoever stops the server; one that survived a crash of the whole machine, or
       of everybody who could have removed it, is removed by the next throw-away folder that is made.
    """

    def __init__(self, path: str | os.PathLike[str] | None, kind: str) -> None:
        """Make (when it is missing) and lock the folder; None makes a throw-away one. Raises ConfigurationError."""
        self.throw_away = path is None
        self.descriptor = -1
        if path is None:
            sweep(kind)
            while not self._made_throw_away(kind):
                pass  # another start took it for one that was left, in the moment before it was locked
        else:
            self.path = Path(path).expanduser().absolute()
            self._make()
            if not self._lock():
                raise ConfigurationError(f"the data folder {self.path} is in use by another server")

    def _made_throw_away(self, kind: str) -> bool:
        """Make and lock a folder of a new name; returns whether nobody has swept it before it was locked."""
        # Named before it is made, so that an interrupt in between cannot leave it behind.
        self.path = Path(tempfile.gettempdir(), f"{TEMPORARY_PREFIX}{kind}-{secrets.token_hex(4)}")
        try:
            self.path.mkdir(mode=0o700)
            kept = self._lock() and self._is_there()
        except BaseException:
            self.remove()
            raise
        if not kept:
            self.remove()
        return kept

    def _lock(self) -> bool:
        try:
            self.descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot write to the data folder {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            return False
        return True

    def _is_there(self) -> bool:
        """Whether what is locked is the folder's lock, and not one that was removed with it."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.descriptor), (self.path / LOCK_NAME).stat())
        return False

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise ConfigurationError(f"cannot make the data folder {self.path}: {error.strerror}") from error
        if held and LOCK_NAME not in held:
            raise ConfigurationError(
                f"the data folder {self.path} was not made by Headwater (it holds {', '.join(held[:3])}): "
                "name another one"
            )

    def rotate_log(self) -> Path:
        """Return the path of a fresh log; the one before is kept beside it."""
        log = self.path / "server.log"
        with contextlib.suppress(FileNotFoundError):
            log.replace(log.with_suffix(".log.1"))
        return log

    def give_to(self, user: str, path: Path) -> None:
        """Make a folder inside this one, and all it holds, belong to a user (root only), unless it does already."""
        entry = pwd.getpwnam(user)
        if path.stat().st_uid == entry.pw_uid:
            return
        for part in (path, *path.rglob("*")):
            os.chown(part, entry.pw_uid, entry.pw_gid, follow_symlinks=False)

    def wait_until_left(self, seconds: float) -> None:
        """Wait until nobody holds the lock, up to so long: what a killed server had started outlives it a while."""
        deadline = time.monotonic() + seconds
        while not self._is_left() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _is_left(self) -> bool:
        try:
            descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR)
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> None:
        """Close this process' hold on the lock (the server keeps its own)."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def remove(self) -> None:
        """Delete the folder and let go of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()


def sweep(kind: str) -> None:
    """Remove the throw-away folders of this user whose server and owner are both gone."""
    for path in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}{kind}-*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
                continue
            descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
