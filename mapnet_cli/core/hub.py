"""Data sets of the Hugging Face hub by id, `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`.

The only place that uses the network, and only where a config names such an id.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mapnet_cli.core.errors import InputError

PREFIX = "hub:"
TOO_MANY = 429
"""HTTP's "too many requests"."""
TIMEOUT = 5.0
"""Seconds after which the hub counts as out of reach."""


def is_hub(data: str) -> bool:
    return data.startswith(PREFIX)


def load_hub_split(data: str, name: str | None, split: str, streaming: bool = False) -> Any:
    """Returns a split of a data set, `name` being its configuration.

    Out of reach of the hub a copy that is in the cache is used; where there is none, InputError says
    so within seconds, where `datasets` by itself would go on trying for half a minute.
    """
    identifier, _, revision = data.removeprefix(PREFIX).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", identifier):
        raise InputError(f"{data!r}: a data set of the hub is called {PREFIX}OWNER/NAME")
    with _reached(data, identifier, revision) as reached:
        import datasets

        try:
            return datasets.load_dataset(identifier, name, split=split, revision=revision or None, streaming=streaming)
        except (OSError, ValueError) as error:
            where = "" if reached else "the hub can't be reached and the cache has no copy of it: "
            raise InputError(
                f"{data}: {where}{str(error).splitlines()[0]}; or name a folder in its place, made elsewhere with "
                "datasets.load_dataset(...).save_to_disk(FOLDER)"
            ) from None


def hub_rows(data: str, name: str | None, split: str, column: str, part: int, parts: int) -> Iterator[tuple[int, Any]]:
    """Yields (number, what the column holds) of each row of one of `parts` parts of a split, as they arrive.

    The parts are of the data set's files; where there are fewer files, some parts are empty. Raises
    InputError for a missing column, and where the network or the hub fails in between.
    """
    found = load_hub_split(data, name, split, streaming=True)
    parts = min(parts, found.num_shards)
    if part >= parts:
        return
    try:
        for number, row in enumerate(found.shard(num_shards=parts, index=part) if parts > 1 else found):
            if column not in row:
                raise InputError(f"{data}: there is no column {column!r}, only {', '.join(row)}; set its `column`")
            yield number, row[column]
    except InputError:
        raise
    except Exception as error:  # whatever the HTTP library of the day raises
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{data}: part {part} of {parts} can't be read ({what}): run again") from None


@contextmanager
def _reached(data: str, identifier: str, revision: str) -> Iterator[bool]:
    """Yields whether the hub answers; while it doesn't, its client works offline. Raises InputError for a bad id."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    before = constants.HF_HUB_OFFLINE
    reached = not before
    try:
        HfApi().dataset_info(identifier, revision=revision or None, timeout=TIMEOUT)
    except HfHubHTTPError as error:
        if error.response.status_code < 500 and error.response.status_code != TOO_MANY:
            # it answered: there is no such data set, or it isn't ours to see
            raise InputError(f"{data}: {str(error).splitlines()[0]}") from None
        reached = False
    except Exception:  # whatever the HTTP library of the day raises without a network
        reached = False
    constants.HF_HUB_OFFLINE = before or not reached
    try:
        yield reached
    finally:
        constants.HF_HUB_OFFLINE = before
