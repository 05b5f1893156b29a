"use strict";
/* The inner loop of a trained learner, for one task, in float64: the arithmetic of maml_cli/core in plain JavaScript,
   by matrices.js. Names are those of the config; an unknown one is an error. */
const Learner = (() => {
  const { matrix, map, zip, product, columnSums, columnsFrom, cholesky, solveLower, solvePositive } = Matrices;

  /* erf by 2 / sqrt(pi) e^(-x^2) sum of 2^n x^(2n + 1) / (1 3 5 ... (2n + 1)), which has no cancellation. */
  function erf(x) {
    if (Math.abs(x) > 6) return Math.sign(x);
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= 2 * x * x / (2 * n + 1);
      sum += term;
    }
    return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
  }

  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  const normal = (z) => (1 + erf(z / Math.SQRT2)) / 2;

  /* Name -> [f(z), f'(z)]. */
  const ACTIVATIONS = {
    relu: [(z) => Math.max(z, 0), (z) => (z > 0 ? 1 : 0)],
    tanh: [Math.tanh, (z) => 1 - Math.tanh(z) ** 2],
    silu: [(z) => z * sigmoid(z), (z) => sigmoid(z) * (1 + z * (1 - sigmoid(z)))],
    gelu: [(z) => z * normal(z), (z) => normal(z) + z * Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI)],
    softplus: [(z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))), sigmoid],
    sigmoid: [sigmoid, (z) => sigmoid(z) * (1 - sigmoid(z))],
    sin: [Math.sin, Math.cos],
  };
  /* Name -> derivative of the loss of an error. */
  const LOSSES = { mse: (e) => 2 * e, half_mse: (e) => e, l1: Math.sign, huber: (e) => Math.min(Math.max(e, -1), 1) };
  const ALPHA_SIGNS = { free: (value) => value, positive: Math.exp };
  /* Name -> [factor on the updates, from the number of inner steps past the last that has parameters;
     largest length of an update, as a multiple of the one before]. */
  const EXTRAPOLATIONS = { hold: [() => 1, Infinity], decay: [(past) => 0.5 ** past, 0.05], stop: [() => 0, Infinity] };
  const lengthOf = (gradients) => Math.sqrt(Object.values(gradients).reduce(
    (total, g) => g.values.reduce((sum, value) => sum + value * value, total), 0));

  const perKey = (gradients, f) => Object.fromEntries(Object.entries(gradients).map(([key, g]) => [key, f(key, g)]));

  /* Name -> transform of the gradients at inner step `step`; `state` carries the running means of squares. */
  const OPTIMIZERS = {
    sgd: (gradients) => gradients,
    adam: (gradients, step, state) => perKey(gradients, (key, g) => {
      const [decay, eps] = [0.999, 1e-8];
      const squares = map(g, (value) => (1 - decay) * value * value);
      state[key] = step ? zip(squares, state[key], (new_, old) => new_ + decay * old) : squares;
      const correction = 1 - decay ** (step + 1);
      return zip(g, state[key], (value, square) => value / Math.sqrt(square / correction + eps * eps));
    }),
  };
  const atStep = (values, step) => values[Math.min(step, values.length - 1)];
  const CURVATURES = {
    none: (rule, gradients) => gradients,
    kronecker: (rule, gradients, step) => perKey(gradients, (key, g) => {
      const right = product(g, atStep(rule[`${key}.out`], step));
      return rule[`${key}.in`] ? product(atStep(rule[`${key}.in`], step), right) : right;
    }),
  };

  /* Name -> whether the head is solved for. */
  const HEADS = { gradient: false, ridge: true };

  function choose(table, name, key) {
    if (!Object.hasOwn(table, name)) throw new Error(`${key}: ${name} is unknown to this page`);
    return table[name];
  }

  /* The matrices of a tensor (S, rows, columns) in base64. */
  function decode({ shape: [count, rows, columns], type, data }) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const numbers = Float64Array.from(new (type === "float64" ? Float64Array : Float32Array)(bytes.buffer));
    const size = rows * columns;
    return Array.from({ length: count }, (_, i) => matrix(rows, columns, numbers.slice(i * size, (i + 1) * size)));
  }

  /* The learner of a document: adapt(x, y, steps) gives the parameters after 0, 1, ... inner steps,
     predict(params, x) numbers, and deviation(params, x) the standard deviations of new targets, null without a
     predictive distribution; points and predictions are in the units of the tasks. */
  function load(document) {
    const [activate, derivative] = choose(ACTIVATIONS, document.activation, "model.activation");
    const lossDerivative = choose(LOSSES, document.loss, "inner.loss");
    const optimize = choose(OPTIMIZERS, document.optimizer, "inner.optimizer");
    const precondition = choose(CURVATURES, document.curvature, "inner.curvature");
    const solves = choose(HEADS, document.head, "inner.head");
    const toAlpha = choose(ALPHA_SIGNS, document.alphaSign, "inner.alpha.sign");
    const extrapolate = document.afterLastStep === null ? null
      : choose(EXTRAPOLATIONS, document.afterLastStep, "inner.alpha.after_last_step");
    const start = Object.fromEntries(Object.entries(document.params).map(([key, value]) => [key, decode(value)[0]]));
    const rule = Object.fromEntries(Object.entries(document.rule).map(([key, value]) => [key, decode(value)]));
    if (document.numContext && !start.context) start.context = matrix(1, document.numContext);
    const { layers, scaling } = document;

    const inputs = (x) => matrix(x.length, 1, Float64Array.from(x, (v) => v * scaling.x_factor + scaling.x_shift));

    /* The inputs of each layer, and the values before each activation. */
    function forward(params, x) {
      let input = x;
      if (params.context) {
        const width = 1 + document.numContext;
        input = matrix(x.rows, width);
        input.values.forEach((_, i) => {
          input.values[i] = i % width ? params.context.values[i % width - 1] : x.values[i / width];
        });
      }
      const ins = [], outs = [];
      for (const layer of layers) {
        const bias = params[`${layer}.b`].values;
        const out = map(product(input, params[`${layer}.w`]), (value, i) => value + bias[i % bias.length]);
        ins.push(input);
        outs.push(out);
        input = map(out, activate);
      }
      return { ins, outs };
    }

    /* d mean loss / d params, for all parameters. */
    function gradients(params, x, y) {
      const { ins, outs } = forward(params, x);
      const result = {};
      const last = layers.length - 1;
      let delta = map(outs[last], (value, i) => lossDerivative(value - y[i]) / y.length);
      for (let layer = last; layer >= 0; layer--) {
        result[`${layers[layer]}.w`] = product(ins[layer], delta, { left: true });
        result[`${layers[layer]}.b`] = columnSums(delta);
        delta = product(delta, params[`${layers[layer]}.w`], { right: true });
        if (layer) delta = zip(delta, map(outs[layer - 1], derivative), (d, slope) => d * slope);
      }
      if (params.context) result.context = columnSums(columnsFrom(delta, 1));
      return result;
    }

    /* The updates of a step, smaller past the last step that has parameters; state.length is that of the last. */
    function extrapolated(updates, step, state) {
      if (!document.stepsWithParams || step < document.stepsWithParams - 1) return updates;
      if (step >= document.stepsWithParams) {
        if (!extrapolate) throw new Error(`inner step ${step + 1} has no step size`);
        const [factor, longest] = extrapolate, limit = longest * state.length;
        updates = perKey(updates, (key, u) => map(u, (value) => factor(step - document.stepsWithParams + 1) * value));
        const shorter = Math.min(1, limit / lengthOf(updates));
        if (shorter < 1) updates = perKey(updates, (key, u) => map(u, (value) => shorter * value));
      }
      state.length = lengthOf(updates);
      return updates;
    }

    function clip(gradients) {
      if (document.clipNorm !== null) {
        const factor = document.clipNorm / Math.max(lengthOf(gradients), document.clipNorm);
        return perKey(gradients, (key, g) => map(g, (value) => factor * value));
      }
      const limit = document.clipValue === null ? Infinity : document.clipValue;
      return perKey(gradients, (key, g) => map(g, (value) => Math.min(Math.max(value, -limit), limit)));
    }

    /* The features of points and a 1. */
    function designOf(params, x) {
      const features = forward(params, x).ins.at(-1), design = matrix(x.rows, features.columns + 1);
      design.values.forEach((_, i) => {
        const column = i % design.columns;
        design.values[i] = column < features.columns ? features.values[(i - column) / design.columns * features.columns + column] : 1;
      });
      return design;
    }

    /* lambda of each weight of the head and its bias. */
    const penaltiesOf = (logPenalty, size) => matrix(1, size, Float64Array.from({ length: size }, (_, j) =>
      Math.exp(logPenalty.values[logPenalty.values.length === 1 ? 0 : j])));

    /* sigma^2, and the Cholesky factor of F^T F + diag(lambda), F the features of no points or of all. */
    function posterior(params, x) {
      if (!rule["ridge.noise"]) return undefined;
      const design = designOf(params, x), penalties = penaltiesOf(rule.ridge[0], design.columns).values;
      const precision = map(product(design, design, { left: true }), (value, i) =>
        value + (i % (design.columns + 1) === 0 ? penalties[i / (design.columns + 1)] : 0));
      return { variance: Math.exp(2 * rule["ridge.noise"][0].values[0]) + 1e-6, factor: cholesky(precision) };
    }

    /* The standard deviations of new targets. */
    function deviation({ posterior, ...params }, x) {
      if (!posterior) return null;
      const design = designOf(params, inputs(x));
      return Array.from(x, (_, i) => {
        const spread = solveLower(posterior.factor, design.values.slice(i * design.columns, (i + 1) * design.columns));
        return Math.sqrt(posterior.variance * (1 + spread.reduce((sum, value) => sum + value * value, 0))) / scaling.y_factor;
      });
    }

    /* The velocities momentum * v + update, from v = 0, which `state` carries. */
    function accumulate(updates, state) {
      if (!document.momentum) return updates;
      const old = state.velocity;
      state.velocity = old ? perKey(updates, (key, u) => zip(u, old[key], (value, v) => document.momentum * v + value)) : updates;
      return state.velocity;
    }

    /* `params` with the head w0 + L^-1 F^T (F L^-1 F^T + I)^-1 (y - F w0): F features and a 1, L penalties. */
    function solveHead(params, x, y, logPenalty) {
      const design = designOf(params, x), prior = [...start["head.w"].values, ...start["head.b"].values];
      const penalties = penaltiesOf(logPenalty, prior.length);
      const scaled = map(design, (value, i) => value / penalties.values[i % prior.length]);
      const gram = map(product(scaled, design, { right: true }), (value, i) => value + (i % (x.rows + 1) === 0 ? 1 : 0));
      const target = product(design, matrix(prior.length, 1, Float64Array.from(prior))).values.map((value, i) => y[i] - value);
      const change = product(scaled, matrix(x.rows, 1, solvePositive(gram, target)), { left: true });
      const head = map(change, (value, j) => value + prior[j]).values;
      return { ...params, "head.w": matrix(prior.length - 1, 1, head.slice(0, -1)), "head.b": matrix(1, 1, head.slice(-1)) };
    }

    /* The parameters after a gradient step from `params`; a head in closed form is the one for the loss of the step. */
    function descend(params, points, targets, step, state) {
      if (!document.adapted.length) return params;
      const at = solves ? solveHead(params, points, targets, atStep(rule["ridge.body"], step)) : params;
      const all = gradients(at, points, targets);
      let updates = Object.fromEntries(document.adapted.map((key) => [key, all[key]]));
      if (document.proximal) {
        updates = perKey(updates, (key, g) => map(g, (value, i) =>
          value + document.proximal * (params[key].values[i] - start[key].values[i])));
      }
      updates = accumulate(optimize(precondition(rule, clip(updates), step), step, state), state);
      updates = perKey(updates, (key, update) => {
        const alpha = map(atStep(rule[document.alphaGroups[key]], step), (value) => document.alphaScale * toAlpha(value));
        return zip(update, alpha, (u, a) => a * u);
      });
      updates = extrapolated(updates, step, state);
      return { ...params, ...perKey(updates, (key, update) => zip(params[key], update, (value, u) => value - u)) };
    }

    function adapt(x, y, steps) {
      const points = inputs(x), targets = y.map((value) => value * scaling.y_factor + scaling.y_shift);
      const withPosterior = (params, points) => ({ ...params, posterior: posterior(params, points) });
      const trajectory = [withPosterior(start, inputs([]))], state = {};
      let params = start;
      for (let step = 0; step < steps; step++) {
        params = descend(params, points, targets, step, state);
        trajectory.push(withPosterior(solves ? solveHead(params, points, targets, rule.ridge[0]) : params, points));
      }
      return trajectory;
    }

    const predict = (params, x) => Array.from(forward(params, inputs(x)).outs.at(-1).values,
      (value) => (value - scaling.y_shift) / scaling.y_factor);
    return { adapt, predict, deviation };
  }

  const names = { "model.activation": ACTIVATIONS, "inner.loss": LOSSES, "inner.optimizer": OPTIMIZERS,
    "inner.curvature": CURVATURES, "inner.head": HEADS,
    "inner.alpha.sign": ALPHA_SIGNS, "inner.alpha.after_last_step": EXTRAPOLATIONS };
  return { load, names: Object.fromEntries(Object.entries(names).map(([key, table]) => [key, Object.keys(table)])) };
})();
