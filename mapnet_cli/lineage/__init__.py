"""Dependencies of each artifact, and the name derived from them."""

from mapnet_cli.lineage.digests import InputFile, InputListing, fingerprint, list_input
from mapnet_cli.lineage.graph import (
    Lineage,
    PairsRun,
    import_id,
    manifest_key,
    precision_advice,
    scored_encoders,
    variance_id,
)
from mapnet_cli.lineage.milestones import find_milestone, find_row

__all__ = [
    "InputFile", "InputListing", "Lineage", "PairsRun", "find_milestone", "find_row", "fingerprint", "import_id",
    "list_input", "manifest_key", "precision_advice", "scored_encoders", "variance_id",
]  # fmt: skip
