"""The garbage collector of a process of its own: it does not go through what stays for as long as the process.

Ray and what handlers import are some hundred thousand objects, and a full collection stops the process while it visits
them: for 40 ms on the machine of the benchmarks. Changes nothing for what is made later.
"""

from __future__ import annotations

import gc
import sys
import threading


class Garbage:
    """Sets aside what has been imported.

    Once for each time that modules were added: what is alive meanwhile is set aside as well, and must not pile up.
    """

    def __init__(self) -> None:
        self._modules = 0
        self._setting_aside = threading.Lock()

    def spare_modules(self) -> None:
        """Collect once more what is garbage, and visit no more what is not. Any thread may call it."""
        with self._setting_aside:
            if len(sys.modules) != self._modules:
                self._modules = len(sys.modules)
                gc.collect()
                gc.freeze()
