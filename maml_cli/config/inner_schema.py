"""The section `inner` of the schema: the inner loop and its step size, alpha."""

from typing import Literal

from pydantic import Field

from maml_cli.config.field_types import StepSize, StepsOrZero
from maml_cli.config.section import Section

OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd", "momentum"]


class Alpha(Section):
    """The inner learning rate, alpha."""

    init: StepSize = Field(
        0.01,
        description="initial value of every alpha, or its constant value if not learned; of a range, each learned "
        "alpha is drawn uniformly in it",
    )
    learned: bool = Field(False, description="whether the outer loop learns alpha")
    per: Literal["scalar", "layer", "tensor", "parameter"] = Field(
        "scalar",
        description="one learned alpha for the network (scalar), each layer, each weight or bias tensor, or each "
        "parameter (Meta-SGD)",
    )
    per_step: bool = Field(False, description="whether each inner step has its own alphas (LSLR, if per is layer)")
    scale: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="factor on every alpha, fixed or learned; also for a trained run: maml eval --set",
    )
    after_last_step: Literal["hold", "decay", "stop"] | None = Field(
        None,
        description="inner steps beyond the last per-step alpha: reuse it (hold); halve it each step, with each "
        "update at most 5 % as long as the one before (decay); do nothing (stop); or refuse (null)",
    )
    sign: Literal["free", "positive"] = Field(
        "free", description="free: a learned alpha may become negative; positive: its logarithm is learned"
    )
    optimizer: OptimizerName | None = Field(None, description="outer optimiser of alpha; null: outer.optimizer")
    lr: float | None = Field(None, gt=0, description="outer learning rate of alpha; null: outer.lr")

    @property
    def init_range(self) -> tuple[float, float]:
        """The smallest and the largest initial value."""
        return self.init if isinstance(self.init, tuple) else (self.init, self.init)

    @property
    def init_in_words(self) -> str:
        """`0.01`, or `0.005 to 0.1` for a range."""
        return " to ".join(f"{value:g}" for value in dict.fromkeys(self.init_range))


class Ridge(Section):
    """The penalties of a head in closed form, and the noise of its targets."""

    init: float = Field(0.02, gt=0, description="initial value of every penalty lambda, or its constant value")
    learned: bool = Field(True, description="whether the outer loop learns the penalties and the noise")
    per: Literal["scalar", "feature"] = Field(
        "scalar", description="one penalty for the head (scalar), or one for each feature and the bias (feature)"
    )
    noise: float | None = Field(
        None,
        ge=2e-3,
        le=1e6,
        description="initial standard deviation of the noise of targets: predictions have a standard deviation, and "
        "the outer loop minimises the negative log-likelihood of the query targets in place of their squared error "
        "(ALPaCA); null: neither",
    )


class Inner(Section):
    """The inner loop: gradient descent on the support points of a task."""

    steps: int = Field(1, ge=1, le=1000, description="inner steps in training")
    loss: Literal["mse", "half_mse", "l1", "huber"] = Field(
        "mse", description="loss on the support points and on the query points; half_mse: half the squared error"
    )
    adapt: Literal["all", "head", "body", "context"] = Field(
        "all",
        description="parameters that adapt: all; the last layer (head: ANIL); all but the last layer (body: BOIL); the "
        "context inputs (context: CAVIA)",
    )
    head: Literal["gradient", "ridge"] = Field(
        "gradient",
        description="gradient: the last layer adapts as others do; ridge: after each inner step it is solved for on "
        "the support points, w0 + F^T (F F^T + lambda)^-1 (y - F w0), and only the body takes gradient steps (R2D2)",
    )
    ridge: Ridge = Field(Ridge(), description="the penalty of a head in closed form, lambda")
    optimizer: Literal["sgd", "adam"] = Field(
        "sgd", description="inner optimiser: gradient descent (sgd), or Adam without momentum, as in Reptile (adam)"
    )
    momentum: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum mu of the inner steps (heavy ball): alpha times v, where v <- mu * v + gradient, after "
        "clipping, preconditioner and optimiser; also for a trained run: maml eval --set",
    )
    clip_norm: float | None = Field(
        None,
        ge=1e-6,
        le=1e6,
        description="largest norm of a task's gradient in an inner step: longer ones are scaled down; also for a "
        "trained run: maml eval --set; null: no clipping",
    )
    clip_value: float | None = Field(
        None,
        ge=1e-6,
        le=1e6,
        description="largest magnitude of an entry of a task's gradient in an inner step; also for a trained run: maml "
        "eval --set; null: no clipping",
    )
    curvature: Literal["none", "kronecker"] = Field(
        "none",
        description="kronecker: learned preconditioner of each weight's gradient, M_in G M_out, initially the identity "
        "(Meta-Curvature)",
    )
    curvature_per_step: bool = Field(False, description="whether each inner step has its own preconditioner")
    proximal: float = Field(
        0.0, ge=0, description="lambda of the proximal term lambda/2 * norm(phi - theta)^2 in the inner loss"
    )
    order: Literal["second", "first", "implicit"] = Field(
        "second",
        description="derivative of the inner loop: exact (second: MAML); inner gradients as constants (first: FOMAML); "
        "implicit at the inner minimum (implicit: iMAML)",
    )
    cg_steps: int = Field(5, ge=1, le=1000, description="conjugate-gradient steps of order implicit")
    first_order_until: StepsOrZero = Field(
        0, description="first-order meta-gradients for this many outer steps, then second order (MAML++)"
    )
    recompute_activations: bool = Field(
        False, description="whether the backward pass recomputes activations of inner steps: less memory, more time"
    )
    alpha: Alpha = Field(Alpha(), description="the inner learning rate")

    @property
    def is_closed_form(self) -> bool:
        """Whether adapting is solving for the head alone, without any gradient step."""
        return self.head == "ridge" and self.adapt == "head"

    @property
    def has_per_step_params(self) -> bool:
        """Whether alphas or preconditioners belong to single inner steps, so that they end with the last."""
        return self.alpha.per_step or self.curvature_per_step
