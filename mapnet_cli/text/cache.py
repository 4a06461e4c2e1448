"""Answers that a library gives over and over, kept within a bound.

Most words of a text were there before. What is kept may depend on nothing but its key, so that
forgetting it shows in no output.
"""

from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

MOST = 300_000
"""Answers kept by one memory, about 60 MB of words and their ids."""
LONGEST = 60
"""Characters of a key whose answer is kept."""


class BoundedCache(dict[str, Answer]):
    """`remembered[key]` is `ask(key)`, asked once; when MOST answers are kept, all are forgotten."""

    def __init__(self, ask: Callable[[str], Answer]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, key: str) -> Answer:
        answer = self._ask(key)
        if len(key) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[key] = answer
        return answer
