"""Continued pretraining: the encoder and head of an import in place of random weights."""

from typing import TYPE_CHECKING

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import DamagedError, UsageError
from mapnet_cli.core.records import Imported
from mapnet_cli.lineage.graph import Lineage

if TYPE_CHECKING:
    from mapnet_cli.model.networks import AnyPretrainingModel


def start_key(lineage: Lineage, method: str) -> str:
    """Returns the key of the import that a method starts from, "" if it starts from random weights.

    Raises UsageError, naming each key and the value it must have, if the config's encoder is another one.
    """
    config = lineage.config
    name = config.method[method].start
    if not name:
        return ""
    marker = lineage.imported(name)
    row = Imported(**marker.result)
    # dropout has no weights: it may differ
    sizes = {key: value for key, value in row.encoder.items() if "dropout" not in key}
    wrong = [f"encoder.{key} = {value}" for key, value in sizes.items() if getattr(config.encoder, key) != value]
    own = lineage.imported(config.corpus.tokenizer).result if config.corpus.tokenizer else {}
    if own.get("tokenizer_fingerprint") != row.tokenizer_fingerprint:
        wrong.append(f'corpus.tokenizer = "{name}"')
    if wrong:
        raise UsageError(f"method.{method}.start: to start from {name!r}, set {', '.join(wrong)}")
    return marker.key


def start_from(artifacts: Artifacts, imported: str, model: "AnyPretrainingModel") -> None:
    """Puts an import's encoder and, where there is one, head into the model; the rest stays. Raises DamagedError."""
    from mapnet_cli.training.checkpoint import load_checkpoint

    try:
        tensors, _ = load_checkpoint(artifacts.path(imported))
    except DamagedError as error:
        raise DamagedError(f"{error}: run `mapnet import-hf` again") from None
    state = model.state_dict()
    model.load_state_dict(state | {name: tensor for name, tensor in tensors.items() if name in state})
