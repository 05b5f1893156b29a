"""Reports: the inner loop in the page against Python, the playground in a real browser, and the page around it."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import maml_cli as maml
from maml_cli.core import ACTIVATIONS, LOSSES, curvature, map_tensors, select_run, update_rules
from maml_cli.core.extrapolation import EXTRAPOLATIONS
from maml_cli.evaluation import Protocol, TrainedRun, fit_tasks, measure_of, open_run
from maml_cli.experiment.inner_updates import HEADS
from maml_cli.report import learner_document, playground_tasks
from maml_cli.report.inline_svg import inline_svg
from maml_cli.report.page import SOURCES, config_rows, report_page, unique_names
from maml_cli.reporting import tasks_note
from tests.browser import BROWSER, run_in_page
from tests.conftest import ROOT, Cli

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")

SHORT = ["outer.steps=1", "outer.tasks_per_step=2", "run.eval_tasks=2", "run.engine=reference", "run.dtype=float64"]
ALPHAS = ["inner.alpha.learned=true", "inner.alpha.per_step=true", "inner.alpha.after_last_step=decay"]
SCRIPTS = "".join((SOURCES / name).read_text() for name in ("matrices.js", "learner.js"))
PAGE = f"<html><body><script>{SCRIPTS}</script></body></html>"
LEARNERS: dict[str, list[str]] = {
    **{f"activation {name}": [f"model.activation={name}"] for name in ACTIVATIONS},
    **{f"loss {name}": [f"inner.loss={name}"] for name in LOSSES},
    **{f"adapts {name}": [f"inner.adapt={name}"] for name in ("head", "body")},
    "context": ["model.num_context=4", "inner.adapt=context", "inner.alpha.init=0.5"],
    "learned context": ["model.num_context=3", "model.context_learned=true"],
    "context and all": ["model.num_context=3"],
    "alpha per layer and step": [*ALPHAS, "inner.alpha.per=layer", "inner.steps=3"],
    "alpha per tensor, held": [*ALPHAS[:2], "inner.alpha.per=tensor", "inner.alpha.after_last_step=hold"],
    "alpha per parameter, positive": [ALPHAS[0], "inner.alpha.per=parameter", "inner.alpha.sign=positive"],
    "alpha per step, stops": [*ALPHAS[:2], "inner.steps=2", "inner.alpha.after_last_step=stop"],
    "curvature": ["inner.curvature=kronecker"],
    "closed-form head": ["inner.head=ridge", "inner.adapt=head", "inner.ridge.per=feature"],
    "closed-form head, gradient steps on the body": ["inner.head=ridge", "inner.steps=2", *ALPHAS,
                                                     "inner.curvature=kronecker"],
    "noise": ["inner.head=ridge", "inner.ridge.noise=0.3", "inner.ridge.per=feature", "inner.steps=2", *ALPHAS],
    "clipped norm": ["inner.clip_norm=0.5", "inner.curvature=kronecker"],
    "momentum": ["inner.momentum=0.9", "inner.curvature=kronecker", *ALPHAS, "inner.alpha.per=parameter"],
    "clipped entries": ["inner.clip_value=0.05"],
    "curvature per step": ["inner.curvature=kronecker", "inner.curvature_per_step=true", "inner.steps=2",
                           "inner.alpha.after_last_step=hold"],
    "curvature of a context": ["model.num_context=3", "inner.curvature=kronecker"],
    "alpha scaled": ["inner.alpha.scale=0.5"],
    "adam": ["inner.optimizer=adam"],
    "proximal": ["inner.order=implicit", "inner.proximal=0.7", "inner.steps=3"],
    "three layers": ["model.hidden=[5,3,4]"],
    "no hidden layer": ["model.hidden=[]"],
    "other units": ["tasks.family=data", "tasks.file=curves.csv", "tasks.num_support=4", "tasks.num_query=3"],
}  # fmt: skip
NUM_TASKS, STEPS = 24, 5


def _perturbed(run: TrainedRun) -> TrainedRun:
    """The run with other values of everything that is learned, so that no two of them are equal."""
    generator = torch.Generator().manual_seed(3)

    def noisy(value: torch.Tensor) -> torch.Tensor:
        size = torch.where(value.abs() < 0.5, 0.003, 0.1)  # of a small alpha, or of its logarithm
        return value + size * torch.randn(value.shape, generator=generator, dtype=value.dtype)

    return run._replace(meta_params=map_tensors(noisy, run.meta_params))


@pytest.fixture
def _own_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    rows = (f"{task},{x * 10},{20 + task * np.sin(x)}" for task in range(20) for x in np.linspace(-3, 3, 9))
    Path("curves.csv").write_text("task,x,y\n" + "\n".join(rows) + "\n")
    yield


@needs_browser
@pytest.mark.usefixtures("_own_curves")
def test_the_page_adapts_every_kind_of_learner_as_python_does() -> None:
    """24 tasks each, 3 to 26 support points, 0 to 5 inner steps, in float64."""
    generator = np.random.default_rng(1)
    cases, expected = {}, {}
    for name, overrides in LEARNERS.items():
        run = _perturbed(maml.train("smoke", *SHORT, *overrides, out=f"runs/{name}"))
        (low, high), family = run.experiment.family.x, run.experiment.family
        tasks = [generator.uniform(low, high, size) for size in range(3, 3 + NUM_TASKS)]
        scale = (family.y[1] - family.y[0]) / 4
        targets = [sum(family.y) / 2 + scale * np.sin(generator.uniform(0.2, 2) * x * 4 / (high - low)) for x in tasks]
        grid = np.linspace(low, high, 30)
        steps = run.adapt(tasks, targets, steps=STEPS).steps([grid] * NUM_TASKS)
        expected[name] = np.asarray(steps)  # (S + 1, B, N)
        if run.experiment.variance:
            stds = [run.adapt(tasks, targets, steps=step).std([grid] * NUM_TASKS) for step in range(STEPS + 1)]
            expected[f"{name}: std"] = np.asarray(stds)
        cases[name] = {"learner": learner_document(run), "x": [x.tolist() for x in tasks],
                       "y": [y.tolist() for y in targets], "grid": grid.tolist()}  # fmt: skip
    script = f"""const cases = {json.dumps(cases)}; const results = {{}};
    for (const [name, {{ learner, x, y, grid }}] of Object.entries(cases)) {{
      const loaded = Learner.load(learner);
      const trajectories = x.map((xs, task) => loaded.adapt(xs, y[task], {STEPS}));
      results[name] = trajectories.map((steps) => steps.map((params) => loaded.predict(params, grid)));
      results[`${{name}}: std`] = trajectories.map((steps) => steps.map((params) => loaded.deviation(params, grid)));
    }}
    return results;"""
    results = run_in_page(PAGE, script)
    for name, values in expected.items():
        obtained = np.asarray(results[name], dtype=float).transpose(1, 0, 2)
        assert np.isfinite(values).all() and obtained.shape == values.shape == (STEPS + 1, NUM_TASKS, 30)
        assert np.abs(values[0] - values[-1]).max() > 1e-3, f"{name} does not adapt"
        np.testing.assert_allclose(obtained, values, rtol=1e-5, atol=1e-5 * np.abs(values).max(), err_msg=name)


@needs_browser
def test_the_page_knows_all_names_of_the_config_and_refuses_others() -> None:
    assert run_in_page(PAGE, "return Learner.names;") == {
        "model.activation": [*ACTIVATIONS],
        "inner.loss": [*LOSSES],
        "inner.optimizer": [*update_rules.INNER_OPTIMIZERS],
        "inner.curvature": [*curvature.CURVATURES],
        "inner.head": [*HEADS],
        "inner.alpha.sign": [*update_rules.ALPHA_SIGNS],
        "inner.alpha.after_last_step": [*EXTRAPOLATIONS],
    }
    refused = run_in_page(PAGE, 'try { Learner.load({ activation: "mish" }); } catch (error) { return error.message; }')
    assert refused == "model.activation: mish is unknown to this page"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[TrainedRun]:
    folder = tmp_path_factory.mktemp("reports")
    short = ["outer.steps=30", "run.eval_tasks=4", "run.eval_every=10", "run.log_every=10"]
    return [
        maml.train("smoke", *short, out=folder / "first"),
        maml.train("smoke", *short, "inner.alpha.learned=true", "tasks.num_support=7", out=folder / "second <b>"),
        maml.train("smoke", *short, "model.oracle=true", out=folder / "oracle"),
    ]


@pytest.fixture(scope="module")
def page(runs: list[TrainedRun]) -> str:
    return report_page(runs, Protocol(30))


PLAY = """
const root = document.querySelector(".play"), plot = root.querySelector(".plot");
const all = (selector) => [...root.querySelectorAll(selector)];
const points = () => all(".point").map((point) => [Number(point.getAttribute("cx")), Number(point.getAttribute("cy"))]);
const errors = () => all(".errors tbody td").map((cell) => cell.textContent);
const curves = () => all(".curve.now").map((curve) => curve.getAttribute("d"));
const click = (selector) => root.querySelector(selector).click();
const input = (element, value) => { element.value = value; element.dispatchEvent(new Event("input")); };
const pointer = (kind, target, x, y) => {
  const box = plot.getBoundingClientRect();
  target.dispatchEvent(new PointerEvent(kind, { bubbles: true, cancelable: true, pointerId: 1, button: 0,
    pointerType: "touch", clientX: box.left + x / 760 * box.width, clientY: box.top + y / 440 * box.height }));
};
plot.setPointerCapture = () => {};
const key = (name, shiftKey = false) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key: name, shiftKey, bubbles: true, cancelable: true }));
"""


@needs_browser
def test_points_are_dragged_added_and_removed_by_pointer_and_keyboard(page: str) -> None:
    result = run_in_page(page, PLAY + """
    const seen = { start: points(), curves: [curves()] };
    pointer("pointerdown", all(".point")[3], ...points()[3]);
    pointer("pointermove", plot, 400, 100);
    pointer("pointerup", plot, 400, 100);
    pointer("pointermove", plot, 500, 200);
    seen.dragged = points(); seen.curves.push(curves());
    pointer("pointerdown", plot, 200, 300); pointer("pointerup", plot, 200, 300);
    seen.added = points(); seen.curves.push(curves());
    pointer("pointerdown", plot, 200, 300); pointer("pointerup", plot, 260, 300);
    seen.swiped = points().length;
    all(".point")[0].focus(); key("ArrowRight"); key("ArrowUp", true);
    seen.moved = points(); seen.focus = document.activeElement.dataset.index;
    key("Delete");
    seen.removed = points();
    click(".add"); seen.more = points().length;
    click(".remove"); click(".reset"); seen.reset = points();
    for (let i = 0; i < 12; i++) click(".remove");
    seen.none = [points().length, errors(), root.querySelector(".message").textContent];
    return seen;""")  # fmt: skip
    start = result["start"]
    assert len(start) == 10
    moved = [list(point) for point in start]
    moved[3] = [400, 100]
    assert result["dragged"] == [pytest.approx(point, abs=0.01) for point in moved]
    moved = result["dragged"]
    assert result["added"] == [*moved, pytest.approx([200, 300], abs=0.01)] and result["swiped"] == 11
    assert len({str(curve) for curve in result["curves"]}) == 3, "the network does not bend"
    # a fiftieth of the width to the right, a tenth of the height up
    assert result["moved"][0] == pytest.approx([start[0][0] + 0.02 * 706, start[0][1] - 0.1 * 402], abs=0.01)
    assert result["focus"] == "0" and result["removed"] == result["moved"][1:]
    assert result["more"] == 11 and result["reset"] == start
    assert result["none"][0] == 0 and result["none"][1][0] == "\N{EN DASH}"
    assert result["none"][2] == "Without support points nothing adapts; add one."


@needs_browser
def test_errors_in_the_page_are_those_of_the_points_that_it_shows(page: str, runs: list[TrainedRun]) -> None:
    result = run_in_page(page, PLAY + """
    const seen = [];
    const slider = root.querySelector(".step-slider");
    const note = (step) => seen.push([step, errors(), root.querySelector(".step").textContent]);
    for (const step of [0, 1, 4]) { input(slider, step); note(step); }
    click(".next");
    note(4);
    return seen;""")  # fmt: skip
    data = playground_tasks(runs[0], measure="mse")
    for (step, shown, label), task in zip(result, [data["tasks"][0]] * 3 + [data["tasks"][1]], strict=True):
        assert label == str(step) and len(shown) == 4
        for index, run in enumerate(runs[:2]):
            fitted = run.adapt(task["x"], task["y"], steps=step)
            expected = fitted.support_error[step], fitted.error(data["grid"], task["truth"])[step]
            assert [float(text) for text in shown[2 * index : 2 * index + 2]] == pytest.approx(expected, rel=6e-3)


@needs_browser
def test_the_playground_shades_the_interval_of_new_targets(tmp_path: Path) -> None:
    """From the lower end at the first input to the upper end there, on the axes that the curves have."""
    noise = ["inner.head=ridge", "inner.adapt=head", "inner.ridge.noise=0.3"]
    run = maml.train("smoke", "outer.steps=5", "run.eval_tasks=2", *noise, out=tmp_path / "noise")
    page = report_page([run], Protocol(5))
    script = (
        PLAY
        + """const of = (selector) => all(selector).map((path) => path.getAttribute("d"));
    input(root.querySelector(".step-slider"), 1);
    return [of(".band"), of(".curve.now"), root.querySelector(".message").textContent];"""
    )
    (band,), (curve,), message = run_in_page(page, script)
    data = playground_tasks(run, measure="mse")
    task, (low, high) = data["tasks"][0], data["y"]
    fitted = run.adapt(task["x"], task["y"], steps=1)
    mean, std = (np.asarray(function(data["grid"])) for function in (fitted.predict, fitted.std))
    ends = np.concatenate([mean - 1.96 * std, (mean + 1.96 * std)[::-1]])
    tops = [float(point.split()[1]) for point in re.split("[ML]", band)[1:]]
    assert tops == pytest.approx(10 + (high - ends) / (high - low) * 402, abs=0.06)
    assert curve and message.endswith("Shaded: the 95 % interval of new targets.")


@needs_browser
def test_sliders_choose_a_sinusoid_and_runs_are_exchanged(page: str) -> None:
    result = run_in_page(page, PLAY + """
    const seen = {}; const slider = (name) => root.querySelector(`.sliders input[name="${name}"]`);
    for (const [name, value] of Object.entries({ amplitude: 2, frequency: 1.5, phase: 4 })) input(slider(name), value);
    seen.values = ["amplitude", "frequency", "phase"].map((name) => Number(slider(name).value));
    seen.points = points();
    seen.labels = all(".sliders span").map((label) => [label.textContent, label.className]);
    const [first, second] = all(".choices select");
    seen.two = curves().length; seen.message = root.querySelector(".message").textContent;
    input(second, ""); seen.one = [curves().length, errors().length];
    input(second, "2"); seen.oracle = [errors(), root.querySelector(".message").textContent];
    return seen;""")  # fmt: skip
    amplitude, frequency, phase = result["values"]
    assert (amplitude, frequency, phase) == pytest.approx((2, 1.5, 4), abs=0.04)
    height = re.search(r'"y": \[(\S+), (\S+)\]', page)
    assert height
    low, high = map(float, height.groups())
    for left, top in result["points"]:
        x, y = -5 + (left - 44) / 706 * 10, high - (top - 10) / 402 * (high - low)
        assert y == pytest.approx(amplitude * np.sin(frequency * x - phase), abs=1e-6)
    assert [state for _, state in result["labels"]] == ["", "outside", "outside"]
    assert result["labels"][1][0].endswith("trained: 1") and "trained: 0 to 3.14" in result["labels"][2][0]
    assert result["message"] == "first was trained with 1 inner step. second <b> was trained with 1 inner step."
    assert result["two"] == 2 and result["one"] == [1, 2]
    shown, message = result["oracle"]
    assert shown[2:] == ["\N{EN DASH}"] * 2 and message.startswith(
        "oracle cannot run here: an oracle network needs amplitude"
    )


@needs_browser
def test_a_learner_without_step_sizes_for_later_steps_and_curves_say_so(tmp_path: Path, _own_curves: None) -> None:
    alphas = ["inner.alpha.learned=true", "inner.alpha.per_step=true", "inner.steps=2", "outer.steps=2"]
    first = maml.train("smoke", "outer.steps=2", "run.eval_tasks=2", out="plain")
    second = maml.train("smoke", *alphas, "run.eval_tasks=2", out="stepwise")
    script = PLAY + 'input(root.querySelector(".step-slider"), 5); return root.querySelector(".message").textContent;'
    message = run_in_page(report_page([first, second], Protocol(5)), script)
    assert message == "stepwise has step sizes for 2 inner steps."

    curves = maml.train("smoke", *SHORT, *LEARNERS["other units"], out="curves")
    script = (
        PLAY
        + """return [all(".other").length, all(".truth").length, all(".sliders input").length,
      root.querySelector(".query-title").textContent, errors()];"""
    )
    others, truths, sliders, title, errors = run_in_page(report_page([curves], Protocol(5)), script)
    assert others == 9 - 4 and (truths, sliders, title) == (0, 0, "other points")
    task = playground_tasks(curves, measure="mse")["tasks"][0]
    fitted = curves.adapt(task["x"], task["y"], steps=curves.config.inner.steps)
    expected = [fitted.support_error[-1], fitted.error(task["others"]["x"], task["others"]["y"])[-1]]
    assert [float(text) for text in errors] == pytest.approx(expected, rel=6e-3)


@needs_browser
def test_the_playground_has_the_measure_and_the_seed_of_its_run(tmp_path: Path) -> None:
    """A run trained on absolute errors shows them; of two seeds, the first runs in the page."""
    run = maml.train(
        "smoke", "outer.steps=5", "run.eval_tasks=2", "inner.loss=l1", "run.seeds=[3,4]", out=tmp_path / "l1"
    )
    words, errors, message = run_in_page(
        report_page([run], Protocol(5)),
        PLAY + """return [root.querySelector(".measure").textContent, errors(),
        root.querySelector(".message").textContent];""",
    )  # fmt: skip
    data = playground_tasks(run, measure="mae")
    task, of_seed = data["tasks"][0], run._replace(meta_params=select_run(run.meta_params, 0))
    fits = fit_tasks(of_seed, Protocol(len(data["tasks"]), (10,)), num_points=100)
    truth = fits[0].predictions[-1].numpy() - np.asarray(task["truth"])
    assert words == "mean absolute error" and message.endswith("l1 has 2 seeds; seed 3 runs here.")
    assert float(errors[1]) == pytest.approx(np.abs(truth).mean(), rel=6e-3)


def test_runs_of_different_losses_are_measured_as_in_their_comparison(runs: list[TrainedRun], tmp_path: Path) -> None:
    other = maml.train("smoke", "outer.steps=5", "run.eval_tasks=2", "inner.loss=l1", out=tmp_path / "l1")
    for chosen, measure in (([other], "mae"), ([other, other], "mae"), ([other, runs[0]], "mse")):
        assert playground_tasks(other, measure=measure_of(chosen))["measure"] == measure


def test_a_page_names_the_test_tasks_behind_its_numbers_and_repeats_with_as_many(page: str) -> None:
    assert page.count("Measured on 30 test tasks; maml eval takes 10,000 by default") == 3
    assert "maml eval --checkpoint outputs/first-again --tasks 30" in page
    assert tasks_note(10_000, Protocol()) == "Measured on 10,000 test tasks, as maml eval does by default."
    assert tasks_note(40, Protocol()) == "Measured on 40 test tasks, all that there are."


@needs_browser
def test_on_a_phone_wide_tables_and_figures_scroll_within_the_page(page: str) -> None:
    """Every table and figure is in a box that scrolls; the texts of figures are not shrunk to the window."""
    script = """const style = document.querySelector("style").sheet; const phone = [...style.cssRules].filter(
      (rule) => rule.conditionText === "(max-width: 560px)").flatMap(
      (rule) => [...rule.cssRules].map((one) => one.cssText));
    return [phone, [...document.querySelectorAll("figure, table:not(.errors)")].every(
      (element) => element.closest(".scroll") || element.querySelector(".scroll > svg"))];"""
    rules, scroll = run_in_page(page, script)
    assert scroll and any(rule.startswith("figure svg") and "width: 640px" in rule for rule in rules)


def test_a_page_has_every_run_escaped_and_asks_nothing_of_the_network(page: str, runs: list[TrainedRun]) -> None:
    assert "<h2>first</h2>" in page and "<h2>second &lt;b&gt;</h2>" in page and "second <b>" not in page
    assert page.count("<figure>") == 3 + 4 + 3 and "default-src 'none'" in page
    outside = [link for link in re.findall(r'(?:src|href|action)="([^"]*)"', page) if not link.startswith("#")]
    assert outside == [] and "@import" not in page and not re.search(r"url\((?!#)", page)
    names = re.findall(r'\bid="([^"]*)"', page.split("<script", 1)[0])
    assert len(names) == len(set(names)) > 100
    assert len(page.encode()) < 2_000_000
    assert str(Path.home()) not in page and sys.executable not in page
    for key, first, second in (("inner.alpha.learned", "false", "true"), ("tasks.num_support", "10", "7")):
        row = rf'<th scope="row">{key}</th><td>{first}</td><td>{second}</td>'
        assert re.search(row, page), key


def test_a_page_tells_preset_engine_and_the_origin_of_values(cli: Cli) -> None:
    changes = ["-s", "outer.steps=20", "-s", "outer.lr=0.5", "-s", "run.engine=eager", "-q"]
    run = cli("train", "-c", "smoke", *changes).out.strip()
    assert cli("report", run, "--tasks", 5).code == 0
    text = Path(run, "report.html").read_text()
    assert "<dt>preset</dt><dd>smoke, changed: outer.steps=20, outer.lr=0.5, run.engine=eager</dd>" in text
    assert f"<dt>engine</dt><dd>eager, by maml {maml.__version__}, PyTorch {torch.__version__}</dd>" in text
    for key, value, origin in (("outer.lr", "0.5", "changed"), ("run.log_every", "50", "preset smoke"),
                               ("inner.steps", "1", "default")):  # fmt: skip
        assert f'<th scope="row">{key}</th><td>{value}</td><td>{origin}</td>' in text, key


def test_the_table_of_a_page_is_that_of_the_evaluation(page: str, runs: list[TrainedRun]) -> None:
    result = maml.evaluate(runs[0], tasks=30).to_dict()["results"][0]
    section = page[page.index("<h2>first</h2>") : page.index("<h2>second")]
    cells = re.findall(r'<tr><th scope="row">(\d+)\*?\s*</th><td>(\S+) ± (\S+)</td><td>(\S+)</td>', section)
    assert len(cells) == 11
    for step, mean, ci95, median in cells:
        expected = result["steps"][int(step)]["grid"]["mse"]
        shown = [float(mean), float(ci95), float(median)]
        assert shown == pytest.approx([expected["mean"], expected["ci95"], expected["median"]], rel=6e-3)


def test_the_command_writes_the_page_and_refuses_other_files(cli: Cli, trained: str) -> None:
    result = cli("report", trained, "--tasks", 5)
    assert (result.code, result.out) == (0, f"{trained}/report.html\n")
    assert Path(trained, "report.html").read_text().startswith("<!doctype html>")
    assert cli("report", trained, trained, "--tasks", 5, "--out", "deep/both.html").code == 0
    text = Path("deep/both.html").read_text()
    assert f"<h2>{Path(trained).name}</h2>" in text and f"<h2>{Path(trained).name} (2)</h2>" in text
    assert "The configs are equal." in text
    for arguments, message in (
        (["--out", "page.pdf"], "--out page.pdf: must end in .html\n"),
        (["--out", "deep"], "--out deep: must end in .html\n"),
    ):
        refused = cli("report", trained, "--tasks", 5, *arguments)
        assert (refused.code, refused.err) == (2, message)
    newest = cli("report", "--tasks", 5)
    assert newest.out == f"{trained}/report.html\n" and newest.err.startswith(f"{trained}: the newest run")
    missing = cli("report", "nowhere")
    assert missing.code == 3 and missing.err.startswith("nowhere: ")


def test_a_page_too_large_is_refused_and_a_large_learner_named(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maml_cli.report.page.MAX_BYTES", 50_000)
    result = cli("report", trained, "--tasks", 5)
    assert result.code == 2 and "more than 0.05; give fewer runs" in result.err
    assert not Path(trained, "report.html").exists()
    document = learner_document(open_run(Path(trained)), most_values=100)
    assert document["reason"].endswith(" learned values make the page too large")
    assert "params" not in document


def test_names_of_svgs_are_their_own() -> None:
    text = '<?xml version="1.0"?>\n<svg height="3pt" width="4pt" viewBox="0 0 4 3"><g id="a" clip-path="url(#b)"/>' \
        '<use xlink:href="#c" height="2"/></svg>\n'  # fmt: skip
    assert inline_svg(text, prefix="p-") == (
        '<svg viewBox="0 0 4 3"><g id="p-a" clip-path="url(#p-b)"/><use xlink:href="#p-c" height="2"/></svg>\n'
    )


def test_names_tell_runs_apart() -> None:
    assert unique_names(["outputs/a", "outputs/b"]) == ["a", "b"]
    assert unique_names(["x/a", "y/a", "x/a"]) == ["x/a", "y/a", "x/a (2)"]


def test_the_committed_report_has_the_current_scripts_and_keys() -> None:
    """If this fails: maml report outputs/published/finn-10shot outputs/published/best-10shot --out
    outputs/published/report.html."""
    committed = (ROOT / "outputs" / "published" / "report.html").read_text()
    for name in ("page.css", "matrices.js", "learner.js", "playground.js"):
        assert (SOURCES / name).read_text().strip() in committed, name
    for key, _, _ in config_rows(maml.Config(), None):
        assert f'<th scope="row">{key}</th>' in committed, key
