"""The preconditioner, compared with the update of torch's AdamW."""

from pathlib import Path

import torch
from torch import Tensor

from mapnet_cli.config import Method, Optimiser, Transformer
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.words import CLS, FIRST_ORDINARY, SEP
from mapnet_cli.training.checkpoint import rolling_name, save_checkpoint
from mapnet_cli.training.optim import build_adamw, optimizer_state, set_learning_rate
from mapnet_cli.variance.candidates import Candidate, sentence_masks
from mapnet_cli.variance.gradients import BATCHES, SentenceGradients, adam_scale, batch_mean_squares

SETTINGS = Optimiser(adam_betas=(0.0, 0.9), adam_eps=1e-4, weight_decay=0.0)


def small_model() -> PretrainingModel:
    model = PretrainingModel(Transformer(layers=1, hidden=16, heads=2, ffn=32, max_length=16, dropout=0.0), 40, None)
    model.init_weights(0)
    return model


def sentence(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.cat(
        [torch.tensor([CLS]), torch.randint(FIRST_ORDINARY, 40, (8,), generator=generator), torch.tensor([SEP])]
    )


def refuse() -> Tensor:
    raise AssertionError("the saved moments exist")


def test_saved_moments_scale_gradients_as_adam_does(tmp_path: Path) -> None:
    """Without momentum, Adam's step is its learning rate times the preconditioned gradient."""
    model = small_model()
    optimizer = build_adamw(model, SETTINGS)
    set_learning_rate(optimizer, 0.01)
    for step in range(3):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.train().zero_grad()
        tokens_BL = sentence(step)[None]
        positions_BK = torch.tensor([[1, 4]])
        loss_BK, _ = model.token_losses(tokens_BL, None, positions_BK, tokens_BL.gather(1, positions_BK), None)
        loss_BK.mean().backward()
        optimizer.step()
    save_checkpoint(tmp_path / "resume" / rolling_name(3), optimizer_state(model, optimizer), {"step": 3})
    gradients = SentenceGradients(model)
    scale_P, source = adam_scale(gradients, tmp_path, 3, SETTINGS, refuse)
    assert source == "optimiser state at step 3"
    parameters = dict(model.named_parameters())
    moved_P = gradients.flatten({name: before[name] - p.detach() for name, p in parameters.items()})
    gradient_P = gradients.flatten({name: p.grad for name, p in parameters.items() if p.grad is not None})
    torch.testing.assert_close(moved_P, 0.01 * scale_P * gradient_P, atol=1e-6, rtol=1e-3)


def test_estimated_moments_are_mean_squares_of_batch_gradients(tmp_path: Path) -> None:
    """A batch's gradient is the mean over all its masked positions."""
    gradients, method = SentenceGradients(small_model()), Method(mask_rate=0.3)
    found_P = batch_mean_squares(gradients, method, sentence, 2, 40)
    squares_P = torch.zeros_like(found_P)
    for batch in range(BATCHES):
        masks = [
            sentence_masks(Candidate("uniform", method), n, sentence(n), 1, 1, 40, stream="second moments")
            for n in (2 * batch, 2 * batch + 1)
        ]
        count = sum(int((m.weight_MK > 0).sum()) for m in masks)
        squares_P += (sum(next(gradients.of(m))[0] for m in masks) / count).square() / BATCHES
    torch.testing.assert_close(found_P, squares_P)
    scale_P, source = adam_scale(gradients, tmp_path, 3, SETTINGS, lambda: found_P)
    assert source.startswith("estimated")
    torch.testing.assert_close(scale_P, 1 / (found_P.sqrt() + 1e-4))
