"""Hypothesis profiles: `quick` for every run, `full` (HYPOTHESIS_PROFILE=full) for 10 000 cases of each property."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
