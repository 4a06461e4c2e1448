"""Masking strategies, mask sampling, importance weights and objectives."""

# fmt: off
# isort: off
from mapnet_cli.masking.context import NO_CONTEXT, CorpusFacts, MaskContext
from mapnet_cli.masking.importance import ESTIMATORS, Drawn, Estimator, Weights, log_sequence_ratio
from mapnet_cli.masking.objectives import OBJECTIVES, entropy
from mapnet_cli.masking.sampling import (
    MaskNoise, Masks, corrupt, mask_counts, maskable_positions, max_mask_count, mixed_with_uniform, uniform_log_q,
    valid_slots,
)
from mapnet_cli.masking.schedule import ProposalWork, StepPlan, plan_step
from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest, Strategy, draw_masks, uniform, visits_in_turn
from mapnet_cli.masking.validate import CHOICES, validate_method
