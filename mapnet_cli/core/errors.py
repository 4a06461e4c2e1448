"""The errors that mapnet raises on purpose, and the exit code that each one ends the program with.

A message says what is wrong, where, and what to do. Anything else that is raised is a bug.
"""


class MapnetError(Exception):
    """A failure with a clear message; exit code 1 unless a subclass says otherwise."""

    exit_code = 1


class UsageError(MapnetError):
    """The command line or the config is wrong."""

    exit_code = 2


class ProcessError(UsageError):
    """A usage error that only one of several processes notices: that one says it."""


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
