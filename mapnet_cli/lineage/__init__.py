"""Dependencies of each artifact, and the name derived from them."""

# fmt: off
# isort: off
from mapnet_cli.lineage.digests import (
    Digests, InputFile, InputListing, code_of, code_of_method, fingerprint, import_id, list_input, variance_id,
)
from mapnet_cli.lineage.graph import Lineage, PairsRun, scored_encoders
from mapnet_cli.lineage.milestones import find_baselines, find_milestone, find_row, find_runs, precision_advice
