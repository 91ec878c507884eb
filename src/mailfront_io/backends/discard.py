"""discard: takes mail and throws it away."""

from mailfront_io.plugin import Backend


class Discard(Backend):
    """Has no hooks: every answer is the usual one."""

    name = "discard"
