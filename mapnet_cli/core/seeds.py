"""One place where randomness begins: every generator is derived from (seed, stream, position).

Nothing random has to be saved in a checkpoint, because step 10,000 derives its generator from the
number 10,000, whatever happened before it.
"""

import hashlib


def derive_seed(seed: int, stream: str, *position: int | str) -> int:
    """Returns a 63-bit seed that depends on every argument and on nothing else.

    `stream` names the use ("masks", "dropout", "data order"), so that two uses never share draws.
    """
    text = "\x1f".join([str(seed), stream, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
