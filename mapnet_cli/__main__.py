"""Runs `mapnet` as `python -m mapnet_cli`."""

from mapnet_cli.cli.commands import app

if __name__ == "__main__":
    app(prog_name="mapnet")
