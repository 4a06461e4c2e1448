"""Seeds of all random generators, derived from (seed, stream, position).

Checkpoints store no random state: step 10,000 derives its generators from the number 10,000.
"""

import hashlib


def derive_seed(seed: int, stream: str, *position: int | str) -> int:
    """Returns a 63-bit seed that depends on the arguments alone.

    `stream` names the use ("masks", "dropout", "data order"), so that two uses never share random numbers.
    """
    text = "\x1f".join([str(seed), stream, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
