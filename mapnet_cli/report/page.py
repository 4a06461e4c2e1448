"""The HTML page: its question, answers and sections, and the script and style that make it work without a network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.config.explain import flatten
from mapnet_cli.core import CONFIG, Cell, Chart, Table, few, format_duration, render, table_of
from mapnet_cli.glue import UNTRAINED
from mapnet_cli.report.differences import Differences, final
from mapnet_cli.report.labels import BEYOND, TEXTS, encoder_name, label
from mapnet_cli.report.load import Results
from mapnet_cli.report.masks import SHADES
from mapnet_cli.report.scores import LOSS, SCORE, cost, mean_or_none
from mapnet_cli.report.trajectories import losses_reached, share_cell


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a text, and charts and tables, of which those in `folded` are closed at first."""

    name: str
    title: str
    text: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()
    masks: Sequence[Mapping[str, Any]] = ()

    @property
    def filled(self) -> bool:
        tables = (table.rows for table in (*self.tables, *self.folded))
        return any((self.masks, *(chart.panels for chart in self.charts), *tables))


def question(methods: Sequence[str], base: str = "") -> str:
    """Returns what the report answers, for the methods' labels and the import from which the only one starts."""
    if len(methods) == 1 and base:
        return f"Is {base} better after more pretraining on this text, and at what cost?"
    if len(methods) < 2:
        return f"How good an encoder does {(methods or ['this grid'])[0]} give?"
    named = " or ".join(filter(None, (", ".join(methods[1:-1]), methods[-1])))
    named = f"any of {len(methods) - 1} other methods" if len(methods) > 4 else named
    return f"Does pretraining with {named} give a better encoder than {methods[0]}, and at what cost?"


def headline(config: Config, differences: Differences) -> list[str]:
    """Returns the short answer: which methods' average scores differ from the first method's beyond the noise.

    If none does, a second sentence has the differences in held-out loss, which tells methods apart sooner.
    """
    first, others = "".join(config.methods[:1]), config.methods[1:]
    found = [(m, final(config, differences, SCORE, m, first)) for m in others]
    better = [m for m, d in found if d and d.better]
    worse = [m for m, d in found if d and d.beyond_noise and not d.better]
    unsure = [m for m, d in found if d and d.interval is None]
    groups = (
        (better, "scores", "score", f"higher than {label(first)} beyond the noise"),
        (worse, "scores", "score", "lower"),
        (unsure, "can't", "can't", "be told from it with fewer than three seeds"),
        ([m for m, d in found if d is None], "has", "have", "no scores to compare yet"),
    )
    parts = [
        f"{few([label(m) for m in those]) or 'No method'} {verbs if len(those) > 1 else verb} {what}"
        for number, (those, verb, verbs, what) in enumerate(groups) if those or not number
    ]  # fmt: skip
    lines = [f"{'; '.join(parts)}."] if others and config.finetune.tasks else []
    losses = [d for m in others if (d := final(config, differences, LOSS, m, first))]
    if losses and not any(d and d.beyond_noise for _, d in found):
        losses.sort(key=lambda d: d.mean)
        shown = few([f"{label(d.method)} {d.text(d.mean)}{BEYOND * d.beyond_noise}" for d in losses])
        lines.append(f"Held-out loss minus {label(first)}'s, in nats, lowest first: {shown}.")
    return lines


def answers(results: Results, differences: Differences) -> list[str]:
    """Returns one sentence per method: score and loss minus the first method's, or that minus the untrained encoder.

    Of the others also the share of the first method's FLOPs at which they have its final held-out loss.
    """
    config, found = results.config, []
    for method in config.methods:
        first, parts = config.methods[0], list[str]()
        before = UNTRAINED if config.finetune.untrained else config.method[method].init_from or UNTRAINED
        reference = before if method == first else first
        for measure, unit in ((SCORE, "points"), (LOSS, "nats")):
            if one := final(config, differences, measure, method, reference):
                n = len(one.values)
                parts.append(f"{measure} {one.cell().text} {unit} ({n} {one.unit}{'s' * (n > 1)})")
        ours, theirs = (cost(results, name, config.fine_tuned_steps(name)[-1], "flops") for name in (method, first))
        parts += [f"at {ours / theirs:.2f} times the FLOPs"] if method != first and ours and theirs else []
        several = method != first and len(config.milestone_steps(method)) > 1
        at = losses_reached(results, method).values() if several else ()
        base, share = label(first), share_cell(at, "flops").text
        then = f"; it doesn't reach {base}'s final loss" if at else ""
        then = f"; it reaches {base}'s final loss at {share} of {base}'s FLOPs" if any(at) else then
        found += [f"{label(method)} minus {label(reference)}: {', '.join(parts)}{then}."] if parts else []
        last = [row.validation.get(results.loss) for row in results.checkpoints_at(method, config.last_step(method))]
        if (start := results.before.get(before)) and (after := mean_or_none(last)) is not None:
            found.append(
                f"Held-out loss of {before}: {start[results.loss]:.3f} before, {after:.3f} after {label(method)}."
            )
    return found


def config_table(results: Results, origins: Mapping[str, str]) -> Table:
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
    return table_of("config", "Config", rows, (), results.signed)


def fingerprint_table(results: Results) -> Table:
    """Returns what the numbers come from: corpus, versions, and the weights of every checkpoint."""
    rows = {"corpus": results.corpus}
    if made := results.manifest:
        counts = ("documents", "sentences", "words", "tokens", "train_sequences", "validation_sequences", "vocab_size")
        rows |= {name.replace("_", " "): f"{getattr(made, name):,}" for name in counts}
        rows |= {f"dropped: {rule}": f"{number:,} paragraphs" for rule, number in made.dropped.items()}
        rows |= {f"problem {number}": problem for number, problem in enumerate(made.problems, 1)}
    rows |= {f"version of {name}": ", ".join(seen) for name, seen in results.versions.items()}
    rows |= {
        encoder_name(*encoder): f"{row.fingerprint}, {row.device}, {format_duration(row.seconds)}"
        for encoder, row in results.checkpoints.items()
    }
    shown = ({"What": what, "Value or SHA-256": value} for what, value in rows.items())
    return table_of("fingerprints", "Corpus, versions and checkpoints", shown, (), results.signed)


def page(table3: Table, sections: Sequence[Section], **values: Any) -> str:
    """Returns the page; `values` are those of the template."""
    shown = [section for section in sections if section.filled]
    tables = (table3, *(table for section in shown for table in (*section.tables, *section.folded)))
    charts = {chart.name: vars(chart) for section in shown for chart in section.charts if chart.panels}
    embedded = {"config": CONFIG, "charts": {name: {k: c[k] for k in ("data", "panels")} for name, c in charts.items()}}
    text = json.dumps(embedded, ensure_ascii=False, separators=(",", ":"))
    return render(
        "mapnet_cli.report", "index.html", table3=table3, sections=shown, script=library(), shades=SHADES,
        charts=text.replace("<", "\\u003c"), noted=[table for table in tables if table.notes and table.rows],
        **values,
    )  # fmt: skip


@cache
def library() -> str:
    """Returns the plotting library as JavaScript; bundling it takes seconds."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version="6.4")
    return bundle.replace("</script", "<\\/script")
