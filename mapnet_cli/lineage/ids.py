"""Names of artifacts: a prefix and the first digits of a fingerprint."""

from typing import Any

from mapnet_cli.core import ArtifactId, Checkpoint
from mapnet_cli.lineage.digests import fingerprint

# Increased when a stage's output changes for the same settings.
FORMATS = {
    "text": 3, "corpus": 2, "pretraining": 3, "probe": 1, "task": 2, "finetuning": 4, "baseline": 2, "import": 2,
    "variance": 3, "predictions": 2, "pairs": 1, "kept": 1,
}  # fmt: skip


def manifest_key(corpus: ArtifactId) -> str:
    """Returns the key of a corpus's manifest."""
    return f"{corpus.key}/manifest"


def variance_id(checkpoint: Checkpoint, settings: dict[str, Any]) -> ArtifactId:
    """Gradient variances of a checkpoint, identified by its weights and the measurement settings."""
    prefix = f"variance/{checkpoint.method}-seed{checkpoint.pretrain_seed}-step{checkpoint.step}-"
    return artifact_id(prefix, "variance", checkpoint.fingerprint, settings)


def import_id(name: str, sizes: dict[str, Any], weights: str, tokenizer: str) -> ArtifactId:
    """An imported encoder, identified by its sizes and the SHA-256 of its weights and of its tokenizer."""
    return artifact_id(f"import/{name}-", "import", sizes, weights, tokenizer)


def artifact_id(prefix: str, kind: str, *parts: Any) -> ArtifactId:
    """Returns the id whose key is the prefix and the first digits of the fingerprint of a kind's parts."""
    digest = fingerprint(kind, FORMATS[kind], *parts)
    return ArtifactId(prefix + digest[:8], digest)
