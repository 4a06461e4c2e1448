"""Dependencies of each artifact, and the name derived from them."""

# fmt: off
# isort: off
from mapnet_cli.lineage.digests import Digests, InputFile, InputListing, fingerprint, list_input
from mapnet_cli.lineage.graph import Lineage, PairsRun, scored_encoders
from mapnet_cli.lineage.ids import import_id, variance_id
from mapnet_cli.lineage.milestones import find_baselines, find_milestone, find_row, find_runs
from mapnet_cli.lineage.precision import precision_advice
