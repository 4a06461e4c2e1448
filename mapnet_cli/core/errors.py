"""Exceptions raised on purpose, each with an exit code, and "did you mean" hints.

A message says what is wrong, where, and what to do. Any other exception is a bug.
"""

import difflib
from collections.abc import Iterable


class MapnetError(Exception):
    """Base class of expected failures; exit code 1 unless a subclass overrides it."""

    exit_code = 1


class UsageError(MapnetError):
    """The command line or the config is wrong."""

    exit_code = 2


class ProcessError(UsageError):
    """A usage error that only one of several launched processes detects and therefore reports itself."""


class MissingResultError(UsageError):
    """A required result of an earlier command does not exist yet."""


class InputError(MapnetError):
    """Input data (text, GLUE files) is missing or malformed."""

    exit_code = 3


class AbsentError(InputError):
    """Input data does not exist at the expected location."""


class DamagedError(MapnetError):
    """A file written by mapnet is truncated or altered."""

    exit_code = 4


class LockedError(MapnetError):
    """Another process is working on the same stage of the same artifact directory."""

    exit_code = 5


class DivergedError(MapnetError):
    """Training produced a non-finite loss or gradient."""

    exit_code = 6


class Interrupted(MapnetError):
    """SIGINT or SIGTERM arrived; everything finished so far is saved."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str], list_all: bool = False) -> str:
    """Returns a hint to append to a message: the closest known name, else all names if `list_all`, else ""."""
    names = list(known)
    similarity = 0.5 if len(name) < 4 else 0.6
    near = difflib.get_close_matches(name, names, 1, similarity) or [n for n in names if n.lower() == name.lower()]
    choices = f"; choose one of {', '.join(names)}" if list_all and names else ""
    return f"; did you mean {near[0]!r}?" if near else choices
