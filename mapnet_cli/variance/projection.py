"""Mean gradients that are too large to keep: a CountSketch of them, whose inner products are unbiased.

Every parameter is added, with a random sign, to one of D random sums (Charikar et al. 2002). For any
two vectors the sketches' inner product is right on average over the draws and off by at most
sqrt(2 / D) times the vectors' norms (standard deviation).

Shapes: P parameters, D dimensions that are kept.
"""

import math

import torch
from torch import Tensor

from mapnet_cli.core.seeds import derive_seed

BYTES = 2**30
"""Of mean gradients in memory."""


class Projection:
    """The identity where the vectors fit, else a CountSketch to the largest power of two that does."""

    def __init__(self, size: int, vectors: int, seed: int, device: torch.device, budget: int = BYTES) -> None:
        room = max(1, budget // (4 * vectors))
        self.exact = size <= room
        self.dimensions = size if self.exact else 2 ** int(math.log2(room))
        if not self.exact:
            generator = torch.Generator().manual_seed(derive_seed(seed, "count sketch"))
            self._places_P = torch.randint(self.dimensions, (size,), generator=generator, dtype=torch.int64).to(device)
            signs_P = torch.randint(2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
            self._signs_P = signs_P.to(device)

    @property
    def relative_error(self) -> float:
        """Of an inner product, as a share of the two norms' product: an upper bound of its standard deviation."""
        return 0.0 if self.exact else math.sqrt(2 / self.dimensions)

    def __call__(self, vector_P: Tensor) -> Tensor:
        """Returns the vector, or its sketch, [D]."""
        if self.exact:
            return vector_P
        sketch_D = torch.zeros(self.dimensions, dtype=vector_P.dtype, device=vector_P.device)
        return sketch_D.index_add_(0, self._places_P, vector_P * self._signs_P)
