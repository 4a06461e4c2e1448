from mapnet_cli.config import Config


def forecast(config: Config) -> list[str]:
    return ["FLOPs"]
