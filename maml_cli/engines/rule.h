// The update rule of an inner step, params -= alpha * v, v <- mu v + r(U c(g)), and its derivatives; the formulas are
// those of rule_derivatives.py, where there is no r.
//
// g is the gradient of the support loss and of its proximal term, lambda / 2 |params - start|^2; c is its clip, mu the
// momentum, and U the curvature: M_in G M_out for the gradient G of a weight, g M_out for that of a bias. G = h^T delta
// has the rank K of the support points, so that products with its rows h and delta, (h M_in^T)^T (delta M_out), cost
// less than those with G; U^T kappa is not even formed, where -kappa is the gradient of the outer loss with respect
// to v. r is Adam without momentum, see scale_by_rms of core/update_rules.py.
//
// Values of a run: the parameters of the network, unpadded, alphas, the factors of the curvature, and the penalties of
// a head in closed form, those that are not learned last.
#pragma once

#include "context.h"
#include "ridge.h"

namespace {

constexpr int GROUP[] = {GROUPS};
enum { NONE, NORM, VALUE };  // of CLIP

constexpr bool adapts(int tensor) { return GROUP[tensor] >= 0; }
constexpr int adapted_size(int tensor) { return adapts(tensor) ? tensor_size(tensor) : 0; }
constexpr int alpha_offset(int tensor) {  // of the ALPHAS alphas (or tensors of alphas) of a tensor
  if (!PER_PARAMETER) return GROUP[tensor] * ALPHAS;
  int offset = 0;
  for (int t = 0; t < tensor; t++) offset += ALPHAS * adapted_size(t);
  return offset;
}

// ---- the curvature: factors M_in and M_out of each weight that adapts and M_out of each bias, n x n

constexpr bool KRONECKER = CURVATURES > 0;
constexpr int IN = 0, OUT = 1, BIAS = 2, FACTORS = 3 * LAYERS;  // the factor at 3 * layer + one of them

constexpr bool has_factor(int factor) { return KRONECKER && adapts(factor / 3 * 2 + (factor % 3 == BIAS)); }
constexpr int factor_size(int factor) { return WIDTH[factor / 3 + (factor % 3 != IN)]; }
constexpr int factor_offset(int factor) {  // within padded factors
  int offset = 0;
  for (int f = 0; f < factor; f++)
    if (has_factor(f)) offset += factor_size(f) * padded(factor_size(f));
  return offset;
}
constexpr int unpadded_factor_offset(int factor) {  // of the CURVATURES matrices of a factor
  int offset = 0;
  for (int f = 0; f < factor; f++)
    if (has_factor(f)) offset += CURVATURES * factor_size(f) * factor_size(f);
  return offset;
}
constexpr int FACTORS_SIZE = std::max(LANES, factor_offset(FACTORS));

constexpr int NUM_ALPHAS = PER_PARAMETER ? alpha_offset(NUM_TENSORS) : NUM_GROUPS * ALPHAS;
constexpr int NUM_CURVATURE = unpadded_factor_offset(FACTORS);
constexpr int NUM_PENALTIES = RIDGE ? (1 + STEPS) * PENALTIES : 0;  // of the head, then of the loss of each inner step
constexpr int NUM_VALUES = NUM_PARAMS + NUM_ALPHAS + NUM_CURVATURE + NUM_PENALTIES;
constexpr int NUM_LEARNED =  // the first of them
    NUM_VALUES - (LEARNED ? 0 : NUM_ALPHAS) - (PENALTIES_LEARNED ? 0 : NUM_PENALTIES);
constexpr int ALPHAS_BEGIN = LEARNED ? NUM_PARAMS : NUM_LEARNED;
constexpr int CURVATURE_BEGIN = LEARNED ? NUM_PARAMS + NUM_ALPHAS : NUM_PARAMS;
constexpr int PENALTIES_BEGIN = PENALTIES_LEARNED ? CURVATURE_BEGIN + NUM_CURVATURE : NUM_VALUES - NUM_PENALTIES;

// The meta-gradient of a task: the adjoint of the padded parameters; the gradients of alphas, padded like parameters
// where each has its own; those of penalties; those of the padded factors of the curvatures. Padding is zero.
constexpr int LINE = 64 / sizeof(real);
constexpr int lines(int n) { return (n + LINE - 1) / LINE * LINE; }
constexpr int PARAMS_LINES = lines(PADDED_SIZE);
constexpr int GRADIENT_PENALTIES = PARAMS_LINES + (!LEARNED ? 0 : PER_PARAMETER ? ALPHAS * PARAMS_LINES : NUM_ALPHAS);
constexpr int GRADIENT_FACTORS = lines(GRADIENT_PENALTIES + (PENALTIES_LEARNED ? NUM_PENALTIES : 0));
constexpr int GRADIENT_SIZE = GRADIENT_FACTORS + CURVATURES * FACTORS_SIZE;

struct Curvature {
  ALIGNED real factors[FACTORS_SIZE];
  ALIGNED real transposed[FACTORS_SIZE];
};

template <int factor = 0> inline void transpose_factors(Curvature &curvature) {
  if constexpr (factor < FACTORS) {
    constexpr int N = factor_size(factor), F = factor_offset(factor);
    if constexpr (has_factor(factor)) transpose<N, N>(curvature.factors + F, curvature.transposed + F);
    transpose_factors<factor + 1>(curvature);
  }
}

// The term rows M, where `rows` are the values of the units of `axis`, of a hidden layer.
template <int axis> inline auto factor_term(const real *rows, const real *factor) {
  constexpr int N = padded(WIDTH[axis]);
  return term<WIDTH[axis], N, 1, N>(rows, factor);
}

// out = rows M, where `rows` and `out` are the values of the units of `axis`: 0 for x, LAYERS for the head
template <int axis> inline void factor_product(const real *rows, const real *factor, real *out) {
  constexpr int N = padded(WIDTH[axis]);
  if constexpr (axis == 0 || axis == LAYERS)
    for (int k = 0; k < SUPPORT; k++)
      for (int j = 0; j < WIDTH[axis]; j++) {
        real sum = 0;
        for (int i = 0; i < WIDTH[axis]; i++) sum += rows[k * WIDTH[axis] + i] * factor[i * N + j];
        out[k * WIDTH[axis] + j] = sum;
      }
  else product<SET, SUPPORT, N, N>(out, factor_term<axis>(rows, factor));
}

// factor -= a^T b, where `a` and `b` are COUNT rows of the values of the units of `axis`; factor = -a^T b where each
// inner step has a curvature of its own, so that there is nothing to add to.
template <int COUNT, int axis> inline void subtract_outer(const real *a, const real *b, real *factor) {
  constexpr int N = padded(WIDTH[axis]), MODE = CURVATURES == STEPS ? NEG : SUB;
  if constexpr (axis == 0 || axis == LAYERS) {
    constexpr int M = WIDTH[axis];
    for (int i = 0; i < M; i++)
      for (int j = 0; j < M; j++) {
        real sum = 0;
        for (int k = 0; k < COUNT; k++) sum += a[k * M + i] * b[k * M + j];
        factor[i * N + j] = (MODE == NEG ? 0 : factor[i * N + j]) - sum;
      }
  } else {
    product<MODE, WIDTH[axis], N, N>(factor, term<COUNT, 1, N, N>(a, b));
    for (int i = 0; i < WIDTH[axis]; i++)  // the padding of h is f(0), which may not be zero
      for (int j = WIDTH[axis]; j < N; j++) factor[i * N + j] = 0;
  }
}

// ---- the update

// The rows of M_in G M_out: h M_in^T of the inputs and delta M_out of the outputs of the layers that adapt.
struct PreconditionedRows {
  static constexpr int SIZE = KRONECKER ? ForwardBackward<SUPPORT>::SIZE : LANES;
  real x[SUPPORT * INPUTS];
  ALIGNED real hidden[SIZE];
  ALIGNED real deltas[SIZE];
  real head_delta[SUPPORT];
};

// The update of an inner step before the multiplication by alpha, and its intermediates.
struct Update {
  ALIGNED real value[PADDED_SIZE];  // U c(g); zero for layers that do not adapt
  ALIGNED real mean_square[SCALE_BY_RMS ? PADDED_SIZE : LANES];  // m = decay m + (1 - decay) value^2
  ALIGNED real scaled[SCALE_BY_RMS ? PADDED_SIZE : LANES];       // r(U c(g))
  ALIGNED real sum[MOMENTUM ? PADDED_SIZE : LANES];              // mu v + r(U c(g))
  ALIGNED real gradient[CLIP != NONE || KRONECKER ? PADDED_SIZE : LANES];  // g; of the biases alone without a clip
  PreconditionedRows rows;
  real squared_norm;  // of g, if it is clipped to a norm
  real clip_factor;   // c(g) / g

  const real *step() const { return SCALE_BY_RMS ? scaled : value; }
  const real *velocity() const { return MOMENTUM ? sum : step(); }
};

template <int layer = 0>
inline void precondition(const real *x, const ForwardBackward<SUPPORT> &pass, const Curvature &curvature,
                         PreconditionedRows &rows) {
  if constexpr (layer <= HEAD) {
    constexpr int K = SUPPORT;
    if constexpr (has_factor(3 * layer)) {
      factor_product<layer>(inputs<K, layer>(x, pass.hidden),
                                 curvature.transposed + factor_offset(3 * layer + IN),
                                 inputs<K, layer>(rows.x, rows.hidden));
      factor_product<layer + 1>(outputs<K, layer>(pass.deltas, pass.head_delta),
                                     curvature.factors + factor_offset(3 * layer + OUT),
                                     outputs<K, layer>(rows.deltas, rows.head_delta));
    }
    precondition<layer + 1>(x, pass, curvature, rows);
  }
}

// to = from M_out for the biases, where `factors` are those of the curvature or their transposes
template <int layer = 0> inline void precondition_biases(const real *from, const real *factors, real *to) {
  if constexpr (layer <= HEAD) {
    constexpr int N = padded(WIDTH[layer + 1]), B = bias_offset(layer), F = factor_offset(3 * layer + BIAS);
    if constexpr (has_factor(3 * layer + BIAS))
      product<SET, 1, N, N>(to + B, term<WIDTH[layer + 1], N, 1, N>(from + B, factors + F));
    precondition_biases<layer + 1>(from, factors, to);
  }
}

inline void clear_frozen(real *gradient) {  // of parameters that do not adapt
  for_each_row([&](int, int at, int n, int t) {
    if (!adapts(t)) std::fill_n(gradient + at, n, real(0));
  });
}

// What is the same for all inner steps of all tasks: the limit of the clip, the momentum, lambda, and the factor on
// every alpha.
struct RuleSettings {
  real clip, momentum, proximal, alpha_scale;
};

// Adam without momentum: r(p) = p / sqrt(m / correction + eps^2), m the running mean of p^2.
struct RootMeanSquare {
  static constexpr double DECAY = 0.999, EPS = 1e-8;
  const real correction;

  explicit RootMeanSquare(int step) : correction(real(1 - std::pow(DECAY, step + 1))) {}

  // 1 / sqrt(m / correction + eps^2)
  real scale(real mean_square) const { return 1 / std::sqrt(mean_square / correction + real(EPS * EPS)); }

  // `last` is the update of the inner step before, null at the first.
  void apply(const Update *last, Update &update) const {
    for (int i = 0; i < PADDED_SIZE; i++) {
      const real p = update.value[i], before = last ? last->mean_square[i] : 0;
      update.mean_square[i] = real(1 - DECAY) * p * p + real(DECAY) * before;
      update.scaled[i] = p * scale(update.mean_square[i]);
    }
  }

  // The negative gradient with respect to p, in the place of that with respect to r(p); `omega` is that with respect
  // to the m of the inner step after, zero at the last, and becomes that of this one.
  void backward(const Update &update, real *vector, real *omega) const {
    for (int i = 0; i < PADDED_SIZE; i++) {
      const real p = update.value[i], factor = scale(update.mean_square[i]);
      omega[i] = real(DECAY) * omega[i] - vector[i] * p * factor * factor * factor / (2 * correction);
      vector[i] = vector[i] * factor + 2 * real(1 - DECAY) * p * omega[i];
    }
  }
};

static_assert(CLIP != VALUE || !KRONECKER, "entries that are clipped are no product of rows");
static_assert(!PROXIMAL || !KRONECKER, "the gradient of a proximal term is no product of rows");
static_assert(!PROXIMAL || !RIDGE, "a head in closed form has no proximal term");
static_assert(!CONTEXT || !KRONECKER, "the first layer has no factors for context inputs");

// gradient += lambda (params - start), for the parameters that adapt
inline void add_proximal(real lambda, const real *params, const real *start, real *gradient) {
  for_each_row([&](int, int at, int n, int t) {
    if (!adapts(t)) return;
    for (int i = at; i < at + n; i++) gradient[i] += lambda * (params[i] - start[i]);
  });
}

// `last` is the update of the inner step before, null at the first; `initial` the parameters before that.
inline void compute_update(const real *x, const real *params, const real *initial,
                           const ForwardBackward<SUPPORT> &pass, const Curvature &curvature,
                           const RuleSettings &settings, int step, const Update *last, Update &update) {
  const real limit = settings.clip;
  real *gradient = CLIP == NONE && !KRONECKER ? update.value : update.gradient;
  if constexpr (CLIP != NONE || !KRONECKER) accumulate_gradients<SET, SUPPORT, GRADIENT_LAYERS>(x, pass, gradient);
  else accumulate_biases<SET, SUPPORT, GRADIENT_LAYERS>(pass.deltas, pass.head_delta, gradient);
  if constexpr (CONTEXT) split_gradient(params, gradient);
  if constexpr (PROXIMAL) add_proximal(settings.proximal, params, initial, gradient);
  if constexpr (KRONECKER) {
    precondition(x, pass, curvature, update.rows);
    const PreconditionedRows &rows = update.rows;
    accumulate_weights<SET, SUPPORT, GRADIENT_LAYERS>(update.value,
                                                      Rows{rows.x, rows.hidden, rows.deltas, rows.head_delta});
    precondition_biases(gradient, curvature.factors, update.value);
  }
  if constexpr (CLIP == NORM) {
    const real *unclipped = KRONECKER ? update.value : gradient;
    clear_frozen(gradient);
    update.squared_norm = inner_product(gradient, gradient, PADDED_SIZE);
    update.clip_factor = update.squared_norm > limit * limit ? limit / std::sqrt(update.squared_norm) : 1;
    for (int i = 0; i < PADDED_SIZE; i++) update.value[i] = update.clip_factor * unclipped[i];
  }
  if constexpr (CLIP == VALUE)
    for (int i = 0; i < PADDED_SIZE; i++)
      update.value[i] = gradient[i] > limit ? limit : gradient[i] < -limit ? -limit : gradient[i];
  if constexpr (SCALE_BY_RMS) RootMeanSquare(step).apply(last, update);
  if constexpr (MOMENTUM)
    for (int i = 0; i < PADDED_SIZE; i++)
      update.sum[i] = update.step()[i] + (last ? settings.momentum * last->sum[i] : 0);
}

// ---- its derivatives

// The direction dc/dg U^T A, A = dr/dp kappa, of a Hessian-vector product. With a curvature the weights of U^T A
// are M_in^T A M_out^T, and their products h V and delta V^T are (rows A) M_out^T and (rows A^T) M_in.
struct Direction {
  static constexpr bool HAS_WEIGHTS = CLIP == NORM || !KRONECKER;
  ALIGNED real vector[PADDED_SIZE];          // its biases; its weights, with a curvature those that the clip subtracts
  ALIGNED real transposed[TRANSPOSED_SIZE];  // the weights of the vector
  PreconditionedRows products;               // rows A^T of the inputs, rows A of the outputs
  const Curvature *curvature;

  // out = h V + v, plus further terms, of a layer that is not the head
  template <int layer, typename... Terms>
  inline void forward(const real *x, const ForwardBackward<SUPPORT> &pass, real *out, Terms... terms) const {
    constexpr int K = SUPPORT, F = 3 * layer + OUT;
    const auto with_curvature = [&](auto... first) {
      if constexpr (has_factor(F)) {
        const real *rows = outputs<K, layer>(products.deltas, products.head_delta);
        set_outputs<K, layer>(out, first..., factor_term<layer + 1>(rows, curvature->transposed + factor_offset(F)),
                              terms...);
      } else {
        set_outputs<K, layer>(out, first..., terms...);
      }
    };
    if constexpr (!HAS_WEIGHTS) with_curvature(bias_term<layer>(vector));
    else with_curvature(bias_term<layer>(vector), weight_term<layer>(inputs<K, layer>(x, pass.hidden), vector));
  }

  // out = h V + v of the head
  inline void head_outputs(const real *x, const ForwardBackward<SUPPORT> &pass, real *out) const {
    constexpr int K = SUPPORT, F = 3 * HEAD + OUT;
    std::fill_n(out, K, vector[bias_offset(HEAD)]);
    if constexpr (HAS_WEIGHTS) add_head_product<K>(inputs<K, HEAD>(x, pass.hidden), vector, out);
    if constexpr (has_factor(F))
      for (int k = 0; k < K; k++) out[k] += products.head_delta[k] * curvature->transposed[factor_offset(F)];
  }

  // out = delta V^T, plus a term before it, of a layer that is not the first
  template <int layer, typename First>
  inline void backward(const ForwardBackward<SUPPORT> &pass, real *out, First first) const {
    constexpr int K = SUPPORT, F = 3 * layer + IN;
    const real *delta = outputs<K, layer>(pass.deltas, pass.head_delta);
    const auto with_curvature = [&](auto... before) {
      if constexpr (has_factor(F)) {
        const real *rows = inputs<K, layer>(products.x, products.hidden);
        set_inputs<K, layer>(out, before..., factor_term<layer>(rows, curvature->factors + factor_offset(F)));
      } else {
        set_inputs<K, layer>(out, before...);
      }
    };
    if constexpr (HAS_WEIGHTS || (RIDGE && layer == HEAD))
      with_curvature(first, transposed_term<layer>(delta, vector, transposed));
    else with_curvature(first);
  }
};

// The products of A (direction.vector) with the preconditioned rows, and the gradients of the factors, -A (G M_out)^T
// and -(M_in G)^T A.
template <int layer = 0>
inline void curvature_adjoint(const real *x, const ForwardBackward<SUPPORT> &pass, const Update &update,
                              Direction &direction, real *factor_gradients) {
  if constexpr (layer <= HEAD) {
    constexpr int K = SUPPORT, F = 3 * layer, B = bias_offset(layer);
    const PreconditionedRows &rows = update.rows;
    PreconditionedRows &products = direction.products;
    const real *vector = direction.vector;
    if constexpr (has_factor(F)) {
      const real *h = inputs<K, layer>(x, pass.hidden), *delta = outputs<K, layer>(pass.deltas, pass.head_delta);
      const real *preconditioned_h = inputs<K, layer>(rows.x, rows.hidden);
      const real *preconditioned_delta = outputs<K, layer>(rows.deltas, rows.head_delta);
      real *by_input = inputs<K, layer>(products.x, products.hidden);
      real *by_output = outputs<K, layer>(products.deltas, products.head_delta);
      if constexpr (layer < HEAD) {
        set_outputs<K, layer>(by_output, weight_term<layer>(preconditioned_h, vector));
      } else {
        std::fill_n(by_output, K, real(0));
        add_head_product<K>(preconditioned_h, vector, by_output);
      }
      if constexpr (layer > 0) {
        set_inputs<K, layer>(by_input, transposed_term<layer>(preconditioned_delta, vector, direction.transposed));
      } else if constexpr (HEAD > 0) {
        std::fill_n(by_input, K * INPUTS, real(0));
        constexpr int N = padded(WIDTH[1]);
        for (int k = 0; k < K; k++)
          row_products<INPUTS, N>(vector, preconditioned_delta + k * N, by_input + k * INPUTS);
      } else {
        for (int k = 0; k < K; k++)
          for (int i = 0; i < INPUTS; i++) by_input[k * INPUTS + i] = preconditioned_delta[k] * vector[i];
      }
      subtract_outer<K, layer>(by_input, h, factor_gradients + factor_offset(F + IN));
      subtract_outer<K, layer + 1>(delta, by_output, factor_gradients + factor_offset(F + OUT));
    }
    if constexpr (has_factor(F + BIAS))
      subtract_outer<1, layer + 1>(update.gradient + B, vector + B, factor_gradients + factor_offset(F + BIAS));
    curvature_adjoint<layer + 1>(x, pass, update, direction, factor_gradients);
  }
}

// What goes back from an inner step to the one before, zero at the last: kappa with momentum, omega of Adam.
struct Carried {
  ALIGNED real kappa[MOMENTUM ? PADDED_SIZE : LANES];
  ALIGNED real omega[SCALE_BY_RMS ? PADDED_SIZE : LANES];
};

// `direction` for the adjoint of the parameters after an inner step, and the gradients of its alphas, which are added,
// and factors.
inline void update_adjoint(const real *x, const ForwardBackward<SUPPORT> &pass, const Update &update,
                           const Curvature &curvature, const RuleSettings &settings, int step, const real *alpha,
                           const real *adjoint, Carried &carried, Direction &direction, real *alpha_gradients,
                           real *factor_gradients) {
  const real limit = settings.clip, *velocity = update.velocity();
  real *vector = direction.vector;
  if constexpr (LEARNED)  // the learned value of a positive alpha is its logarithm
    for (int i = 0; i < PADDED_SIZE; i++)
      alpha_gradients[i] -= adjoint[i] * velocity[i] * (POSITIVE ? alpha[i] : settings.alpha_scale);
  for (int i = 0; i < PADDED_SIZE; i++) vector[i] = alpha[i] * adjoint[i];
  if constexpr (MOMENTUM)
    for (int i = 0; i < PADDED_SIZE; i++) vector[i] = carried.kappa[i] = vector[i] + settings.momentum * carried.kappa[i];
  if constexpr (SCALE_BY_RMS) RootMeanSquare(step).backward(update, vector, carried.omega);
  real along = 0;  // the part of the direction along g, which the clip removes
  if constexpr (CLIP == NORM) {
    if (update.squared_norm > limit * limit)
      along = inner_product(update.value, vector, PADDED_SIZE) / update.squared_norm;
    for (int i = 0; i < PADDED_SIZE; i++) vector[i] *= update.clip_factor;
  }
  if constexpr (CLIP == VALUE)
    for (int i = 0; i < PADDED_SIZE; i++) vector[i] = std::abs(update.gradient[i]) <= limit ? vector[i] : 0;
  if constexpr (KRONECKER) {
    transpose_weights(vector, direction.transposed);
    curvature_adjoint(x, pass, update, direction, factor_gradients);
    direction.curvature = &curvature;
    ALIGNED real biases[PADDED_SIZE];
    std::memcpy(biases, vector, sizeof biases);
    if constexpr (CLIP == NORM) std::memset(vector, 0, sizeof biases);
    precondition_biases(biases, curvature.transposed, vector);
  }
  if constexpr (CLIP == NORM)
    for (int i = 0; i < PADDED_SIZE; i++) vector[i] -= along * update.gradient[i];
  if constexpr (Direction::HAS_WEIGHTS) transpose_weights(vector, direction.transposed);
}

}  // namespace
