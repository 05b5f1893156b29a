"""A closed-form head: the last layer is the ridge regression of the targets on the features of the support points.

The head is w = (head.w, head.b), (..., H + 1, 1); the features F of K points are the values of the last hidden layer
and a 1, (..., K, H + 1). Adapting it takes no steps and no step size, but has prior means w0 and penalties lambda, all
meta-learned (R2D2, Bertinetto et al. 2019, arXiv:1805.08136, eq. 6, with a prior mean as in ALPaCA, Harrison et al.
2018, arXiv:1807.08912). Solved in float64, on the smaller of the two sides of F.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core.batch import Points
from maml_cli.core.losses import TaskLoss
from maml_cli.core.network import Params
from maml_cli.core.predictive import NOISE, cholesky_or_nan, normal_nll, posterior, predictive_variance
from maml_cli.core.update_rules import value_at_step

PENALTY, BODY_PENALTY = "ridge", "ridge.body"
"""Keys of the rule's parameters: log lambda of the head, (..., 1, H + 1 or 1, 1), and of the loss of each inner step on
the body, (..., S, H + 1 or 1, 1)."""

Features = Callable[[Params, Tensor], Tensor]
"""(params, x (..., K, in)) -> the values of the last hidden layer, (..., K, H)."""


class RidgeHead(NamedTuple):
    """A head that is solved for.

    features: the network without its head.
    """

    features: Features

    def solve(self, params: Params, points: Points, log_penalty: Tensor) -> Params:
        """`params` with the head that minimises |y - F w|^2 + sum_j lambda_j (w_j - w0_j)^2 on `points`.

        w0 is the head of `params`, lambda the exponential of `log_penalty` (..., H + 1 or 1, 1).
        """
        inputs, prior = self._design(params, points.x), _head(params)
        head = prior + solve_ridge(inputs, points.y.double() - inputs @ prior, log_penalty.double().exp())
        return params | _split(head.to(params["head.w"].dtype))

    def posterior(self, params: Params, points: Points, rule_params: Params) -> Params:
        """The posterior of the head on `points`, of which there may be none; empty for a rule without noise."""
        if NOISE not in rule_params:
            return {}
        penalty, rho = (rule_params[key].squeeze(-3).double() for key in (PENALTY, NOISE))
        values = posterior(self._design(params, points.x), penalty.exp(), rho)
        return {key: value.to(params["head.w"].dtype) for key, value in values.items()}

    def variance(self, params: Params, x: Tensor) -> Tensor:
        """The variance of new targets at `x`, (..., K, 1), for `params` with a posterior."""
        return predictive_variance(params, self._design(params, x)).to(params["head.w"].dtype)

    def nll(self, params: Params, points: Points) -> Tensor:
        """The mean negative log-likelihood of a task's targets, each on its own, (R, B), for `params` with a posterior.

        The objective of ALPaCA, with query points in place of the next point of a sequence. It replaces the squared
        error, which does not depend on the noise.
        """
        inputs = self._design(params, points.x)
        squared_error = (points.y.double() - inputs @ _head(params)).square()
        nll = normal_nll(squared_error, predictive_variance(params, inputs))
        return nll.mean(dim=(-2, -1)).to(params["head.w"].dtype)

    def loss(self, params: Params, points: Points, log_penalty: Tensor) -> Tensor:
        """The minimum over w of |y - F w|^2 / K + sum_j lambda_j / K (w_j - w0_j)^2, for each task.

        The loss of variable projection (Golub and Pereyra 1973): a function of the body alone.
        """
        inputs, prior, penalty = self._design(params, points.x), _head(params), log_penalty.double().exp()
        target = points.y.double() - inputs @ prior
        change = solve_ridge(inputs, target, penalty)
        squares = (target - inputs @ change).square().sum(dim=(-2, -1)) + (penalty * change.square()).sum(dim=(-2, -1))
        return (squares / points.y.shape[-2]).to(params["head.w"].dtype)

    def losses(self, log_penalties: Tensor, steps: int) -> list[TaskLoss]:
        """The losses of `steps` inner steps on the body, from `log_penalties` (..., S, H + 1 or 1, 1); steps after the
        last use the last."""
        by_step = log_penalties.unbind(-3)
        return [partial(self.loss, log_penalty=value_at_step(by_step, step)) for step in range(steps)]

    def _design(self, params: Params, x: Tensor) -> Tensor:
        """F in float64: the features and a 1."""
        features = self.features(params, x).double()
        return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def solve_ridge(inputs: Tensor, target: Tensor, penalty: Tensor) -> Tensor:
    """argmin over w of |target - inputs w|^2 + sum_j penalty_j w_j^2, (..., P, 1).

    inputs: (..., K, P). target: (..., K, 1). penalty: (..., P or 1, 1), positive. NaN where the system is not positive
    definite in its arithmetic, as inputs that are not finite make it.

    With K <= P by the matrix of K rows, L^-1 F^T (F L^-1 F^T + I)^-1 y with L = diag(penalty), else by that of P rows.

    >>> round(solve_ridge(torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[2.0]])).item(), 4)
    1.0

    which is 2 * 3 / (2 * 2 + 2).
    """
    count, size = inputs.shape[-2:]
    if count <= size:
        scaled = inputs / penalty.mT
        gram = scaled @ inputs.mT + torch.eye(count, dtype=inputs.dtype, device=inputs.device)
        return scaled.mT @ torch.cholesky_solve(target, cholesky_or_nan(gram))
    gram = inputs.mT @ inputs + torch.diag_embed(penalty.squeeze(-1).expand(*penalty.shape[:-2], size))
    return torch.cholesky_solve(inputs.mT @ target, cholesky_or_nan(gram))


def _head(params: Params) -> Tensor:
    return torch.cat([params["head.w"], params["head.b"]], dim=-2).double()


def _split(head: Tensor) -> Params:
    return {"head.w": head[..., :-1, :], "head.b": head[..., -1:, :]}
