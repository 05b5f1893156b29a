// The start of the inner loop: between the unpadded parameters of a run and the padded ones of a task.
#pragma once

#include "rule.h"

namespace {

// The start of the inner loop, of all tasks of a run or of one; padded parameters.
struct InnerStart {
  ALIGNED real params[PADDED_SIZE];          // with weight noise, if there is any
  ALIGNED real transposed[TRANSPOSED_SIZE];  // their weights
  ALIGNED real alphas[ALPHAS][PADDED_SIZE];  // of each parameter, as they multiply; zero where it does not adapt
  Curvature curvature[std::max(1, CURVATURES)];
  Penalties penalties[RIDGE ? STEPS + 1 : 1];   // of the head, and of the loss of each inner step
  ALIGNED double prior[RidgeSizes::PADDED_P];   // of the head
};

// whether a tensor is zero at the start of every task, and not among the values of a run
constexpr bool is_zero(int tensor) { return tensor == CONTEXT_TENSOR && !CONTEXT_LEARNED; }

// callback(unpadded offset, padded offset, length) for each row of each factor of curvature `c`
template <typename Callback> inline void for_each_factor_row(int c, Callback callback) {
  for (int f = 0; f < FACTORS; f++) {
    if (!has_factor(f)) continue;
    const int n = factor_size(f), unpadded = unpadded_factor_offset(f) + c * n * n, at = factor_offset(f);
    if (n == padded(n)) callback(unpadded, at, n * n);
    else
      for (int i = 0; i < n; i++) callback(unpadded + i * n, at + i * padded(n), n);
  }
}

// The parameters of the network, unpadded [NUM_PARAMS], with `noise` [NUM_PARAMS] if it is not null; the padding of
// `start` is zero.
void pad_network(const real *values, const real *noise, InnerStart &start) {
  for_each_row([&](int from, int to, int n, int t) {
    if (is_zero(t)) return;
    for (int i = 0; i < n; i++) start.params[to + i] = values[from + i] + (noise ? noise[from + i] : 0);
  });
  if constexpr (CONTEXT) set_effective_bias(start.params);
  transpose_weights(start.params, start.transposed);
  if constexpr (RIDGE) widen_head(start.params, start.prior);
}

// All but the parameters of the network: values [NUM_VALUES], and the factor on every alpha.
void pad_rule(const real *values, real alpha_scale, InnerStart &start) {
  const real *alphas = values + ALPHAS_BEGIN;
  for (int s = 0; s < ALPHAS; s++)
    for_each_row([&](int from, int to, int n, int t) {
      if (GROUP[t] < 0) return;
      const real *alpha = alphas + alpha_offset(t);
      alpha += PER_PARAMETER ? s * adapted_size(t) + from - tensor_offset(t) : s;
      for (int i = 0; i < n; i++) {
        const real value = alpha[PER_PARAMETER ? i : 0];
        start.alphas[s][to + i] = alpha_scale * (POSITIVE ? std::exp(value) : value);
      }
    });
  for (int c = 0; c < CURVATURES; c++) {
    for_each_factor_row(c, [&](int from, int to, int n) {
      std::memcpy(start.curvature[c].factors + to, values + CURVATURE_BEGIN + from, n * sizeof(real));
    });
    transpose_factors(start.curvature[c]);
  }
  if constexpr (RIDGE)
    for (int s = 0; s <= STEPS; s++)
      for (int j = 0; j < RidgeSizes::P; j++) {
        const double penalty = std::exp(double(values[PENALTIES_BEGIN + s * PENALTIES + (PENALTIES > 1 ? j : 0)]));
        start.penalties[s].values[j] = penalty, start.penalties[s].inverses[j] = 1 / penalty;
      }
}

}  // namespace
