"""force-file: keep every message in a temporary file until its end."""

from mailfront_io.plugin import Kind, Plugin, Setting


class ForceFile(Plugin):
    """Has no hooks; that it is listed spools every message to a file in ``$TMPDIR``."""

    name = "force-file"
    spools = True
    settings = (Setting("TMPDIR", Kind.DIRECTORY, "where spool files are made", "/tmp"),)
