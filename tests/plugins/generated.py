"""Generated examples: the same ones in each run of CI, new ones in every run elsewhere.

A case that nobody has met yet is a finding for whoever runs the tests at home; on CI it would only stop somebody else's
work. How long an example takes, to make or to run, says something about the machine's other work only: it is no
failure anywhere.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("anywhere", PATIENT)
settings.register_profile("ci", PATIENT, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
