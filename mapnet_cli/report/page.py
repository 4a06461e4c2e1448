"""The HTML page: its question, answers and sections, and the script and style that make it work without a network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.config.explain import flatten
from mapnet_cli.core import CONFIG, Cell, Chart, Table, format_duration, render, table_of
from mapnet_cli.glue import UNTRAINED
from mapnet_cli.report.differences import LOSS, SCORE, Differences, sentence
from mapnet_cli.report.labels import TEXTS, label
from mapnet_cli.report.load import Results
from mapnet_cli.report.masks import SHADES
from mapnet_cli.report.scores import cost


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a text, and charts and tables, of which those in `folded` are closed at first."""

    name: str
    title: str
    text: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()
    masks: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def filled(self) -> bool:
        return any(
            (self.masks, *(chart.panels for chart in self.charts), *(t.rows for t in (*self.tables, *self.folded)))
        )


def question(methods: Sequence[str]) -> str:
    """Returns what the report answers, for the methods' labels."""
    if len(methods) < 2:
        return f"How good an encoder does {(methods or ['this grid'])[0]} give?"
    *others, last = methods[1:]
    named = f"{', '.join(others)} or {last}" if others else last
    named = f"any of {len(methods) - 1} other methods" if len(methods) > 4 else named
    return f"Does pretraining with {named} give a better encoder than {methods[0]}, and at what cost?"


def headline(config: Config, differences: Differences) -> str:
    """Returns the short answer: which methods' average score differs from the first method's beyond the noise."""
    if len(config.methods) < 2:
        return ""
    first = config.methods[0]
    found = {m: differences.get((SCORE, m, config.fine_tuned_steps(m)[-1], first)) for m in config.methods[1:]}
    better = [label(m) for m, one in found.items() if one and one.better]
    worse = [label(m) for m, one in found.items() if one and one.beyond_noise and not one.better]
    untested = [label(m) for m, one in found.items() if one and one.interval is None]
    absent = [label(m) for m, one in found.items() if one is None]
    parts = [f"{', '.join(better) or 'no method'} scores higher than {label(first)} beyond the noise"]
    parts += [f"{', '.join(worse)} lower"] if worse else []
    parts += [f"{', '.join(untested)} can't be told from it with fewer than three seeds"] if untested else []
    parts += [f"{', '.join(absent)} has no scores to compare yet"] if absent else []
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def answers(results: Results, differences: Differences) -> list[str]:
    """Returns one sentence per method: its score and held-out loss relative to the first method's, and its cost."""
    config, found = results.config, []
    flops = {name: cost(results, name, config.fine_tuned_steps(name)[-1], "flops") for name in config.methods}
    for method in config.methods:
        first, last = config.methods[0], config.fine_tuned_steps(method)[-1]
        known = [
            sentence(one, unit, digits)
            for measure, reference, step, unit, digits in (
                (SCORE, first, last, "points", 2),
                (LOSS, first, config.last_step(method), "nats", 3),
                (SCORE, UNTRAINED, last, "points", 2),
            )
            if (one := differences.get((measure, method, step, reference)))
        ]
        ours, theirs = flops[method], flops[first]
        if method != first and ours and theirs:
            known.append(f"{ours / theirs:.2f} times the FLOPs")
        found += [f"{label(method)}: {'; '.join(known)}."] if known else []
    return found


def config_table(results: Results, origins: Mapping[str, str], signed: str) -> Table:
    """Returns every config value with its origin, and the paper's value where there is one."""
    values = flatten(results.config.model_dump(mode="json"))
    unused = tuple(f"method.{name}." for name in results.config.method if name not in results.config.methods)
    rows = (
        {
            "Key": key,
            "Value": Cell(json.dumps(value, ensure_ascii=False)),
            "Origin": origins.get(key, "default"),
            "Paper": TEXTS["paper"].get(key, ""),
        }
        for key, value in values.items()
        if not key.startswith(unused)
    )
    return table_of("config", "Config", rows, (), signed)


def fingerprint_table(results: Results, signed: str) -> Table:
    """Returns what the numbers come from: corpus, versions, and the weights of every checkpoint."""
    rows = {"corpus": results.corpus}
    if made := results.manifest:
        counts = ("documents", "sentences", "words", "tokens", "train_sequences", "validation_sequences", "vocab_size")
        rows |= {name.replace("_", " "): f"{getattr(made, name):,}" for name in counts}
        rows |= {f"dropped: {rule}": f"{number:,} paragraphs" for rule, number in made.dropped.items()}
        rows |= {f"problem {number}": problem for number, problem in enumerate(made.problems, 1)}
    rows |= {f"version of {name}": ", ".join(seen) for name, seen in results.versions.items()}
    rows |= {
        f"{label(m)}, seed {seed}, step {step:,}": f"{row.fingerprint}, {row.device}, {format_duration(row.seconds)}"
        for (m, seed, step), row in results.checkpoints.items()
    }
    shown = ({"What": what, "Value or SHA-256": value} for what, value in rows.items())
    return table_of("fingerprints", "Corpus, versions and checkpoints", shown, (), signed)


def page(sections: Sequence[Section], script: str, **values: Any) -> str:
    """Returns the page; `script` is the plotting library, `values` those of the template."""
    charts = {
        chart.name: {"data": chart.data, "panels": chart.panels}
        for section in sections
        for chart in section.charts
        if chart.panels
    }
    embedded = json.dumps({"config": CONFIG, "charts": charts}, ensure_ascii=False, separators=(",", ":"))
    return render(
        "mapnet_cli.report", "index.html", sections=[s for s in sections if s.filled], script=script,
        charts=embedded.replace("<", "\\u003c"), shades=SHADES,
        is_text=lambda text: any(map(str.isalpha, text.replace("e+", ""))), **values,
    )  # fmt: skip


@cache
def library() -> str:
    """Returns the plotting library as JavaScript; bundling it takes seconds."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version="6.4")
    return bundle.replace("</script", "<\\/script")
