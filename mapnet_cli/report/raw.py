"""records.jsonl: the records behind the report, one a line, for a check or a statistic of one's own."""

import json
from collections.abc import Iterator
from typing import Any

from mapnet_cli.report.load import Results
from mapnet_cli.report.notes import PROBE, is_probe, on_what


def records(results: Results, signed: str) -> str:
    """Returns a line with the report's signature, then the corpus, imports, checkpoints, tasks, baselines and runs.

    Each line is an object whose "record" says of which class of records.py it is.
    """
    scores = f"GLUE's dev sets{on_what(results)}" if not is_probe(results.config) else PROBE
    rows = [{"record": "signature", "signature": signed, "scores": scores}, *_rows(results)]
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _rows(results: Results) -> Iterator[dict[str, Any]]:
    # without the beginnings of dropped paragraphs: a report may go where the text may not
    corpus = [results.manifest.model_copy(update={"examples": {}})] if results.manifest else []
    for row in (
        *corpus,
        *results.imports,
        *results.checkpoints.values(),
        *results.tasks.values(),
        *results.baselines,
        *results.runs,
    ):
        yield {"record": type(row).__name__} | row.to_json()
