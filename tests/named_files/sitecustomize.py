"""Python imports this when it starts with this directory in its PYTHONPATH: its file systems then have no files without
names, as some real ones."""

import os

setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)  # noqa: B010 - it is final
