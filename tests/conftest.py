"""What holds for all tests: Hypothesis looks at no clock, since a machine that is busy is no fault."""

import os

from hypothesis import settings

if "CI" not in os.environ:  # there Hypothesis has a profile of its own, without a deadline, too
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")
