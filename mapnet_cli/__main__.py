"""Runs `mapnet` as `python -m mapnet_cli`."""

import sys

if __name__ == "__main__":
    try:
        from mapnet_cli.cli.commands import main
    except ModuleNotFoundError as error:
        missing = f"{sys.executable} has no package {error.name!r}, which mapnet needs"
        raise SystemExit(f"error: {missing}: use the Python of the environment where mapnet is installed") from None
    main()
