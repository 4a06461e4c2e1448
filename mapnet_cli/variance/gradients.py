"""Gradients of one sentence's loss, one for each of its masks, as flat vectors.

Shapes: M masks of one sentence, C of them at a time, L positions, K masked positions (at most),
P parameters of encoder and head.
"""

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.variance.masks import SentenceMasks

ELEMENTS = {"cpu": 2**22, "cuda": 2**28}
"""Gradient entries that stand in memory at a time, by device: more of them gain no speed."""


class SentenceGradients:
    """Without dropout, in float32; MAP-Net's parameters stay out.

    torch.func takes the gradients of several masks in one pass, on a CPU 2.4 times faster than a
    loop of backward passes (2 layers, hidden 128, 64 tokens, vocabulary 1,024).
    """

    def __init__(self, model: PretrainingModel) -> None:
        self._loss = _WeightedLoss(model.eval())
        self._parameters = {
            name: parameter.detach()
            for name, parameter in self._loss.named_parameters()
            if not name.startswith("model.proposal.")
        }
        self._gradients = vmap(grad(self._of_one), in_dims=(None, 0, 0, 0, 0))
        self.device = next(iter(self._parameters.values())).device
        self.size = sum(parameter.numel() for parameter in self._parameters.values())
        """P."""

    def of(self, masks: SentenceMasks) -> Iterator[Tensor]:
        """Yields the gradients of sum_k weight_k loss_k for the masks in their order, [C, P] at a time."""
        parts = (masks.corrupted_ML, masks.positions_MK, masks.targets_MK, masks.weight_MK)
        rows = max(1, ELEMENTS[self.device.type] // self.size)
        for part in zip(*(torch.split(tensor, rows) for tensor in parts), strict=True):
            # the fused attention kernels can't be batched over masks
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                by_name = self._gradients(self._parameters, *(tensor.to(self.device) for tensor in part))
            yield torch.cat([gradient.flatten(1) for gradient in by_name.values()], dim=1)

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """Returns tensors by the model's parameter names as one vector [P] in the gradients' order."""
        return torch.cat([tensors[name.removeprefix("model.")].flatten() for name in self._parameters]).to(self.device)

    def _of_one(self, parameters: dict[str, Tensor], *mask: Tensor) -> Tensor:
        loss: Tensor = functional_call(self._loss, parameters, mask)
        return loss


class _WeightedLoss(nn.Module):
    """A module, because torch.func calls modules with other parameters than their own."""

    def __init__(self, model: PretrainingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, corrupted_L: Tensor, positions_K: Tensor, targets_K: Tensor, weight_K: Tensor) -> Tensor:
        """Returns sum_k weight_k loss_k, a scalar."""
        loss_1K, _ = self.model.token_losses(corrupted_L[None], None, positions_K[None], targets_K[None], None)
        return (loss_1K[0] * weight_K).sum()
