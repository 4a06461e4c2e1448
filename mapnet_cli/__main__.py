"""`python -m mapnet_cli` is the same program as the `mapnet` script."""

from mapnet_cli.cli.commands import app

if __name__ == "__main__":
    app(prog_name="mapnet")
