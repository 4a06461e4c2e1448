"""Settings without effect: keys that a user has set, but that the other settings leave unused."""

from collections.abc import Iterable, Mapping

from mapnet_cli.config import Config, MinimalPairs
from mapnet_cli.config.corpus import SOURCE_KINDS, USE
from mapnet_cli.config.explain import flatten
from mapnet_cli.core import did_you_mean

ABOVE = ("--set", "environment")  # origins above a config file
MODERN_KEYS = ("local_attention", "global_every", "rope_theta", "rope_theta_local")


def without_effect(config: Config, given: Mapping[str, str]) -> list[str]:
    """Returns a warning for each section or key without effect of those that the user gave, with their origins.

    And for each table of weights that is never used, since a shipped interval is too long for a short training.
    """
    warnings, chosen = list[str](), given.get("methods") in ABOVE
    values, defaults = (flatten(one.model_dump(mode="json")) for one in (config, Config.model_construct()))
    given = {
        name: origin for name, origin in given.items() if name not in defaults or values.get(name) != defaults[name]
    }
    for unused, reason in _unused(config, chosen):
        for key in dict.fromkeys(key for key in unused if any(_within(name, key) for name in given)):
            origin = next(origin for name, origin in given.items() if _within(name, key))
            warnings.append(f"{key} ({origin}) has no effect: {reason}")
    for number, source in enumerate(config.corpus.sources if "corpus.sources" in given else ()):
        for key, kinds in USE.items():
            if key in source.model_fields_set and source.kind in SOURCE_KINDS and source.kind not in kinds:
                what = f"corpus.sources.{number}.{key} ({given['corpus.sources']}) has no effect"
                warnings.append(f'{what}: the kind of this source is "{source.kind}"')
    for name in config.methods:
        every, last = getattr(config.method[name].proposal, "update_every", 0), config.last_step(name)
        if every >= last > 1:
            what = f"method.{name}.proposal.update_every ({every:,}) is never reached: training ends at step {last:,}"
            warnings.append(f"{what}, so all masks are uniform; set a smaller number, such as {max(1, last // 10):,}")
    return warnings


def _within(name: str, key: str) -> bool:
    return f"{name}.".startswith(f"{key}.")


def _unused(config: Config, chosen: bool) -> Iterable[tuple[Iterable[str], str]]:
    """Yields keys and sections that aren't used, and why; not methods, if they were chosen on the command line."""
    for name in config.method:
        if name not in config.methods and not chosen:
            yield [f"method.{name}"], f"methods doesn't list {name!r}{did_you_mean(name, config.methods)}"
    for section, sizes in (("encoder", config.encoder), ("proposal", config.proposal)):
        if sizes.architecture == "bert":
            yield (f"{section}.{key}" for key in MODERN_KEYS), f'{section}.architecture is "bert"'
        else:
            yield [f"{section}.initial_positions"], f'{section}.architecture is "{sizes.architecture}"'
            if not sizes.local_attention:
                keys = (f"{section}.{key}" for key in ("global_every", "rope_theta_local"))
                yield keys, f"{section}.local_attention is 0"
    if config.corpus.tokenizer:
        keys = (f"corpus.{key}" for key in ("vocab_size", "lowercase", "bpe_sample_words", "bpe_word_chars"))
        yield keys, f"the tokenizer is that of the import {config.corpus.tokenizer}"
    if config.corpus.blocks == "sentence":
        yield ["corpus.cross_documents"], 'corpus.blocks is "sentence"'
    finetune = config.finetune
    if finetune.tasks:
        absent = set(finetune.task_data) - {*finetune.tasks, "MNLI", "AX"}
        yield (f"finetune.task_data.{name}" for name in sorted(absent)), "finetune.tasks doesn't list it"
    if not finetune.from_mnli:
        yield ["finetune.mnli_batch_size", "finetune.mnli_learning_rate"], "finetune.from_mnli is empty"
    if not config.minimal_pairs.data:
        keys = (f"minimal_pairs.{key}" for key in MinimalPairs.model_fields if key != "data")
        yield keys, "minimal_pairs.data is empty"
