"""The estimators compared with exact variances, from enumeration of all masks or in closed form."""

import itertools

import pytest
import torch
from torch import Tensor

from mapnet_cli.config import MapNetProposal, Method, Transformer
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.words import CLS, FIRST_ORDINARY, MASK, SEP
from mapnet_cli.variance.candidates import Candidate, SentenceMasks, sentence_masks
from mapnet_cli.variance.gradients import SentenceGradients
from mapnet_cli.variance.positions import alignment
from mapnet_cli.variance.results import NORMS
from mapnet_cli.variance.stage import compare
from mapnet_cli.variance.statistics import (
    GradientSums,
    Moments,
    Samples,
    collect,
    jackknife,
    leave_one_out,
    leave_one_out_pairs,
    ratio,
)

VOCAB, LENGTH, K = 20, 6, 2


@pytest.fixture(scope="module")
def every_position() -> Tensor:
    """Gradients [S, M, K, D] of each masked position's loss, rotated into 150 dimensions.

    For five six-token sentences under all 15 masks of two.
    """
    model = PretrainingModel(Transformer(layers=1, hidden=16, heads=2, ffn=32, max_length=8), VOCAB, None)
    model.init_weights(1)
    gradients = SentenceGradients(model)
    generator = torch.Generator().manual_seed(0)
    positions_MK = torch.tensor(list(itertools.combinations(range(1, LENGTH + 1), K)))
    rows = []
    for _ in range(5):
        inside_L = torch.randint(FIRST_ORDINARY, VOCAB, (LENGTH,), generator=generator)
        tokens_ML = torch.cat([torch.tensor([CLS]), inside_L, torch.tensor([SEP])]).expand(len(positions_MK), -1)
        corrupted_ML = tokens_ML.scatter(1, positions_MK, MASK)
        targets_MK = tokens_ML.gather(1, positions_MK)
        for weight_K in torch.eye(K):
            weight_MK = weight_K.expand(len(positions_MK), -1)
            masks = SentenceMasks(corrupted_ML, positions_MK, targets_MK, weight_MK, torch.zeros(len(positions_MK)))
            rows.append(torch.cat(list(gradients.of(masks))))
    flat = torch.cat(rows).double()
    u, s, _ = torch.linalg.svd(flat, full_matrices=False)  # preserves inner products
    return (u * s).view(5, K, len(positions_MK), -1).transpose(1, 2)


@pytest.fixture(scope="module")
def every_gradient(every_position: Tensor) -> Tensor:
    """Gradients [S, M, D] of the mean loss of each mask."""
    return every_position.mean(dim=2)


def moments(drawn_SMD: Tensor, visits: int) -> Moments:
    sums = []
    for rows_MD in drawn_SMD:
        sums.append(GradientSums(visits))
        for part_CD in rows_MD.split(4):  # parts end within groups
            sums[-1].add(part_CD)
    return collect([s.moments() for s in sums], visits, torch.stack([s.mean() for s in sums]))


def test_estimators_and_their_errors_on_all_masks(every_gradient: Tensor) -> None:
    """Over many repetitions, the mean matches the exact variance, and the stated errors match the spread."""
    gradients_SMD = every_gradient
    mean_SD = gradients_SMD.mean(dim=1)
    exact = {
        "mask_variance": (gradients_SMD - mean_SD[:, None]).square().sum(dim=2).mean(),
        "sentence_variance": (mean_SD - mean_SD.mean(dim=0)).square().sum(dim=1).mean(),
        "mean_square": mean_SD.mean(dim=0).square().sum(),
        "variance": (gradients_SMD - mean_SD.mean(dim=0)).square().sum(dim=2).mean(),
    }
    exact["visits_variance"] = exact["mask_variance"]  # draws are independent
    generator = torch.Generator().manual_seed(1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in exact}
    for _ in range(400):
        sentences_S1 = torch.randint(5, (12, 1), generator=generator)
        masks_SM = torch.randint(15, (12, 6), generator=generator)
        sample = moments(gradients_SMD[sentences_S1, masks_SM], 3)
        for name, estimates in found.items():
            estimate = jackknife(getattr(sample, name)())
            assert estimate.value is not None and estimate.error is not None
            estimates.append((estimate.value, estimate.error))
    for name, estimates in found.items():
        values, errors = torch.tensor(estimates, dtype=torch.float64).T
        spread = values.std()
        assert abs(values.mean() - exact[name]) < 4 * spread / 20, name
        assert 0.8 < errors.square().mean().sqrt() / spread < 1.25, name


def test_noise_scale_and_batch_error_on_all_batches(every_gradient: Tensor) -> None:
    """Masks with unequal probabilities: the exact error is that of all pairs of (sentence, mask) as a batch of two."""
    p_M = torch.arange(1.0, 16, dtype=torch.float64) / 120
    target_D = every_gradient.mean(dim=(0, 1))
    flat, exact = every_gradient.flatten(0, 1), {}
    for name, p_N in (("skewed", p_M.repeat(5) / 5), ("uniform", torch.full((75,), 1 / 75, dtype=torch.float64))):
        pairs_NN = ((flat[:, None] + flat) / 2 - target_D).square().sum(dim=2)
        exact[name] = float(p_N @ pairs_NN @ p_N)
    mean_D = torch.einsum("m,smd->d", p_M / 5, every_gradient)
    noise = float((p_M / 5 * (every_gradient - mean_D).square().sum(dim=2)).sum() / mean_D.square().sum())
    generator, found = torch.Generator().manual_seed(2), []
    for _ in range(100):
        sentences_S1 = torch.randint(5, (40, 1), generator=generator)
        masks_SM = torch.multinomial(p_M, 40 * 8, replacement=True, generator=generator).view(40, 8)
        uniform_SM = torch.randint(15, (40, 8), generator=generator)
        skewed, uniform = (
            Samples(
                dict.fromkeys(NORMS, moments(g_SMD, 1)), dict.fromkeys(NORMS, g_SMD.mean(dim=1)), torch.zeros(40, 8)
            )
            for g_SMD in (every_gradient[sentences_S1, masks_SM], every_gradient[sentences_S1, uniform_SM])
        )
        variances = compare(Candidate("skewed", Method()), skewed, uniform, 2).variances["raw"]
        found.append([*vars(variances.noise_scale).values(), *vars(variances.error_to_uniform).values()])
    noises, noise_errors, ratios, ratio_errors = torch.tensor(found, dtype=torch.float64).T
    for values, errors, expected in (
        (noises, noise_errors, noise), (ratios, ratio_errors, exact["skewed"] / exact["uniform"])
    ):  # fmt: skip
        assert float(values.mean()) == pytest.approx(expected, rel=0.05)
        assert 0.8 < errors.square().mean().sqrt() / values.std() < 1.25
    twice = Method(batch_factor=2)
    error = compare(Candidate("twice", twice), uniform, uniform, 2).variances["raw"].error_to_uniform
    assert error.value == pytest.approx(0.5)


def test_alignment_by_hand() -> None:
    """The best 3 of 10 positions, and a fraction of one if 30% isn't a whole number; the order is what matters."""
    products = [
        torch.tensor(row, dtype=torch.float64)[:, None].expand(-1, 4) for row in ([4, 1], [1, -2, 2], [3, 0], [1] * 3)
    ]
    found = alignment(products)
    assert found.value == pytest.approx((4 + 3 + 2) / 12)
    products[3] = products[3][:2]
    assert alignment(products).value == pytest.approx((4 + 3 + 0.7 * 2) / 11)
    assert alignment([torch.ones(3, 4)] * 4).value == pytest.approx(0.3)
    assert alignment([-torch.ones(3, 4)] * 4).value is None


def test_alignment_on_all_masks(every_position: Tensor, every_gradient: Tensor) -> None:
    """It approaches the exact share as the choice gets better, and noise in the means never raises it."""
    positions_SND, gradients_SMD = every_position.flatten(1, 2), every_gradient
    exact_SN = positions_SND @ gradients_SMD.mean(dim=(0, 1))
    best = exact_SN.flatten().sort(descending=True).values
    exact = float(best[: round(0.3 * len(best))].sum() / best.sum())
    generator = torch.Generator().manual_seed(3)
    for sentences, masks, at_least in ((8, 1, 0.3), (24, 15, 0.9 * exact)):
        found = []
        for _ in range(60):
            chosen_S = torch.randint(5, (sentences,), generator=generator)
            drawn_SM = torch.randint(15, (sentences, masks), generator=generator)
            means_SD = gradients_SMD[chosen_S[:, None], drawn_SM].mean(dim=1)
            estimate = alignment([positions_SND[s] @ means_SD.T for s in chosen_S])
            found += [] if estimate.value is None else [[estimate.value, estimate.error]]
        values, errors = torch.tensor(found, dtype=torch.float64).T
        assert at_least < values.mean() < exact
        assert 0.8 < errors.square().mean().sqrt() / values.std() < 2.5, "conservative, since the choice changes too"


def test_jackknife_of_a_mean_is_the_usual_standard_error() -> None:
    values_S = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    estimate = jackknife(leave_one_out(values_S))
    assert estimate.value == pytest.approx(4.0)
    assert estimate.error == pytest.approx(float(values_S.std()) / 2)
    assert ratio(leave_one_out(values_S), leave_one_out(2 * values_S)).error == pytest.approx(0, abs=1e-12)


def test_leave_one_out_over_pairs_by_hand() -> None:
    vectors_SD = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    replicates = leave_one_out_pairs(vectors_SD @ vectors_SD.T)
    for left_out in range(5):
        kept = [n for n in range(5) if n != left_out]
        pairs = [float(vectors_SD[a] @ vectors_SD[b]) for a, b in itertools.permutations(kept, 2)]
        assert float(replicates[1 + left_out]) == pytest.approx(sum(pairs) / len(pairs))


def test_a_ratio_with_a_zero_denominator_is_undefined() -> None:
    zero_S = torch.zeros(4, dtype=torch.float64)
    assert ratio(leave_one_out(zero_S + 1), leave_one_out(zero_S)).value is None


def additive(candidate: Candidate, norms_L: Tensor, masks: int, visits: int) -> Moments:
    """Returns moments if each position's gradient has a known norm and its own direction, whatever else is masked."""
    tokens_L = torch.cat([torch.tensor([CLS]), torch.arange(FIRST_ORDINARY, FIRST_ORDINARY + 12), torch.tensor([SEP])])
    rows = []
    for number in range(6):
        drawn = sentence_masks(candidate, number, tokens_L, masks, visits, 40, 2)
        weight_ML = torch.zeros(masks, len(tokens_L)).scatter_add(1, drawn.positions_MK, drawn.weight_MK)
        rows.append((weight_ML * norms_L).double())
    return moments(torch.stack(rows), visits)


def test_additive_gradients_match_the_closed_form() -> None:
    """sum_i a_i^2 / n^2 (1 / pi_i - 1), minimal for pi proportional to the norms (Theorem 2 for K of n)."""
    norms_L = torch.cat([torch.zeros(1), torch.linspace(0.2, 3, 12), torch.zeros(1)])
    uniform = Method(strategy="uniform", mask_rate=1 / 6)
    proposal = MapNetProposal(sampler="systematic", estimator="horvitz-thompson")
    best = uniform.model_copy(update={"strategy": "mapnet", "proposal": proposal})
    q_L = norms_L / norms_L.sum()
    candidates = {
        "uniform": (Candidate("uniform", uniform), torch.full((12,), 2 / 12)),
        "best": (Candidate("best", best, log_q=(q_L.log(),) * 6), 2 * q_L[1:-1]),
    }
    variance = {}
    for name, (candidate, pi_N) in candidates.items():
        exact = float((norms_L[1:-1].square() / 144 * (1 / pi_N - 1)).sum())
        estimate = jackknife(additive(candidate, norms_L, 600, 6).mask_variance())
        assert estimate.value is not None and estimate.error is not None
        assert abs(estimate.value - exact) < 4 * max(estimate.error, 0.002), name
        variance[name] = estimate.value
    assert variance["best"] < 0.85 * variance["uniform"]


def test_disjoint_visits_leave_no_variance_in_additive_gradients() -> None:
    norms_L = torch.cat([torch.zeros(1), torch.linspace(0.2, 3, 12), torch.zeros(1)])
    found = {
        name: additive(Candidate(name, Method(strategy=name, mask_rate=1 / 6)), norms_L, 60, 6)
        for name in ("uniform", "disjoint")
    }
    assert float(found["disjoint"].visits_variance()[0]) == pytest.approx(0, abs=1e-6)
    masks = {name: jackknife(sample.mask_variance()) for name, sample in found.items()}
    assert masks["disjoint"].value == pytest.approx(masks["uniform"].value, rel=0.1)
    assert found["uniform"].visits_variance()[0] == pytest.approx(masks["uniform"].value, rel=0.3)
