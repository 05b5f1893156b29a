"""The commands about this machine: `maml check` proves the gradients, `maml info` prints versions and devices."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from maml_cli.cli.options import CheckpointOpt, ConfigOpt, JsonOpt, RunArg, SetOpt, choose_run
from maml_cli.errors import ConfigError, printable
from maml_cli.messages import wrapped

if TYPE_CHECKING:
    from maml_cli.config import Config


def check(
    run: RunArg = None,
    checkpoint: CheckpointOpt = None,
    config: ConfigOpt = None,
    overrides: SetOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Prove the gradients on this machine: is it really second order?

    Worked examples solved by hand, computed through the same inner loop as training; then the learner of a config, or
    of the config of a run, against finite differences and against an independent implementation with torch.func. It
    is checked in float64, with tanh for relu and mse for l1; with implicit gradients also narrower and convex. Exits
    with 1 if any number is wrong.

    [bold]Examples[/]

      maml check
      maml check outputs/quickstart
      maml check --config finn-10shot --set inner.steps=5 --json
    """
    from maml_cli.checks import run_checks
    from maml_cli.documents import to_json
    from maml_cli.reporting import check_document, print_cases
    from maml_cli.training import count_progress

    chosen = _config(run, checkpoint, config, overrides or [])
    with count_progress("checking", "checks") as on_check:
        cases = run_checks(chosen, on_check=on_check)
    document = check_document(cases)
    if as_json:
        typer.echo(to_json(document))
    else:
        print_cases(cases)
    if not document.passed:
        raise typer.Exit(1)


def info(as_json: JsonOpt = False) -> None:
    """Print versions, devices, threads, the CPU's capability and the compiler, for a bug report."""
    from maml_cli.documents import machine, to_json
    from maml_cli.engines import describe_compiler
    from maml_cli.runtime import machine_info

    facts = {**machine_info(), "compiler": describe_compiler()}
    if as_json:
        typer.echo(to_json(machine.InfoDocument.model_validate(facts)))
        return
    for name, value in facts.items():
        typer.echo(wrapped(f"{name:15} {printable(str(value))}"))


def _config(run: Path | None, checkpoint: Path | None, source: str | None, overrides: list[str]) -> "Config":
    """The config to check: of a trained run, of a file or preset, or that of quickstart."""
    from maml_cli.config import load_config, override
    from maml_cli.runs import open_checkpoint

    if run is None and checkpoint is None:
        return load_config(source or "quickstart", overrides).config
    path = choose_run(run, checkpoint)
    if source is not None:
        raise ConfigError(f"RUN {path}, --config {source}: give one of the two")
    return override(open_checkpoint(path).config, overrides, label=str(path))
