"""The config: typed sections whose defaults are the paper's values (Tables 1 and 2); `loading` resolves it."""

from typing import Annotated

from pydantic import Field, model_validator

from mapnet_cli.config.base import (
    RESERVED,
    VALID_NAME,
    Count,
    Section,
    Strings,
    operational,
    short_name,
    task_name,
)
from mapnet_cli.config.corpus import Cleanup, Corpus, Source
from mapnet_cli.config.finetune import Finetune, TaskData
from mapnet_cli.config.method import PROPOSALS, FrequencyProposal, MapNetProposal, Method, TableProposal
from mapnet_cli.config.training import MapNetSizes, MinimalPairs, Optimiser, Pretrain, Transformer
from mapnet_cli.core import automatic_precision, did_you_mean


class Report(Section):
    """Settings that affect how results are shown, not the results themselves."""

    figure2_sentences: Count = operational(6)
    """Number of held-out sentences in Figure 2."""
    name: Annotated[str, Field(pattern=r"^[\w-]*$", json_schema_extra={"operational": True})] = ""
    """Name of the report's folder below `report/`; empty: the config file's, or the recipe's."""


class Config(Section):
    recipe: str = ""
    """Recipe to start from: demo, small, paper or continue; empty: the defaults."""
    base: str = ""
    """Folder of a BERT, RoBERTa or ModernBERT, written by save_pretrained, from which all methods start. It is imported
    under the folder's name (base-NAME if a shipped method has that name) and is a row of Table 3; [encoder] and the
    tokenizer are its own."""
    methods: Strings = ("bert", "mapnet")
    """Methods to pretrain and compare, each defined in a `[method.NAME]` table."""
    imports: Strings = ()
    """Imported encoders (`mapnet import-hf`) to compare with the methods, each with its own tokenizer."""
    corpus: Corpus = Corpus()
    encoder: Transformer = Transformer()
    proposal: MapNetSizes = MapNetSizes()
    method: dict[str, Method] = Field(default_factory=dict)
    pretrain: Pretrain = Pretrain()
    minimal_pairs: MinimalPairs = MinimalPairs()
    finetune: Finetune = Finetune()
    report: Report = Report()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        for name in self.methods:
            if name not in self.method:
                hint = did_you_mean(name, self.method)
                raise ValueError(f"methods lists {name!r}, but there is no [method.{name}]{hint}")
            try:
                self.generator(name)
            except ValueError as error:
                raise ValueError(f"method.{name}.electra.generator_fraction: {error}; raise it") from None
        # methods with different steps are compared milestone by milestone, so no two milestones may coincide
        for name in self.methods if any(self.method[name].steps for name in self.methods) else ():
            if len(self.milestone_steps(name)) < len(self.pretrain.milestones):
                key = f"method.{name}.steps" if self.method[name].steps else "pretrain.steps"
                steps = self.for_method(name).pretrain.steps
                raise ValueError(f"{key} ({steps}): two milestones fall on the same step")
        names = self.methods + self.imports
        for name in names:
            if not VALID_NAME.fullmatch(name) or name.lower() in RESERVED:
                key = "methods" if name in self.methods else "imports"
                what = "is a row that the tables have anyway" if name.lower() in RESERVED else "is not a valid name"
                raise ValueError(f"{key}: {name!r} {what}: choose a name of letters, digits, . _ -")
        if not names:
            raise ValueError("methods and imports are both empty: name at least one method or import")
        for section in ("finetune", "minimal_pairs"):
            if absent := set(getattr(self, section).milestones) - set(self.pretrain.milestones):
                known = ", ".join(map(str, self.pretrain.milestones))
                raise ValueError(
                    f"{section}.milestones: {min(absent)} is not one of pretrain.milestones ({known}); [] means all"
                )
        if taken := set(self.imports) & set(self.method):
            raise ValueError(f"imports: {', '.join(sorted(taken))} is a method's name: rename the method or the import")
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("methods and imports: two names differ only in capitals, so their files could be the same")
        for name, model in (("encoder", self.encoder), ("proposal", self.proposal)):
            if self.corpus.block_length > model.max_length:
                raise ValueError(
                    f"corpus.block_length ({self.corpus.block_length}) exceeds {name}.max_length ({model.max_length})"
                )
        return self

    def with_precision(self, flip: bool = False) -> "Config":
        """Returns the config with the automatic precisions chosen for this machine; with `flip`, the others."""
        chosen = {}
        for name, section in (("pretrain", self.pretrain), ("finetune", self.finetune)):
            if section.precision == "auto":
                here = automatic_precision(section.device)
                there = "float32" if here == "bfloat16" else "bfloat16"
                chosen[name] = section.model_copy(update={"precision": there if flip else here})
        return self.model_copy(update=chosen) if chosen else self

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """Returns the pretraining seeds of a method."""
        return self.method[method].seeds or self.pretrain.seeds

    def pretraining_runs(self) -> list[tuple[str, int]]:
        """Returns (method, seed) of every pretraining run."""
        return [(method, seed) for method in self.methods for seed in self.seeds_of(method)]

    def checkpoints(self, shares: tuple[float, ...] = ()) -> list[tuple[str, int, int]]:
        """Returns (method, seed, step) of every milestone, or of those at the given shares of the steps."""
        steps = {method: self.for_method(method).pretrain.milestone_steps(shares) for method in self.methods}
        return [(method, seed, step) for method, seed in self.pretraining_runs() for step in steps[method]]

    def for_method(self, method: str) -> "Config":
        """Returns the config with a method's own steps, batch size and peak rate; not to be asked for it again."""
        own, common = self.method[method] if method in self.methods else Method(), self.pretrain
        update = {
            "steps": own.steps or common.steps,
            "batch_size": own.batch_factor * common.batch_size,
            "peak_lr": own.peak_lr or common.peak_lr,
        }
        pretrain = common.model_copy(update=update)
        return self if pretrain == common else self.model_copy(update={"pretrain": pretrain})

    def last_step(self, method: str) -> int:
        """Returns the step of a method's last milestone, where its training ends."""
        return max(self.milestone_steps(method))

    def milestone_steps(self, method: str) -> tuple[int, ...]:
        """Returns the steps of a method's milestones, ascending."""
        return self.for_method(method).pretrain.milestone_steps()

    def fine_tuned_steps(self, method: str = "") -> tuple[int, ...]:
        """Returns the steps of the milestones to fine-tune; without a method, those for pretrain.steps."""
        return self.for_method(method).pretrain.milestone_steps(self.finetune.milestones)

    def matching_step(self, method: str, step: int, other: str) -> int:
        """Returns another method's step at the same fraction of its training."""
        return self.fine_tuned_steps(other)[self.fine_tuned_steps(method).index(step)]

    def generator(self, method: str) -> Transformer | None:
        """Returns the sizes of a method's generator, or None; only ELECTRA has a generator."""
        electra = self.method[method].electra
        return self.encoder.narrowed(electra.generator_fraction) if electra else None
