"""What holds for all tests: Hypothesis looks at no clock, since a machine that is busy is no fault, and takes the same
examples each time, so that a change that fails has failed by itself. ``pytest --hypothesis-profile=chance`` takes
others."""

from hypothesis import settings

settings.register_profile("chance", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("same")
