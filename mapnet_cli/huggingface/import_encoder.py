"""`mapnet import-hf`: converts a Hugging Face BERT, RoBERTa or ModernBERT to encoder, head and tokenizer."""

from pathlib import Path

import torch
from torch import Tensor

from mapnet_cli import core
from mapnet_cli.config import Transformer
from mapnet_cli.config.base import RESERVED, VALID_NAME
from mapnet_cli.config.hugging_face import first_position, read_config, require_folder, sizes_of
from mapnet_cli.huggingface import weights
from mapnet_cli.huggingface.tokenizer_files import read_tokenizer
from mapnet_cli.jobs import library_versions
from mapnet_cli.lineage import import_id
from mapnet_cli.model import PretrainingModel
from mapnet_cli.training import SEGMENT, save_checkpoint

_PADDING = (1, *(2**n for n in range(3, 10)))  # vocabularies are padded to a multiple of one of these
_FRESH_HEAD_SEED = 1


def import_folder(artifacts: core.Artifacts, folder: Path, name: str | None) -> tuple[core.Imported, list[str]]:
    """Writes import/NAME-DIGITS and its marker; returns the record and warnings for the user.

    Raises UsageError for an invalid name, InputError if the folder isn't a supported BERT; the
    message has the unsupported value and the supported ones.
    """
    name = name or folder.resolve().name
    if not VALID_NAME.fullmatch(name) or name.lower() in RESERVED:
        raise core.UsageError(f"{name!r} is not a valid import name: choose one of letters, digits, . _ - with --name")
    require_folder(folder)
    with core.readable(str(folder), "can't be imported"):
        config, encoder = read_config(folder / "config.json")
        rows = config["vocab_size"]
        tokenizer, old_ids, warnings = read_tokenizer(folder, config)
        if rows not in {-(-len(old_ids) // multiple) * multiple for multiple in _PADDING}:
            tokens = f"the tokenizer has {len(old_ids):,} tokens, but config.json's vocab_size is {rows:,}"
            raise core.InputError(f"{folder}: {tokens}: they don't belong together")
        found = weights.standard_names(weights.read_weights(folder))
        _check_size(encoder, sum(weight.numel() for weight in found.values()))
        model = PretrainingModel(encoder, len(old_ids), None)
        model.init_weights(_FRESH_HEAD_SEED)
        if (first := first_position(config)) and weights.POSITIONS in found:
            found[weights.POSITIONS] = found[weights.POSITIONS][first:]
        unused, fresh_head = _copy_weights(model, found, rows, old_ids)
    sizes = sizes_of(encoder)
    segment, segments = weights.Weights(), found.get(weights.SEGMENTS)
    if segments is not None and len(segments) > 1 and not torch.equal(segments[1], segments[0]):
        segment[SEGMENT] = segments[1] - segments[0]  # for fine-tuning on pairs
    with artifacts.lock("import"):
        row = _write(artifacts, name, model, segment, tokenizer.to_str(pretty=True), sizes)
    if unused:
        warnings.append(f"not part of encoder or masked-language-model head, so not imported: {', '.join(unused)}")
    if fresh_head:
        warnings.append(f"{folder} has no masked-language-model head: the import gets a randomly initialised one")
    if rows > len(old_ids):
        warnings.append(f"{rows - len(old_ids):,} embedding rows belong to no token and were dropped")
    return row, warnings


def _check_size(encoder: Transformer, parameters: int) -> None:
    """Raises ValueError if the config describes a far larger encoder than the weights: building it takes any memory."""
    positions = encoder.max_length if encoder.architecture == "bert" else 0
    described = encoder.hidden * (encoder.layers * (4 * encoder.hidden + 2 * encoder.ffn) + positions)
    if described > 4 * parameters:
        raise ValueError(f"config.json implies at least {described:,} weights, but the files have {parameters:,}")


def _copy_weights(
    model: PretrainingModel, found: weights.Weights, rows: int, old_ids: list[int]
) -> tuple[list[str], bool]:
    """Copies the weights into the model, with the vocabulary rows in their new order.

    Returns the names of unused weights, and whether the head is missing, in which case the model's own head is kept.
    Raises ValueError for a missing, unknown or misshapen weight.
    """
    wanted = {name: tensor for name, tensor in weights.to_hugging_face(model).items() if name not in weights.TIED}
    unused = weights.unused_weights(found, wanted)
    head = {name for name in wanted if name.startswith(("cls.", "head.", "decoder."))}
    fresh_head = not head & found.keys()
    kept = head if fresh_head else set()
    if missing := sorted(wanted.keys() - found.keys() - kept):
        raise ValueError(f"there is no weight {missing[0]}: does config.json belong to this model?")
    weights.from_hugging_face(
        {n: ours if n in kept else _reordered(n, found[n], ours, rows, old_ids) for n, ours in wanted.items()}, model
    )
    return unused, fresh_head


def _reordered(name: str, tensor: Tensor, ours: Tensor, rows: int, old_ids: list[int]) -> Tensor:
    """Returns the weight with its rows in the new order; raises ValueError if its shape doesn't match config.json."""
    vocabulary = len(ours) == len(old_ids) and name.endswith(weights.VOCABULARY)
    expected = (rows if vocabulary else len(tensor) if name == weights.SEGMENTS else len(ours), *ours.shape[1:])
    if tuple(tensor.shape) != expected or not len(tensor):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but config.json implies {expected}")
    return tensor[old_ids] if vocabulary else tensor


def _write(
    artifacts: core.Artifacts, name: str, model: PretrainingModel, segment: weights.Weights, tokenizer: str,
    sizes: dict[str, int | float | str],
) -> core.Imported:  # fmt: skip
    """Publishes the folder with weights and tokenizer, then the marker."""
    vocab_size = model.encoder.vocab_size
    staging = artifacts.path(f"import/{core.TEMPORARY}staging")  # the folder name depends on the content
    facts = {"encoder": sizes, "vocab_size": vocab_size}
    checksum = save_checkpoint(staging, model.state_dict() | segment, facts)
    core.write_text(staging / "tokenizer.json", tokenizer)
    digest = core.sha256(staging / "tokenizer.json")
    artifact = import_id(name, sizes, checksum, digest)
    folder = artifacts.path(artifact.key)
    with core.publishing(folder) as temporary:
        staging.rename(temporary)
    row = core.Imported(
        name=name, path=artifact.key, encoder=sizes, vocab_size=vocab_size, fingerprint=checksum,
        tokenizer=f"{artifact.key}/tokenizer.json", tokenizer_fingerprint=digest,
    )  # fmt: skip
    files = artifacts.checksums(sorted(folder.iterdir()))
    artifacts.publish(
        core.Marker(artifact.key, artifact.fingerprint, row.to_json(), files, versions=library_versions())
    )
    return row
