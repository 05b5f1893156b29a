"""The predictive distribution of a head in closed form: Bayesian linear regression on the features.

With targets y = F w + N(0, sigma^2) and the prior w ~ N(w0, sigma^2 diag(1 / lambda)), the ridge regression of
core/ridge.py is the mean of the posterior, whose covariance is sigma^2 (F^T F + diag(lambda))^-1. A new target at the
features f is then normal with mean f w and variance sigma^2 (f (F^T F + diag(lambda))^-1 f^T + 1), of which the second
term is its noise; without support points it is that of the prior (ALPaCA, Harrison et al. 2018, arXiv:1807.08912).

The noise has a floor: sigma^2 = exp(2 rho) + MIN_NOISE^2 for the learned rho. Tasks without noise would otherwise drive
sigma to 0, the likelihood to infinity, and its gradient to overflow.
"""

import math

import torch
from torch import Tensor

from maml_cli.core.network import Params

NOISE = "ridge.noise"
"""Key of the rule's parameter rho, (..., 1, 1, 1)."""
COVARIANCE_ROOT, NOISE_VARIANCE = "posterior.root", "posterior.noise"
"""Keys of a task's posterior, beside its adapted parameters: a matrix A with A A^T the covariance of the head and its
bias, (..., H + 1, H + 1), and sigma^2, (..., 1, 1)."""

MIN_NOISE = 1e-3
"""The least standard deviation of the noise, in the units of the network."""


def log_noise(std: float) -> float:
    """The rho of a standard deviation of the noise above MIN_NOISE.

    >>> round(math.exp(2 * log_noise(0.1)) + MIN_NOISE**2, 12)
    0.01
    """
    return 0.5 * math.log(std**2 - MIN_NOISE**2)


def posterior(inputs: Tensor, penalty: Tensor, rho: Tensor) -> Params:
    """The posterior of the head, from its `inputs` F (..., K, P), lambda (..., P or 1, 1) and rho (..., 1, 1).

    By the Cholesky factor of I + S F^T F S, S = diag(lambda)^(-1/2), which exists for any lambda.
    """
    size = inputs.shape[-1]
    variance, scale = (2 * rho).exp() + MIN_NOISE**2, penalty.rsqrt().expand(*penalty.shape[:-2], size, 1)
    scaled, identity = inputs * scale.mT, torch.eye(size, dtype=inputs.dtype, device=inputs.device)
    factor = cholesky_or_nan(scaled.mT @ scaled + identity)
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return {COVARIANCE_ROOT: variance.sqrt() * scale * inverse.mT, NOISE_VARIANCE: variance}


def cholesky_or_nan(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor of each matrix, (..., N, N); NaN for those without one, as of entries that are not
    finite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


def predictive_variance(params: Params, inputs: Tensor) -> Tensor:
    """The variance of new targets, (..., K, 1), at `inputs` F (..., K, P); `params` have the posterior of the task."""
    spread = (inputs @ params[COVARIANCE_ROOT].to(inputs.dtype)).square().sum(dim=-1, keepdim=True)
    return spread + params[NOISE_VARIANCE].to(inputs.dtype)


def normal_nll(squared_error: Tensor, variance: Tensor) -> Tensor:
    """The negative log-likelihood of targets under normal distributions, in nats; errors are their distances from the
    means.

    >>> normal_nll(torch.tensor(4.0), torch.tensor(1.0))  # log(2 pi) / 2 + 4 / 2
    tensor(2.9189)
    """
    return 0.5 * ((2 * math.pi * variance).log() + squared_error / variance)
