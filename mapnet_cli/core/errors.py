"""Errors raised on purpose, each with the exit code that it ends the program with, and "did you mean".

A message says what is wrong, where, and what to do. Any other exception is a bug.
"""

import difflib
from collections.abc import Iterable


class MapnetError(Exception):
    """A failure with a clear message; exit code 1 unless a subclass says otherwise."""

    exit_code = 1


class UsageError(MapnetError):
    """The command line or the config is wrong."""

    exit_code = 2


class ProcessError(UsageError):
    """A usage error that only one of several processes notices: that one says it."""


class NotMadeError(UsageError):
    """A result of an earlier command is needed and is not there yet."""


class InputError(MapnetError):
    """Input data (text, GLUE files) is missing or malformed."""

    exit_code = 3


class AbsentError(InputError):
    """Input data is not where it was looked for."""


class DamagedError(MapnetError):
    """A file that mapnet itself wrote is truncated or altered."""

    exit_code = 4


class LockedError(MapnetError):
    """Another process is working on the same stage of the same artifact directory."""

    exit_code = 5


class DivergedError(MapnetError):
    """Training produced a loss or a gradient that is not finite."""

    exit_code = 6


class Interrupted(MapnetError):
    """SIGINT or SIGTERM arrived; everything finished so far is saved."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str], list_all: bool = False) -> str:
    """Returns a hint to append to a message: the nearest known name, or all of them with `list_all`; "" if none."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1, 0.5) or [n for n in names if n.lower() == name.lower()]
    choices = f"; choose one of {', '.join(names)}" if list_all and names else ""
    return f"; did you mean {near[0]!r}?" if near else choices
