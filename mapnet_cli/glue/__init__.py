"""GLUE: tasks, data locations, the fine-tuning grid, and scores."""

# fmt: off
# isort: off
from mapnet_cli.glue.grid import (
    GLUE_COLUMNS, UNTRAINED, GridRun, fine_tuned, grid_runs, metrics_by_task, other_rows, runs_of, starts_from_mnli,
    used_tasks,
)
from mapnet_cli.glue.scoring import (
    SPLITS, Floats, Grid, GridKey, Halves, RunScore, ScoreColumn, Seeds, Setting, baseline_scores, best_setting,
    columns_of, rows_used, run_grids, score, score_halves, subsets,
)
from mapnet_cli.glue.tasks import (
    LARGEST_SCORE, TASKS, GlueTask, data_key, divided, get_task, is_test_file, names_task, plain, short_name,
    task_location,
)
