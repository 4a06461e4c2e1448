"""mapnet: variance-reduced language-model pretraining with a mask proposal network."""

import importlib.util
import sys

if importlib.util.find_spec("tomllib") is None:  # part of Python from 3.11 on
    raise SystemExit(f"error: mapnet needs Python 3.11 or newer, but {sys.executable} is {sys.version.split()[0]}")

__version__ = "0.2.0"
