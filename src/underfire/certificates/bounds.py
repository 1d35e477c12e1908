"""The bound behind every certificate, in float64; scipy does the mathematics.

With p the probability of an event at x under noise N(0, σ²I), its probability at x′ is at most Φ(Φ⁻¹(p) + ‖x′ − x‖₂/σ).
Source: Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019, for labels;
``docs/explanation/certificates.md`` has the theorem for any event, and its proof.
"""

import math

import torch
from scipy import special
from torch import Tensor

from underfire.attacks.budget import check_number, check_whole
from underfire.errors import InputError


def upper_limit(counts: Tensor, n: int, alpha: float) -> Tensor:
    """The Clopper–Pearson upper limit (…) of the probability of what was seen ``counts`` (…) times in ``n`` draws.

    The probability lies above it in at most a share ``alpha`` of such experiments. It is 1 − α^(1/n) where the count is
    0, and 1 where it is ``n``.

    Raises:
        InputError: ``n`` is below 1 or ``alpha`` outside (0, 1).
        ValueError: a count is not from 0 to ``n``.
    """
    k = _checked(counts, n, alpha)
    return _float64(special.betainccinv(k + 1, (n - k).clip(min=1), alpha)).where(torch.as_tensor(k < n), 1.0)


def lower_limit(counts: Tensor, n: int, alpha: float) -> Tensor:
    """The lower limit (…), with the same arguments and errors: 0 where the count is 0."""
    k = _checked(counts, n, alpha)
    return _float64(special.betaincinv(k.clip(min=1), n - k + 1, alpha)).where(torch.as_tensor(k > 0), 0.0)


def rate_within(p: Tensor, radius: float, sigma: float) -> Tensor:
    """Φ(Φ⁻¹(``p``) + ``radius``/σ) (…): the largest probability within ``radius`` of where it is at most ``p``."""
    return torch.maximum(_float64(special.ndtr(special.ndtri(p.numpy()) + radius / sigma)), p)


def radius_below(p: Tensor, rate: float, sigma: float) -> Tensor:
    """The radius (…) up to which the probability stays below ``rate`` in (0, 1); 0 where ``p`` does not."""
    return _float64(sigma * (special.ndtri(rate) - special.ndtri(p.numpy()))).clamp(min=0.0)


def per_query(rate: float, queries: int) -> float:
    """The rate u of one query with which one of so many succeeds at ``rate``: 1 − (1 − rate)^(1/queries).

    Raises:
        InputError: ``rate`` lies outside (0, 1), ``queries`` is below 1, or one of them is no number.
    """
    check_number("rate", rate)
    check_whole("queries", queries)
    if not 0 < rate < 1:
        raise InputError(f"rate is {rate!r}; give the probability of success to stay below, between 0 and 1.")
    if queries < 1:
        raise InputError(f"queries is {queries}; an attacker has at least 1.")
    return -math.expm1(math.log1p(-rate) / queries)


def voted_rate(rate: Tensor, draws: int) -> Tensor:
    """The largest probability (…) that a system of ``draws`` shows a pair which each draw shows with ``rate`` (…).

    The system shows the label of more than half of its draws and the map of one of these, at random, or nothing. Where
    K of the draws show such a pair, that is at most min(1, K/M), M = ⌊draws/2⌋ + 1; its mean, K binomial, is below
    min(1, 2·rate).
    """
    least = _majority(draws)
    at_least = special.bdtrc(torch.arange(least).numpy(), draws, rate.numpy()[..., None])  # P(K > j)
    return _float64(at_least.mean(axis=-1)).clamp(max=1.0)


def outvoted_rate(rate: Tensor, draws: int) -> Tensor:
    """The probability (…) that more than half of ``draws`` show what each shows with ``rate`` (…)."""
    return _float64(special.bdtrc(_majority(draws) - 1, draws, rate.numpy()))


def _majority(draws: int) -> int:
    """The fewest of ``draws`` that are more than half."""
    check_whole("draws", draws)
    if draws < 1:
        raise InputError(f"draws is {draws}; a system that votes takes at least 1.")
    return draws // 2 + 1


def _checked(counts: Tensor, n: int, alpha: float):  # type: ignore[no-untyped-def]  # a numpy array
    if n < 1:
        raise InputError(f"{n} draws show nothing; take at least 1.")
    check_alpha(alpha)
    k = counts.cpu().numpy()
    if ((k < 0) | (k > n)).any():
        raise ValueError(f"counts from {k.min()} to {k.max()} are not among {n} draws")
    return k


def check_alpha(alpha: float) -> None:
    """Refuse what is no chance of being wrong.

    Raises:
        InputError: ``alpha`` is no number in (0, 1).
    """
    check_number("alpha", alpha)
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha!r}; give the chance that a certificate is wrong, between 0 and 1.")


def _float64(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
