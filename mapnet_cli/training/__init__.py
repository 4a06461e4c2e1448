"""Training utilities: devices, precision, optimiser, checkpoints and FLOP counts."""

# fmt: off
# isort: off
from mapnet_cli.training.checkpoint import (
    FACTS, SEGMENT, TENSORS, BackgroundWriter, load_checkpoint, load_tensors, newest_checkpoint, prune_checkpoints,
    rolling_name, save_checkpoint, snapshot,
)
from mapnet_cli.training.device import (
    autocast, choose_device, device_name, keep_freed_memory, peak_flops, precision_advice,
)
from mapnet_cli.training.flops import Work, method_flops, peak_memory_mb, reset_peak_memory
from mapnet_cli.training.optim import (
    build_adamw, gradient_norm, learning_rate, optimizer_state, restore_optimizer, set_learning_rate,
)
