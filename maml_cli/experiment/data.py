"""The values of a config that come from the user's table of curves."""

import json

from maml_cli.config import Config, override
from maml_cli.formulas import DATA
from maml_cli.tasks import CurveSampler, measure_curves, read_curves, source_of


def measure_data(config: Config) -> Config:
    """`config` of a new training with digest, ranges and normalisation of its table in `tasks.data.measured`.

    A config without a table stays as it is; one of an earlier training has the digest of its table, which must be the
    same. Raises FileError if the table cannot be read, and DataError with the line of what is invalid, and where no
    curve has enough points.
    """
    if config.tasks.family != DATA:
        return config
    source, known = source_of(dict(config.tasks)), config.tasks.data.measured
    if known is not None:
        read_curves(source, known.digest)
    measured = measure_curves(source, config.tasks.data.normalise)
    values = {
        "digest": measured.digest,
        "x": [*measured.x],
        "y": [*measured.y],
        **measured.scaling._asdict(),
    }
    sampler, tasks = CurveSampler(source, measured.digest), config.tasks
    sampler.training_curves(tasks.max_support + tasks.num_query)
    if config.run.eval_every:
        sampler.num_test_tasks("validation", config.run.eval_tasks, tasks.max_support)
    return override(config, [f"tasks.data.measured={json.dumps(values)}"], label=str(config.tasks.file))
