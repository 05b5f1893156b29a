"""Documents of errors on test tasks: of `maml eval`, `maml compare` and `maml diff`."""

from typing import Generic, TypeVar

from pydantic import Field, JsonValue

from maml_cli.documents.shape import Document, Number, Shape


class MeanOverTasks(Shape):
    """The mean of one number for each test task."""

    mean: Number = Field(description="mean over tasks")
    ci95: Number = Field(description="half width of the 95 % interval of the mean over tasks")


class Statistic(Shape):
    """A summary of one number for each test task, such as its error."""

    mean: Number = Field(description="mean over tasks; with several seeds, the mean of their means")
    ci95: Number = Field(
        description="half width of the 95 % interval of the mean over tasks; with several seeds, of each task's mean "
        "over seeds"
    )
    median: Number = Field(description="median over tasks; with several seeds, the mean of their medians")
    ci95_seeds: Number = Field(
        None,
        description="half width of the 95 % interval of the mean over seeds, by Student's t; absent for a single seed "
        "and for what does not depend on the seed of training",
    )


class ErrorStatistic(Statistic):
    """A summary of the errors of all test tasks, with the upper end of their distribution.

    With several seeds its numbers are means over them, unless they say otherwise.
    """

    percentile_90: Number = Field(description="90th percentile over tasks, by linear interpolation")
    percentile_99: Number = Field(description="99th percentile over tasks, by linear interpolation")
    worst: Number = Field(description="largest error of a task; with several seeds, of any of them")
    worst_10_percent_mean: Number = Field(description="mean of the worst tenth of the tasks, at least one")
    num_diverged: int = Field(
        ge=0,
        description="number of tasks whose error is not finite, or more than 100 times the mean error of predicting "
        "zero; with several seeds, the sum over them",
    )
    mean_without_diverged: Number = Field(description="mean of the other tasks; null if no task diverged, or all did")
    worst_1_percent_share: Number = Field(
        description="share of the worst hundredth of the tasks in the mean, from 0 to 1; with several seeds, of each "
        "task's mean over seeds; null for fewer than 100 tasks, and where the mean is 0 or not finite"
    )
    tasks_for_10_percent_interval: int | None = Field(
        description="number of test tasks for a 95 % interval whose half width is 10 % of the mean; with several "
        "seeds, of each task's mean over seeds; null where the mean is 0 or not finite"
    )


S = TypeVar("S", bound=Statistic)
ON_GRID = "errors on points spread evenly over the range of x (of own curves, on all points but the support points)"
ON_QUERY = "errors on K fresh random points (of own curves, on K of the grid)"
ON_SUPPORT = "errors on the support points, with their noise"


class Measures(Shape, Generic[S]):
    """Two errors of each task's points, in squared units of y and in units of y."""

    mse: S = Field(description="mean squared error")
    mae: S = Field(description="mean absolute error")


class PointErrors(Shape, Generic[S]):
    """Errors on the points of test tasks."""

    grid: Measures[S] = Field(description=ON_GRID)
    query: Measures[S] = Field(description=ON_QUERY)
    support: Measures[S] = Field(description=ON_SUPPORT)


class StepErrors(Shape, Generic[S]):
    """Errors on the points of test tasks after some inner steps."""

    step: int = Field(ge=0, description="inner steps taken; 0: before adapting")
    grid: Measures[S] = Field(description=ON_GRID)
    query: Measures[S] = Field(description=ON_QUERY)
    support: Measures[S] = Field(description=ON_SUPPORT)


LearnerSteps = list[StepErrors[ErrorStatistic]]
Baseline = PointErrors[ErrorStatistic] | None
BY_STEP = "errors of the learner after 0, 1, ... inner steps"


class SeedErrors(Shape):
    """The errors of one seed of training."""

    seed: int = Field(ge=0, description="the seed of training")
    steps: LearnerSteps = Field(description=BY_STEP)


class KindErrors(Shape):
    """The errors on the test tasks of one component of a mixture."""

    kind: str = Field(description="name of the component, with a number where several have the same")
    num_tasks: int = Field(ge=1, description="number of test tasks of this component")
    steps: LearnerSteps = Field(description=f"{BY_STEP} on these tasks")
    baselines: dict[str, Baseline] = Field(
        description="errors of the baselines on these tasks, by name; null where one makes no sense"
    )


class EnsembleErrors(Shape):
    """Errors of the mean prediction of several seeds, on the grid after some inner steps."""

    step: int = Field(ge=0, description="inner steps taken; 0: before adapting")
    mse: MeanOverTasks = Field(description="mean squared error of the mean prediction")
    nll: MeanOverTasks = Field(
        description="negative log-likelihood per point, in nats, under the normal distribution of the seeds' mean and "
        "standard deviation; null where all seeds predict the same at a point"
    )
    coverage: MeanOverTasks = Field(description="share of the points within the 90 % band, from 0 to 1")


class Calibration(Shape):
    """The predictive distribution of new targets on the grid after some inner steps, of a learner that has one."""

    step: int = Field(ge=0, description="inner steps taken; 0: before adapting")
    nll: Statistic = Field(description="negative log-likelihood per point, in nats; targets have the tasks' noise")
    coverage_95: Statistic = Field(description="share of the points within the 95 % interval, from 0 to 1")
    coverage_50: Statistic = Field(description="share of the points within the 50 % interval, from 0 to 1")


class Evaluation(Shape):
    """The evaluation at one K."""

    shots: int = Field(ge=1, description="K, the number of support points of a task")
    num_tasks: int = Field(ge=1, description="number of test tasks")
    seed: int = Field(ge=0, description="seed of the test tasks")
    trained_steps: int = Field(ge=0, description="inner steps of training")
    noisy_targets: bool = Field(description="whether targets on grid and fresh points have the noise of the tasks")
    steps: LearnerSteps = Field(description=f"{BY_STEP}; over all seeds in by_seed")
    by_seed: list[SeedErrors] = Field(description="errors of each seed of training, without those that diverged")
    baselines: dict[str, Baseline | LearnerSteps] = Field(
        description="errors of predictors without meta-learning by name. zero: predicts 0; best_unadapted: the best "
        "prediction that does not adapt; least_squares, least_squares_any_frequency: fits of a sinusoid of the true "
        "and of the best frequency; mean_curve, least_squares_sinusoid: of own curves; null where one makes no sense "
        "or is not known. random_init: a list like steps, of untrained networks that adapt by the same rule"
    )
    by_kind: list[KindErrors] = Field(
        [], description="errors for each component of a mixture that has test tasks; absent for other families"
    )
    ensemble: list[EnsembleErrors] = Field(
        [], description="errors of the mean prediction after 0, 1, ... inner steps; absent for a single seed"
    )
    calibration: list[Calibration] = Field(
        [],
        description="of the predictive distribution after 0, 1, ... inner steps; absent for a learner without one",
    )
    notes: dict[str, str] = Field(
        {},
        description="for each baseline that was computed approximately, by its name, the difference from the exact "
        "one; absent if there is none",
    )


class EvalDocument(Document):
    """Errors of a run on test tasks, also in eval.json."""

    checkpoint: str = Field(description="path of the checkpoint file")
    step: int = Field(ge=0, description="outer steps that the checkpoint has taken")
    overrides: list[str] = Field(description="changes of the config by --set, such as tasks.phase=[0,1]")
    results: list[Evaluation] = Field(description="one evaluation for each K")


class ComparedRun(Shape):
    """A run among several."""

    label: str = Field(description="name of the run, or its --label")
    trained_steps: int = Field(ge=0, description="inner steps of training")
    compared_step: int = Field(ge=0, description="inner steps after which it is compared")
    num_seeds: int = Field(ge=0, description="number of its seeds, without those that diverged")
    steps: list[StepErrors[Statistic]] = Field(description=BY_STEP)
    difference: Statistic | None = Field(
        description="over tasks, the error on the grid less that of the first run, each at its compared_step and the "
        "mean over its seeds; null for the first run"
    )


class Comparison(Shape):
    """Runs on the same test tasks at one K."""

    shots: int = Field(ge=1, description="K, the number of support points of a task")
    num_tasks: int = Field(ge=1, description="number of test tasks")
    seed: int = Field(ge=0, description="seed of the test tasks")
    measure: str = Field(description="error of the differences: mae if all runs were trained on L1, else mse")
    runs: list[ComparedRun] = Field(description="the runs in the order given")
    grid_name: str = Field(description="the points grid in words")
    baselines: dict[str, PointErrors[Statistic]] = Field(
        description="errors of the predictors without meta-learning that are known exactly, by name, as of maml eval"
    )


class CompareDocument(Document):
    """Errors of several runs on the same test tasks, and differences."""

    figures: list[str] = Field(description="paths of the figures; none if they could not be written")
    results: list[Comparison] = Field(description="one comparison for each K")


class KeyDifference(Shape):
    """A key of the config at which two runs differ."""

    key: str = Field(description="dotted key, such as inner.steps")
    left: JsonValue = Field(description="value of the first run")
    right: JsonValue = Field(description="value of the second run")


class DiffDocument(Document):
    """Two runs: keys that differ, and the difference of their errors."""

    left: str = Field(description="name of the directory or file of the first run")
    right: str = Field(description="name of the directory or file of the second run")
    keys: list[KeyDifference] = Field(description="the keys at which their configs differ, in the order of the schema")
    note: str | None = Field(description="reason why there is no difference of errors; null where there is one")
    results: list[Comparison] = Field(description="one comparison for each K, as of maml compare; empty with a note")
