"""Generated examples: the same ones in each run of CI, new ones in every run elsewhere.

A case that nobody has met yet is a finding for whoever runs the tests at home; on CI it would only stop somebody else's
work.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
