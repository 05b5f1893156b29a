"""A training in words: tasks, network, inner updates, order of derivatives, outer updates, device and engine."""

from maml_cli.config import Config, layer_widths, num_params
from maml_cli.runtime import Choice
from maml_cli.tasks import read_curves, source_of
from maml_cli.training.processes import Processes
from maml_cli.training.sharing import idle_processes


def training_summary(config: Config, device: Choice, engine: Choice, *, start: str = "") -> list[str]:
    """One line each for tasks, network, inner loop, order, outer loop, device and engine, and for the trained run that
    the initial parameters are from; `start` is its summary, where it was read."""
    threads = f"{config.run.threads} thread{'s' if config.run.threads > 1 else ''}"
    return [
        *learner_summary(config, start=start),
        f"device   {device.name} ({device.reason}), {threads}",
        f"engine   {engine.name} ({engine.reason})",
    ]


def learner_summary(config: Config, *, start: str = "") -> list[str]:
    """The lines of `training_summary` that do not depend on the machine."""
    tasks = config.tasks
    return [
        f"tasks    {config.outer.tasks_per_step} in each of {config.outer.steps:,} outer steps, "
        f"{tasks.support_in_words} support and {tasks.num_query} query points each",
        *_curves_in_words(config),
        f"network  {'-'.join(map(str, layer_widths(config)))} {config.model.activation}, "
        f"{num_params(config):,} parameters{_context_in_words(config)}, {_seeds_in_words(config)}",
        *([f"init     {start or f'from {config.run.init_from}'}"] if config.run.init_from is not None else []),
        f"inner    {_inner_in_words(config)}",
        f"order    {_order_in_words(config)}",
        f"outer    {_outer_in_words(config)}",
    ]


def _curves_in_words(config: Config) -> list[str]:
    """A line with the numbers of curves of the user's own; none for families of functions."""
    tasks = config.tasks
    if tasks.data.measured is None:
        return []
    curves = read_curves(source_of(dict(tasks)), tasks.data.measured.digest)
    num_points = tasks.max_support + tasks.num_query
    held_out = f"{len(curves.indices('validation'))} for validation, {len(curves.indices('test'))} for the test"
    training, usable = (len(curves.indices("train", num_points=number)) for number in (1, num_points))
    short = f", of which {training - usable} are left out: fewer than {num_points} points" if usable < training else ""
    return [f"curves   {tasks.file}: {training} for training{short}; {held_out}"]


def sharing_summary(config: Config, processes: Processes) -> list[str]:
    """A line with the parts of several processes; none for one process."""
    if processes.size == 1:
        return []
    parts = f"{len(config.seeds)} runs" if len(config.seeds) > 1 else f"{config.outer.task_blocks} blocks of tasks"
    idle = idle_processes(config, processes)
    return [f"shared   {parts} among {processes.size} processes{f', {idle} of them idle' if idle else ''}"]


def _context_in_words(config: Config) -> str:
    count, start = config.model.num_context, "learned values" if config.model.context_learned else "zero"
    return f", {count} context input{'s' if count > 1 else ''} starting at {start}" if count else ""


def _seeds_in_words(config: Config) -> str:
    seeds = config.seeds
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    shown = [*map(str, seeds[:3]), "..."] if len(seeds) > 4 else map(str, seeds)
    order = "side by side" if config.run.side_by_side else "each on its own"
    return f"{len(seeds)} runs {order}, seeds {', '.join(shown)}"


def _inner_in_words(config: Config) -> str:
    inner, ridge = config.inner, config.inner.ridge
    kind = f"learned from {ridge.init:g} per {ridge.per}" if ridge.learned else f"fixed at {ridge.init:g}"
    noise = "" if ridge.noise is None else f", noise {'learned from' if ridge.learned else 'fixed at'} {ridge.noise:g}"
    head = f"head in closed form, penalty {kind}{noise}"
    if inner.is_closed_form:
        return head
    adapting = inner.adapt if inner.head == "gradient" else "body"
    count = f"{inner.steps} inner step{'s' if inner.steps > 1 else ''}"
    steps = f"{count} on {adapting}, {inner.loss} loss, {_update_in_words(config)}"
    return steps if inner.head == "gradient" else f"{steps}; {head}"


def _update_in_words(config: Config) -> str:
    inner, alpha = config.inner, config.inner.alpha
    kind = f"learned from {alpha.init_in_words} per {alpha.per}" if alpha.learned else f"fixed at {alpha.init_in_words}"
    times = "" if alpha.scale == 1 else f", times {alpha.scale:g}"
    words = [f"alpha {kind}{' and inner step' if alpha.per_step else ''}{times}"]
    if inner.clip_norm is not None:
        words.append(f"gradients clipped at norm {inner.clip_norm:g}")
    if inner.clip_value is not None:
        words.append(f"gradients clipped at +-{inner.clip_value:g}")
    if inner.curvature != "none":
        words.append(f"{inner.curvature} curvature learned{' per step' if inner.curvature_per_step else ''}")
    if inner.optimizer != "sgd":
        words.append(inner.optimizer)
    if inner.momentum:
        words.append(f"momentum {inner.momentum:g}")
    if inner.proximal:
        words.append(f"proximal {inner.proximal:g}")
    return ", ".join(words)


def _outer_in_words(config: Config) -> str:
    outer, alpha = config.outer, config.inner.alpha
    loss = "" if config.inner.ridge.noise is None else " on the negative log-likelihood"
    words = [f"{outer.optimizer} at {outer.lr:g}{loss}", f"{outer.schedule} schedule"]
    if alpha.learned and (alpha.optimizer, alpha.lr) != (None, None):
        words.append(f"alpha by {alpha.optimizer or outer.optimizer} at {alpha.lr or outer.lr:g}")
    if outer.clip_task_norm is not None:
        words.append(f"each task's gradient clipped at {outer.clip_task_norm:g}")
    if outer.clip_norm is not None:
        clipped = "their mean" if outer.clip_task_norm else "meta-gradient"
        words.append(f"{clipped} clipped at {outer.clip_norm:g}")
    if outer.weight_noise:
        words.append(f"weight noise of {outer.weight_noise:g}")
    return ", ".join(words)


def _order_in_words(config: Config) -> str:
    inner, outer = config.inner, config.outer
    if outer.meta_gradient != "query":
        kinds = {
            "reptile": "none (Reptile): outer steps move towards the adapted parameters",
            "joint": "none (joint training): outer steps descend the loss without adapting",
        }
        return kinds[outer.meta_gradient]
    orders = {
        "second": "second order: the inner gradients are differentiated",
        "first": "first order (FOMAML): the inner gradients are constants",
        "implicit": f"implicit (implicit MAML): {inner.cg_steps} steps of conjugate gradients at the inner minimum",
    }
    if inner.is_closed_form:
        return "exact: the solution is differentiated"
    words = orders[inner.order]
    if inner.first_order_until:
        words = f"first order for {inner.first_order_until:,} outer steps, then second"
        if inner.first_order_until >= outer.steps:
            words = "first order in all outer steps: inner.first_order_until is not reached"
    if outer.multi_step_loss_until:
        until = outer.multi_step_loss_until
        short = f", of which {outer.steps:,} are taken" if until > outer.steps else ""
        words += f"; multi-step loss for {until:,} outer steps{short}"
    return words
