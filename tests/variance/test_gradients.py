"""Batched per-mask gradients compared with torch's backward pass, and sketches of large vectors."""

import math

import pytest
import torch

from mapnet_cli.config import MapNetSizes, Method, Transformer
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.words import CLS, FIRST_ORDINARY, SEP
from mapnet_cli.variance import gradients as module
from mapnet_cli.variance.candidates import Candidate, mean_count, sentence_masks
from mapnet_cli.variance.gradients import Projection, SentenceGradients

TOKENS_L = torch.tensor([CLS, *range(FIRST_ORDINARY, FIRST_ORDINARY + 12), SEP])


def small_model() -> PretrainingModel:
    sizes = {"layers": 2, "hidden": 16, "heads": 2, "ffn": 32, "max_length": 16}
    model = PretrainingModel(Transformer(**sizes), 40, MapNetSizes(**sizes))
    model.init_weights(3)
    return model.train()  # dropout of 0.1 must not affect the gradients


@pytest.mark.parametrize("elements", [1, 2**30])
def test_gradients_match_a_backward_pass(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.ELEMENTS, "cpu", elements)
    model = small_model()
    gradients = SentenceGradients(model)
    masks = sentence_masks(Candidate("uniform", Method(mask_rate=0.3)), 0, TOKENS_L, 5, 1, 40)
    parts = list(gradients.of(masks))
    assert len(parts) == (5 if elements == 1 else 1)
    for row, found_P in enumerate(torch.cat(parts)):
        model.zero_grad()
        one = slice(row, row + 1)
        loss_1K, _ = model.token_losses(
            masks.corrupted_ML[one], None, masks.positions_MK[one], masks.targets_MK[one], None
        )
        (loss_1K * masks.weight_MK[one]).sum().backward()
        by_name = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert not any(name.startswith("proposal.") for name in by_name)
        torch.testing.assert_close(found_P, gradients.flatten(by_name), atol=1e-6, rtol=1e-4)


def test_masks_are_reproducible() -> None:
    uniform = Candidate("uniform", Method(mask_rate=0.3))
    first, again = (sentence_masks(uniform, 4, TOKENS_L, 8, 2, 40) for _ in range(2))
    other = sentence_masks(uniform, 5, TOKENS_L, 8, 2, 40)
    assert torch.equal(first.corrupted_ML, again.corrupted_ML)
    assert not torch.equal(first.positions_MK, other.positions_MK)


def test_sentences_are_weighted_as_in_a_batch() -> None:
    """The sum of losses is divided by the mean number of masked positions, so short sentences have small weights."""
    short_L, method = TOKENS_L[[0, 1, 2, -1]], Method(mask_rate=0.25)
    count = mean_count([TOKENS_L, short_L], method.mask_rate)
    assert count == (0.25 * 12 + 1) / 2
    for tokens_L, counts in ((TOKENS_L, 3), (short_L, 1)):
        masks = sentence_masks(Candidate("uniform", method), 0, tokens_L, 4, 1, 40, count)
        torch.testing.assert_close(masks.weight_MK.sum(dim=1), torch.full((4,), counts / count))


def test_disjoint_groups_restart_and_repeat_no_position() -> None:
    disjoint = Candidate("disjoint", Method(strategy="disjoint", mask_rate=1 / 6))
    masks = sentence_masks(disjoint, 0, TOKENS_L, 24, 6, 40)
    groups = [
        [frozenset(positions_K[weight_K > 0].tolist()) for positions_K, weight_K in zip(*rows, strict=True)]
        for rows in zip(masks.positions_MK.split(6), masks.weight_MK.split(6), strict=True)
    ]
    for group in groups:
        assert frozenset.union(*group) == frozenset(range(1, 13))
        assert sum(map(len, group)) == 12
    assert len(set(map(frozenset, groups))) == 4


def test_a_vector_that_fits_is_unchanged() -> None:
    project = Projection(50, 4, 0, torch.device("cpu"), budget=50 * 4 * 4)
    vector_P = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert project.exact
    assert project.relative_error == 0
    assert torch.equal(project(vector_P), vector_P)


def test_sketches_are_unbiased_and_as_accurate_as_stated() -> None:
    generator = torch.Generator().manual_seed(0)
    a_P = 1 + torch.rand(3000, generator=generator, dtype=torch.float64)
    b_P = a_P + torch.randn(3000, generator=generator, dtype=torch.float64)
    exact, norms = float(a_P @ b_P), float(a_P.norm() * b_P.norm())
    found = []
    for seed in range(400):
        project = Projection(3000, 1, seed, torch.device("cpu"), budget=4 * 300)
        assert project.dimensions == 256
        found.append(float(project(a_P) @ project(b_P)))
    errors = torch.tensor(found, dtype=torch.float64) - exact
    stated = project.relative_error * norms
    assert stated == pytest.approx(math.sqrt(2 / 256) * norms)
    assert abs(float(errors.mean())) < 4 * stated / 20
    assert 0.6 * stated < float(errors.std()) < 1.1 * stated
