"""A bounded cache for library calls that are repeated for most words of a text.

A value must depend only on its key, so that the output doesn't depend on the state of the cache.
"""

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

MAX_ENTRIES = 300_000
"""Maximum entries per cache, about 60 MB for words and their ids."""
MAX_KEY_LENGTH = 60
"""Maximum characters of a cached key."""


class BoundedCache(dict[str, Value]):
    """Dictionary that computes missing values with `compute`; it is cleared when it reaches MAX_ENTRIES."""

    def __init__(self, compute: Callable[[str], Value]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, key: str) -> Value:
        value = self._compute(key)
        if len(key) <= MAX_KEY_LENGTH:
            if len(self) >= MAX_ENTRIES:
                self.clear()
            self[key] = value
        return value
