"""Checks that work grows no faster than its input, without a limit in seconds."""

import time
from collections.abc import Callable


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Four times the input may take ten times the CPU time; quadratic work takes sixteen times."""
    seconds = []
    for scale in (1, 4):
        start = time.process_time()
        work(scale * size)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 10 * seconds[0] + 0.1
