"""Races between implementations: each in a process of its own, taking turns, measured in CPU seconds of one thread.

A side is a function that sets itself up, then calls `lap()` after every lap of a fixed amount of work and never
returns. A round is one lap of every side, so a drifting clock speed affects all sides alike, and each
round starts with another side.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection

import torch

from mapnet_cli.training.device import device_name

Lap = Callable[[], None]
Side = Callable[[Lap], None]
WARM_UP = 6
"""Laps before the measured ones: imports, page faults, kernels that are compiled on first use, Adam's state."""


@dataclass(frozen=True)
class Rates:
    """Work per second in each round."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def race(
    sides: dict[str, Side], work: float, rounds: int, device: str = "cpu", threads: int = 1, parallel: int = 1
) -> dict[str, Rates]:
    """Returns each side's rate: `work` (of one lap) per CPU second, or per second of wall time on a GPU.

    Each side runs in `parallel` processes at a time, and its rate is their sum. Sides must be
    picklable. Raises EOFError if one fails.
    """
    torch.set_num_threads(threads)  # here too, since `report` states it
    rates: dict[str, list[float]] = {name: [] for name in sides}
    # half of the rounds with processes started in the other order: early ones were up to a tenth slower
    for names, count in ((list(sides), (rounds + 1) // 2), (list(sides)[::-1], rounds // 2)):
        if not count:
            continue
        teams = {name: _start(name, sides[name], device, threads, parallel) for name in names}
        for number in range(count):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                rates[name].append(sum(work / seconds for seconds in _seconds_of_lap(teams[name])))
            print(f"round {len(rates[names[0]])} of {rounds} done", file=sys.stderr)
        for process in active_children():
            process.kill()
            process.join()
    return {name: Rates(values) for name, values in rates.items()}


def _start(name: str, side: Side, device: str, threads: int, parallel: int) -> list[Connection]:
    """Starts a side's processes and returns connections to them after the warm-up."""
    context, team = get_context("spawn"), []
    for _ in range(parallel):
        here, there = context.Pipe()
        context.Process(target=_serve, args=(side, there, device, threads), name=name, daemon=True).start()
        there.close()
        team.append(here)
    for _ in range(WARM_UP):
        _seconds_of_lap(team)
    return team


def _seconds_of_lap(team: list[Connection]) -> list[float]:
    for line in team:
        line.send(None)
    return [line.recv() for line in team]


def _serve(side: Side, line: Connection, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    clock = time.process_time if device == "cpu" else time.perf_counter
    line.recv()
    start = clock()

    def lap() -> None:
        nonlocal start
        if device == "cuda":
            torch.cuda.synchronize()
        line.send(clock() - start)
        try:
            line.recv()
        except EOFError:
            sys.exit()
        start = clock()

    side(lap)


def report(name: str, rates: dict[str, Rates], ours: str, device: str, **facts: object) -> None:
    """Prints all sides on stderr, fastest first, and the race's JSON object on stdout.

    Its `ratio` is the median over the rounds of `ours` relative to the best side that is not mapnet's.
    """
    best = max((side for side in rates if not is_ours(side)), key=lambda side: rates[side].median)
    for side, of_side in sorted(rates.items(), key=lambda item: -item[1].median):
        relative = ratios(rates[ours], of_side)
        print(
            f"{side:55} {of_side.median:10,.1f}   mapnet's default is {statistics.median(relative):5.2f} times as fast "
            f"({min(relative):.2f} to {max(relative):.2f})",
            file=sys.stderr,
        )
    relative = ratios(rates[ours], rates[best])
    result = {
        "name": name, "ours": rates[ours].median, "theirs": rates[best].median, "ratio": statistics.median(relative),
        "least": min(relative), "most": max(relative), "against": best,
        "all": {side: of_side.median for side, of_side in rates.items()},
        "device": device_name(torch.device(device)), **facts,
    }  # fmt: skip
    print(json.dumps(result))


def is_ours(side: str) -> bool:
    return side.startswith("mapnet")


def ratios(a: Rates, b: Rates) -> list[float]:
    return [x / y for x, y in zip(a.rounds, b.rounds, strict=True)]


def matching(sides: dict[str, Side], wanted: Iterable[str]) -> dict[str, Side]:
    """Returns the sides whose names contain all of the words in any of `wanted`; all sides if it is empty."""
    chosen = [words.split() for words in wanted]
    return {n: s for n, s in sides.items() if not chosen or any(all(w in n for w in words) for words in chosen)}
