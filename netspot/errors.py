"""The errors that are a person's to mend; anything else that is raised is a bug of ours."""

from __future__ import annotations


class NetspotError(Exception):
    """What is wrong, where, what is accepted and how to mend it, in one line. The command ends with ``exit_status``."""

    exit_status = 2


class ConfigError(NetspotError):
    """A configuration that cannot be used; ``str`` may hold several lines, one a mistake."""


class SourceError(NetspotError):
    """A device or a capture file that cannot be read."""


class Unreachable(NetspotError):
    """A netspot, or a broker, that does not answer somebody who waits for it."""

    exit_status = 3


class CutCapture(SourceError):
    """The capture file ends, or breaks, in the middle: all whole packets before that place have been delivered."""

    exit_status = 3
