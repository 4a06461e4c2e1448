"""Results of machines whose automatic precision is another one."""

from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, MapnetError
from mapnet_cli.lineage.graph import Lineage


def precision_advice(config: Config, artifacts: Artifacts) -> str:
    """Returns how to use results of a machine with another automatic precision, or "" if there are none of use."""
    if config.with_precision() is config:  # nothing is automatic
        return ""
    here = Lineage(config, artifacts)
    there = Lineage(config.with_precision(flip=True), artifacts, here.digests)
    for method, seed in config.pretraining_runs():
        try:
            other = there.pretraining(method, seed)
            if other == here.pretraining(method, seed) or artifacts.marker(here.pretraining(method, seed).key):
                continue
            if artifacts.marker(other.key):
                found, precision = other.key, there.config.pretrain.precision
                return (
                    f"{found} is finished, in {precision}, but automatic precision here is "
                    f"{here.config.pretrain.precision}: to use it, set pretrain.precision={precision} "
                    f"and finetune.precision={precision}"
                )
        except MapnetError:  # reported by the command itself
            return ""
    return ""
