"""GLUE: tasks, data locations, the fine-tuning grid, and scores."""

# fmt: off
# isort: off
from mapnet_cli.glue.grid import (
    GLUE_COLUMNS, UNTRAINED, GridRun, fine_tuned, grid_runs, metrics_by_task, other_rows, runs_of, starts_from_mnli,
    used_tasks,
)
from mapnet_cli.glue.scoring import (
    SPLITS, Floats, Grid, GridKey, Halves, RunScore, ScoreColumn, Seeds, Setting, baseline_scores, best_setting,
    columns_of, counted_scores, one_class, rows_used, run_grids, score, score_halves, subsets, task_result,
)
from mapnet_cli.glue.tasks import (
    OWN_TASKS, TASKS, GlueTask, OwnTask, data_key, divided, get_task, is_test_file, names_task, plain,
    task_location,
)
