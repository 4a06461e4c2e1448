"""The example strategy in docs/extend.md works as the page describes."""

import re
from pathlib import Path

import torch

from mapnet_cli.masking import strategies
from mapnet_cli.masking.sampling import MaskNoise, mask_counts, maskable_positions
from mapnet_cli.masking.strategies import MaskRequest
from tests.masking.test_sampling import sentence_batch


def test_the_example_masks_contiguous_positions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")
    code = re.search(r"^(def block.*?)\n\n\nSTRATEGIES", page, re.DOTALL | re.MULTILINE)
    assert code is not None
    names = vars(strategies) | {"torch": torch}
    exec(code[1], names)
    tokens_BL = sentence_batch([20, 9, 1], 24)
    noise = MaskNoise.draw(torch.Generator().manual_seed(0), 3, 24)
    maskable_BL = maskable_positions(tokens_BL)
    counts_B = mask_counts(maskable_BL, 0.3, noise.rounding_B)
    masks = names["block"](MaskRequest(tokens_BL, maskable_BL, counts_B, 8, noise.order_BL))
    for b in range(3):
        chosen = masks.positions_BK[b][masks.valid_BK[b]].tolist()
        assert chosen == list(range(chosen[0], chosen[0] + int(counts_B[b])))
        assert all(maskable_BL[b, position] for position in chosen)
