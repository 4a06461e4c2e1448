"""Code that all other packages use; it does not depend on models, tasks or the config."""

# fmt: off
# isort: off
from mapnet_cli.core.artifacts import (
    MARKS, TEMPORARY, ArtifactId, Artifacts, Marker, publishing, read_json, record_checksum, sha256, sync, write_bytes,
    write_json, write_text,
)
from mapnet_cli.core.console import Console, spell_out
from mapnet_cli.core.diagnostics import COLLAPSED, DIAGNOSTICS, proposal_warnings
from mapnet_cli.core.errors import (
    AbsentError, DamagedError, DivergedError, InputError, Interrupted, LockedError, MapnetError, PluginError,
    ProcessError, UsageError, did_you_mean, memory_advice, out_of_memory, reading_input, system_error, writing,
)
from mapnet_cli.core.formatting import few, format_count, format_duration, format_size
from mapnet_cli.core.hardware import (
    CUDA_BYTES, TRAINING_BYTES, automatic_precision, free_disk, installed_version, main_memory, min_free_memory,
    min_total_memory, query_gpus, visible_devices, visible_gpus,
)
from mapnet_cli.core.hub import hub_hint, hub_rows, is_hub, load_hub_split
from mapnet_cli.core.integrity import FOLDERS, heal, verify
from mapnet_cli.core.plotting import ACROSS, COLOURS, CONFIG, Chart, Spec, axis, image, named_colours
from mapnet_cli.core.plugins import Registry, find_plugin, plugin_code, plugin_names
from mapnet_cli.core.records import (
    Baseline, Baselines, Checkpoint, CorpusCounts, CorpusManifest, EncoderRecord, EpochScores, FinetuneRun, Imported,
    MaskedWord, Outcome, PairScores, ParadigmScore, PretrainingTotals, ProposedMasks, Row, SourceCounts, TaskFacts,
    TunedEncoder, log_rows, mean_accuracy,
)
from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.core.statistics import (
    CONFIDENCE, Interval, bootstrap_interval, holm, permutation_test, t_interval, t_test,
)
from mapnet_cli.core.table_files import (
    TABLE_FORMATS, TableRow, arrow_batches, arrow_rows, not_blank, saved_files, saved_rows, table_rows,
)
from mapnet_cli.core.tables import Cell, Table, number_cell, plain, render, table_of, to_json, to_markdown, to_rich
from mapnet_cli.core.user_files import COMPRESSED, LONGEST, json_object, readable, text_lines, whole_file
