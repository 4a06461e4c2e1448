"""Facts about the machine and the installation that explain most failures."""

import platform
import shutil
import sys
from pathlib import Path

from mapnet_cli.core import main_memory, visible_gpus
from mapnet_cli.jobs import cores, library_versions


def facts(artifacts: Path) -> dict[str, str]:
    """Returns names and values, in display order."""
    total, available = main_memory()
    free = shutil.disk_usage(_existing(artifacts)).free
    rows = {
        "platform": platform.platform(),
        "python": f"{platform.python_version()} at {sys.executable}",
        **{name: version for name, version in library_versions().items() if name != "python"},
        "cores": str(cores()),
        "memory": f"{total / 1e9:.1f} GB, {available / 1e9:.1f} GB available" if total else "unknown",
        "artifacts": f"{artifacts.resolve()}, {free / 1e9:.1f} GB free",
        "gpus": str(visible_gpus()),
    }
    return rows | _torch_facts()


def _torch_facts() -> dict[str, str]:
    try:
        import torch
    except ImportError as error:
        return {"torch": f"can't be imported: {error}"}
    rows = {"torch threads": str(torch.get_num_threads())}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows[f"gpu {index}"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    return rows


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path
