"""Which sequences a step trains on, in which order: a function of (seed, step), the same for every method."""

import torch
from torch import Tensor

from mapnet_cli.seeds import derive_seed
from mapnet_cli.text.shards import Sequences
from mapnet_cli.vocabulary import PAD


class DataOrder:
    """Goes through the corpus in a fresh random order each epoch; steps run on from one epoch into the next."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self._orders: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """Returns the sequence numbers [B] of a step."""
        places = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = places // self.count
        return torch.stack([self._order(int(e))[p % self.count] for e, p in zip(epochs, places, strict=True)])

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "data order", epoch))
            self._orders[epoch] = torch.randperm(self.count, generator=generator)
        return self._orders[epoch]


def load_batch(sequences: Sequences, indices: Tensor) -> Tensor:
    """Returns the sequences' tokens [B, L], padded to the longest of them."""
    chosen = indices.numpy()
    return torch.from_numpy(sequences.batch(chosen, int(sequences.lengths[chosen].max()), PAD))
