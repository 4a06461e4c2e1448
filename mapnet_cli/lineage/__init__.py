"""Dependencies of each artifact, and the name derived from them."""

from mapnet_cli.lineage.digests import InputFile, InputListing, fingerprint, list_input
from mapnet_cli.lineage.graph import Lineage, PairsRun, scored_encoders
from mapnet_cli.lineage.ids import import_id, manifest_key, variance_id
from mapnet_cli.lineage.milestones import find_baselines, find_milestone, find_row, find_runs
from mapnet_cli.lineage.precision import precision_advice

__all__ = [
    "InputFile", "InputListing", "Lineage", "PairsRun", "find_baselines", "find_milestone", "find_row", "find_runs",
    "fingerprint", "import_id", "list_input", "manifest_key", "precision_advice", "scored_encoders", "variance_id",
]  # fmt: skip
