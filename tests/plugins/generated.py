"""Generated examples: the same ones in each run of CI, new ones in every run elsewhere.

A case that nobody has met yet is a finding for whoever runs the tests at home; on CI it would only stop somebody else's
work. How long an example takes says something about the machine's other work only, so nowhere there is a deadline.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
