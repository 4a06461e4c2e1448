"""Datasets from the Hugging Face Hub by id, `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`.

The only module that uses the network, and only if a config contains such an id.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mapnet_cli.core.errors import InputError

PREFIX = "hub:"
TOO_MANY = 429  # HTTP status "too many requests"
TIMEOUT = 5.0  # seconds after which the Hub counts as unreachable


def is_hub(data: str) -> bool:
    return data.startswith(PREFIX)


def hub_hint(path: str) -> str:
    """Returns a hint for a path that doesn't exist and looks like the id of a dataset on the Hub."""
    return f"; a dataset on the Hub is written {PREFIX}{path}" if re.fullmatch(r"[\w-]+/[\w.-]+", path) else ""


def load_hub_split(data: str, name: str | None, split: str, streaming: bool = False) -> Any:
    """Returns a split of a dataset in its configuration `name`.

    If the Hub is unreachable, uses the cached copy. Without one, raises InputError within seconds;
    `datasets` alone would retry for half a minute.
    """
    identifier, _, revision = data.removeprefix(PREFIX).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", identifier):
        raise InputError(f"{data!r}: a Hub dataset is specified as {PREFIX}OWNER/NAME")
    with _hub_access(data, identifier, revision) as reachable:
        import datasets

        try:
            return datasets.load_dataset(identifier, name, split=split, revision=revision or None, streaming=streaming)
        except (OSError, ValueError) as error:
            where = "" if reachable else "the Hub can't be reached and the dataset is not cached: "
            raise InputError(
                f"{data}: {where}{str(error).splitlines()[0]}; or use a local folder, made on another machine "
                "with datasets.load_dataset(...).save_to_disk(FOLDER)"
            ) from None


def hub_rows(
    data: str, name: str | None, split: str, part: int, parts: int, column: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row number, row) for each row of part `part` of a split, as rows arrive.

    The dataset's files are divided into `parts` parts; with fewer files, some parts are empty. Of known columns, only
    the one that contains the path of keys `column` is read: `datasets` opens what an image names. Raises InputError if
    the network or the Hub fails.
    """
    dataset = load_hub_split(data, name, split, streaming=True)
    known = dataset.column_names or ()
    if wanted := [one for one in known if one in (column, column.partition(".")[0])]:
        dataset = dataset.select_columns(wanted)
    parts = min(parts, dataset.num_shards)
    if part >= parts:
        return
    try:
        yield from enumerate(dataset.shard(num_shards=parts, index=part) if parts > 1 else dataset)
    except Exception as error:  # the HTTP library's exceptions depend on its version
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{data}: part {part} of {parts} can't be read ({reason}): run again") from None


@contextmanager
def _hub_access(data: str, identifier: str, revision: str) -> Iterator[bool]:
    """Yields whether the Hub answers; if not, its client works offline meanwhile. Raises InputError for a bad id."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    before = constants.HF_HUB_OFFLINE
    reachable = not before
    try:
        HfApi().dataset_info(identifier, revision=revision or None, timeout=TIMEOUT)
    except HfHubHTTPError as error:
        if error.response.status_code < 500 and error.response.status_code != TOO_MANY:
            # the Hub answered: the dataset doesn't exist or isn't accessible
            raise InputError(f"{data}: {str(error).splitlines()[0]}") from None
        reachable = False
    except Exception:  # the HTTP library's exceptions depend on its version
        reachable = False
    constants.HF_HUB_OFFLINE = before or not reachable
    try:
        yield reachable
    finally:
        constants.HF_HUB_OFFLINE = before
