"use strict";
/* The playground: support points to drag, a truth to compare with, and the networks of one or two runs that adapt. */
(() => {
  const { learners, playground } = JSON.parse(document.getElementById("data").textContent);
  const root = document.querySelector(".play");
  const find = (selector) => root.querySelector(selector);
  const [plot, path, slider, message] = [".plot", ".path", ".step-slider", ".message"].map(find);
  const NARROW = matchMedia("(max-width: 560px)").matches;  // as in page.css: larger texts and points
  const WIDTH = 760, HEIGHT = 440, [LEFT, BOTTOM, RADIUS] = NARROW ? [70, 44, 15] : [44, 28, 8];
  const MAX_POINTS = 200;
  const STYLES = ["first", "second"];
  const [xLow, xHigh] = playground.x;
  const [yLow, yHigh] = playground.y;

  const toX = (x) => LEFT + (x - xLow) / (xHigh - xLow) * (WIDTH - LEFT - 10);
  const toY = (y) => 10 + (yHigh - y) / (yHigh - yLow) * (HEIGHT - BOTTOM - 10);
  const fromX = (left) => xLow + (left - LEFT) / (WIDTH - LEFT - 10) * (xHigh - xLow);
  const fromY = (top) => yHigh - (top - 10) / (HEIGHT - BOTTOM - 10) * (yHigh - yLow);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const show = (value) => (Number.isFinite(value) ? Number(value.toPrecision(3)).toString() : "not finite");
  /* Name of an error in an evaluation -> its words, and the error at a difference. */
  const MEASURES = { mse: ["mean squared error", (e) => e * e], mae: ["mean absolute error", Math.abs] };
  const [measureWords, measureOf] = MEASURES[playground.measure];
  const meanError = (a, b) => a.reduce((sum, value, i) => sum + measureOf(value - b[i]), 0) / a.length;

  const loaded = learners.map((learner) => {
    if (learner.reason) return { learner, reason: learner.reason };
    try {
      return { learner, ...Learner.load(learner) };
    } catch (error) {
      return { learner, reason: error.message };
    }
  });

  /* The task: support points, and its truth as a function, as values on the grid or as other points of a curve. */
  const state = { points: [], truth: null, others: null, parameters: {}, task: 0, step: 0, chosen: 0,
    runs: [0, learners.length > 1 ? 1 : null] };

  function element(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const line = (xs, ys, placeX = toX, placeY = toY) => xs.map((x, i) =>
    `${Number.isFinite(ys[i]) ? (i && Number.isFinite(ys[i - 1]) ? "L" : "M") : ""}`
    + (Number.isFinite(ys[i]) ? `${placeX(x).toFixed(1)} ${clamp(placeY(ys[i]), -1e4, 1e4).toFixed(1)}` : "")).join("");

  /* Round numbers within an interval, some four of them. */
  function ticks(low, high) {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const size = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const first = Math.ceil(low / size);
    return Array.from({ length: Math.floor(high / size) - first + 1 }, (_, i) => Number(((first + i) * size).toPrecision(6)));
  }

  const sinusoid = (x) => {
    const { amplitude, frequency, phase, offset = 0 } = state.parameters;
    return amplitude * Math.sin(frequency * x - phase) + offset;
  };

  function chooseTask(index) {
    const task = playground.tasks[index];
    Object.assign(state, { task: index, truth: task.truth, others: task.others, chosen: 0,
      points: task.x.map((x, i) => ({ x, y: task.y[i] })) });
    fitSliders(task);
  }

  /* The sliders at the parameters of a task of sinusoids, which are known from the page's data. */
  function fitSliders(task) {
    for (const [name, value] of Object.entries(task.parameters || {})) {
      state.parameters[name] = value;
      const input = find(`.sliders input[name="${name}"]`);
      if (input) input.value = value;
    }
    labelSliders();
  }

  function setParameter(name, value) {
    state.parameters[name] = value;
    state.truth = playground.grid.map(sinusoid);
    for (const point of state.points) point.y = sinusoid(point.x);
    labelSliders();
    draw();
  }

  function labelSliders() {
    for (const { name, trained: [low, high] } of playground.sliders) {
      const value = state.parameters[name], label = find(`.sliders [data-name="${name}"]`);
      const outside = value < low - 1e-9 || value > high + 1e-9;
      const range = low === high ? show(low) : `${show(low)} to ${show(high)}`;
      label.textContent = `${name} ${show(value)}${outside ? `, trained: ${range}` : ""}`;
      label.className = outside ? "outside" : "";
    }
  }

  /* Trajectories of the runs that are shown: predictions on the grid and errors after each inner step. */
  function adapt() {
    const steps = maxSteps();
    return state.runs.filter((index) => index !== null).map((index, order) => {
      const { learner, reason, adapt: adaptTo, predict, deviation } = loaded[index];
      if (reason) return { learner, reason, order };
      const xs = state.points.map((point) => point.x), ys = state.points.map((point) => point.y);
      const trajectory = xs.length ? adaptTo(xs, ys, Math.min(steps, learner.maxSteps)) : [adaptTo([0], [0], 0)[0]];
      const curves = trajectory.map((params) => predict(params, playground.grid));
      const bands = trajectory.map((params) => deviation(params, playground.grid));
      const support = trajectory.map((params) => (xs.length ? meanError(predict(params, xs), ys) : null));
      const query = trajectory.map((params, step) => (state.truth ? meanError(curves[step], state.truth)
        : state.others.x.length ? meanError(predict(params, state.others.x), state.others.y) : null));
      return { learner, order, curves, bands, support, query };
    });
  }

  const maxSteps = () => Math.max(0, ...state.runs.filter((index) => index !== null && !loaded[index].reason)
    .map((index) => loaded[index].learner.maxSteps));

  function draw() {
    slider.max = maxSteps();
    state.step = Math.min(state.step, Number(slider.max));
    slider.value = state.step;
    find(".step").textContent = state.step;
    const results = adapt();
    drawPlot(results);
    drawPath(results.filter((result) => !result.reason));
    drawErrors(results);
  }

  const last = (result) => Math.min(state.step, result.curves.length - 1);

  function drawPlot(results) {
    const focused = plot.contains(document.activeElement);
    const clip = element("clipPath", { id: "plot-clip" });
    clip.append(element("rect", { x: LEFT, y: 0, width: WIDTH - LEFT, height: HEIGHT - BOTTOM }));
    const inside = element("g", { "clip-path": "url(#plot-clip)" });
    plot.replaceChildren(clip, ...axes(), inside);
    if (state.truth) inside.append(element("path", { class: "curve truth", d: line(playground.grid, state.truth) }));
    else state.others.x.forEach((x, i) => inside.append(
      element("circle", { class: "other", cx: toX(x), cy: toY(state.others.y[i]), r: 3.5 })));
    for (const result of results.filter(({ reason }) => !reason)) {
      inside.append(...band(result, last(result)));
      result.curves.forEach((curve, step) => {
        const kind = step === last(result) ? "now" : step === 0 ? "start" : "ghost";
        if (step > last(result)) return;
        inside.append(element("path", { class: `curve ${STYLES[result.order]} ${kind}`, d: line(playground.grid, curve) }));
      });
    }
    state.points.forEach((point, index) => plot.append(element("circle", {
      class: `point${index === state.chosen ? " chosen" : ""}`, cx: toX(point.x), cy: toY(point.y), r: RADIUS, tabindex: 0,
      role: "button", "data-index": index, "aria-label": `Support point ${index + 1}: x ${show(point.x)}, y ${show(point.y)}`,
    })));
    if (focused) plot.querySelector(`[data-index="${state.chosen}"]`)?.focus({ preventScroll: true });
  }

  /* The interval of new targets after the shown step, mean +- 1.96 standard deviations, of a learner that has it. */
  function band({ curves, bands, order }, step) {
    const mean = curves[step], deviations = bands[step];
    if (!deviations) return [];
    const [low, high] = [-1.96, 1.96].map((width) => mean.map((value, i) => value + width * deviations[i]));
    const outline = line([...playground.grid, ...playground.grid.toReversed()], [...low, ...high.toReversed()]);
    return [element("path", { class: `band ${STYLES[order]}`, d: outline })];
  }

  function axes() {
    const marks = ticks(xLow, xHigh).map((x) => element("text", { x: toX(x), y: HEIGHT - 9, "text-anchor": "middle" }, x));
    for (const y of ticks(yLow, yHigh)) {
      marks.push(element("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: toY(y), y2: toY(y) }));
      marks.push(element("text", { x: LEFT - 7, y: toY(y) + 4, "text-anchor": "end" }, y));
    }
    return marks;
  }

  /* Errors on the truth against inner steps, on a logarithmic axis. */
  function drawPath(results) {
    const values = results.flatMap(({ query }) => query).filter((value) => Number.isFinite(value) && value > 0);
    path.replaceChildren();
    if (!values.length || maxSteps() === 0) return;
    const low = Math.floor(Math.log10(Math.max(Math.min(...values), 1e-12))), high = Math.max(low + 1,
      Math.ceil(Math.log10(Math.max(...values))));
    const placeX = (step) => 48 + step / maxSteps() * 280;
    const placeY = (value) => 12 + (high - Math.log10(Math.max(value, 1e-12))) / (high - low) * 112;
    for (let power = low; power <= high; power += Math.ceil((high - low) / 4)) {
      path.append(element("line", { class: "axis", x1: 48, x2: 332, y1: placeY(10 ** power), y2: placeY(10 ** power) }));
      path.append(element("text", { x: 42, y: placeY(10 ** power) + 4, "text-anchor": "end" }, Number((10 ** power).toPrecision(1))));
    }
    for (const result of results) {
      const name = STYLES[result.order];
      path.append(element("path", { class: `curve ${name}`, d: line(result.query.map((_, step) => step), result.query, placeX, placeY) }));
      const at = last(result);
      if (result.query[at] > 0) path.append(element("circle", { class: `curve ${name}`, "stroke-dasharray": "none",
        cx: placeX(at), cy: placeY(result.query[at]), r: 5 }));
    }
    path.append(element("text", { x: 190, y: 146, "text-anchor": "middle" }, `error on the ${state.truth ? "truth" : "other points"} after each inner step`));
  }

  function drawErrors(results) {
    const rows = results.map((result) => {
      const row = document.createElement("tr"), head = document.createElement("th"), key = document.createElement("span");
      key.className = result.order ? "key other-run" : "key";
      head.scope = "row";
      head.append(key, result.learner.name);
      row.append(head, ...["support", "query"].map((name) => {
        const cell = document.createElement("td");
        const value = result.reason ? null : result[name][last(result)];
        cell.textContent = value === null ? "–" : show(value);
        return cell;
      }));
      return row;
    });
    find(".errors tbody").replaceChildren(...rows);
    const notes = results.filter(({ reason }) => reason).map(({ learner, reason }) => `${learner.name} cannot run here: ${reason}.`);
    const running = results.filter(({ reason }) => !reason);
    const steps = (count) => `${count} inner step${count === 1 ? "" : "s"}`;
    if (!state.points.length && running.length) notes.push("Without support points nothing adapts; add one.");
    for (const { learner } of running.filter(() => state.points.length)) {
      if (state.step > learner.maxSteps) notes.push(`${learner.name} has step sizes for ${steps(learner.maxSteps)}.`);
    }
    for (const { learner } of notes.length ? [] : running) {
      notes.push(`${learner.name} was trained with ${steps(learner.trainedSteps)}.`);
    }
    if (running.some(({ bands }) => bands[0])) notes.push("Shaded: the 95 % interval of new targets.");
    for (const { learner } of running.filter(({ learner }) => learner.numSeeds > 1)) {
      notes.push(`${learner.name} has ${learner.numSeeds} seeds; seed ${learner.seed} runs here.`);
    }
    message.textContent = notes.join(" ");
  }

  function position(event) {
    const box = plot.getBoundingClientRect();
    return { x: clamp(fromX((event.clientX - box.left) / box.width * WIDTH), xLow, xHigh),
      y: clamp(fromY((event.clientY - box.top) / box.height * HEIGHT), yLow, yHigh) };
  }

  function addPoint(point) {
    if (state.points.length >= MAX_POINTS) return;
    state.points.push(point);
    state.chosen = state.points.length - 1;
    draw();
  }

  function removePoint() {
    state.points.splice(state.chosen, 1);
    state.chosen = clamp(state.chosen, 0, Math.max(0, state.points.length - 1));
    draw();
  }

  /* A point on the truth, in the middle of the widest gap between the points. */
  function pointInGap() {
    const xs = [xLow, ...state.points.map(({ x }) => x).sort((a, b) => a - b), xHigh];
    const gaps = xs.slice(1).map((x, i) => x - xs[i]), widest = gaps.indexOf(Math.max(...gaps));
    const x = (xs[widest] + xs[widest + 1]) / 2, index = playground.grid.findIndex((value) => value >= x);
    return { x, y: state.truth ? state.truth[Math.max(index, 0)] : (yLow + yHigh) / 2 };
  }

  let dragged = null;
  plot.addEventListener("pointerdown", (event) => {
    const index = event.target.dataset?.index;
    if (index === undefined) {
      if (event.pointerType === "mouse" && event.button !== 0) return;
      pressed = { x: event.clientX, y: event.clientY };
      return;
    }
    event.preventDefault();
    state.chosen = dragged = Number(index);
    plot.setPointerCapture(event.pointerId);
    event.target.focus({ preventScroll: true });
    draw();
  });
  plot.addEventListener("pointermove", (event) => {
    if (dragged === null) return;
    state.points[dragged] = position(event);
    draw();
  });
  let pressed = null;
  plot.addEventListener("pointerup", (event) => {
    if (dragged === null && pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 6) addPoint(position(event));
    dragged = pressed = null;
  });
  plot.addEventListener("pointercancel", () => { dragged = pressed = null; });
  plot.addEventListener("focusin", (event) => {
    const index = event.target.dataset?.index;
    if (index === undefined || Number(index) === state.chosen) return;
    state.chosen = Number(index);
    for (const point of plot.querySelectorAll(".point")) point.classList.toggle("chosen", point === event.target);
  });
  plot.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const point = state.points[state.chosen];
    if (direction && point) {
      const size = event.shiftKey ? 0.1 : 0.02;
      point.x = clamp(point.x + direction[0] * size * (xHigh - xLow), xLow, xHigh);
      point.y = clamp(point.y + direction[1] * size * (yHigh - yLow), yLow, yHigh);
      draw();
    } else if ((event.key === "Delete" || event.key === "Backspace") && point) removePoint();
    else return;
    event.preventDefault();
  });

  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    find(".run").textContent = "▶";
  }
  find(".run").addEventListener("click", () => {
    if (timer !== null) return stop();
    if (state.step >= maxSteps()) state.step = 0;
    find(".run").textContent = "❚❚";
    timer = setInterval(() => {
      if (state.step >= maxSteps()) return stop();
      state.step += 1;
      draw();
    }, 450);
    draw();
  });
  slider.addEventListener("input", () => { stop(); state.step = Number(slider.value); draw(); });
  find(".next").addEventListener("click", () => { chooseTask((state.task + 1) % playground.tasks.length); draw(); });
  find(".reset").addEventListener("click", () => { chooseTask(state.task); draw(); });
  find(".add").addEventListener("click", () => addPoint(pointInGap()));
  find(".remove").addEventListener("click", () => state.points.length && removePoint());

  function labelled(container, text, control) {
    const label = document.createElement("label"), title = document.createElement("span");
    title.textContent = text;
    label.append(title, control);
    container.append(label);
    return title;
  }

  for (const { name, min, max, value } of playground.sliders) {
    const input = Object.assign(document.createElement("input"), { type: "range", name, min, max, step: (max - min) / 200 });
    state.parameters[name] = value;
    input.value = value;
    labelled(find(".sliders"), name, input).dataset.name = name;
    input.addEventListener("input", () => setParameter(name, Number(input.value)));
  }
  if (learners.length > 1) {
    ["Run", "Second run"].forEach((text, order) => {
      const select = document.createElement("select");
      if (order) select.append(new Option("none", ""));
      learners.forEach(({ name }, index) => select.append(new Option(name, index)));
      select.value = state.runs[order];
      labelled(find(".choices"), text, select);
      select.addEventListener("input", () => { state.runs[order] = select.value === "" ? null : Number(select.value); draw(); });
    });
  }
  find(".measure").textContent = measureWords;
  if (!playground.tasks[0].truth) find(".query-title").textContent = "other points";
  chooseTask(0);
  state.step = Math.min(Math.max(...loaded.slice(0, 2).map(({ learner }) => learner.trainedSteps ?? 0)), maxSteps());
  root.hidden = false;
  draw();
})();
