// Context inputs: C further inputs of the network, the same numbers c at all points of a task (CAVIA; with learned
// values, MAML with a bias input).
//
// They act on the first layer as a bias, b' = b + c W with the rows W of its weight that multiply them. The network of
// network.h has the others alone as its inputs and b' as its bias; b, c and W follow its padded parameters.
//
// From the gradient g' of b' follow those of b, c and W: g', g' W^T and c^T g'. Where (b_dot, c_dot, W_dot) is the
// direction of a Hessian-vector product, that of b' is b_dot + c_dot W + c W_dot; and from the product p' for b' follow
// those for b, c and W: p', p' W^T + g' W_dot^T and c^T p' + c_dot^T g'.
//
// The entries of b' in an update, a gradient and an adjoint are zero: b' itself does not adapt.
#pragma once

#include "network.h"

namespace {

template <typename Real> struct Context {  // views into padded parameters, or an array of their layout
  Real *bias, *values, *weights;           // b [BIAS_WIDTH], c [CONTEXT], W [CONTEXT][BIAS_WIDTH]
  Real *effective;                         // b' [BIAS_WIDTH]

  explicit Context(Real *params)
      : bias(params + OWN_BIAS), values(params + CONTEXT_VALUES), weights(params + CONTEXT_WEIGHTS),
        effective(params + bias_offset(0)) {}
};

inline real bias_product(const real *a, const real *b) {
  real sum = 0;
  for (int j = 0; j < BIAS_WIDTH; j++) sum += a[j] * b[j];
  return sum;
}

// b' of `params`
inline void set_effective_bias(real *params) {
  const Context to(params);
  std::memcpy(to.effective, to.bias, BIAS_WIDTH * sizeof(real));
  for (int i = 0; i < CONTEXT; i++)
    for (int j = 0; j < BIAS_WIDTH; j++) to.effective[j] += to.values[i] * to.weights[i * BIAS_WIDTH + j];
}

// The entries of b, c and W in `gradient`, at `params`, from that of b', which becomes zero.
inline void split_gradient(const real *params, real *gradient) {
  const Context from(params);
  const Context to(gradient);
  for (int i = 0; i < CONTEXT; i++) {
    to.values[i] = bias_product(to.effective, from.weights + i * BIAS_WIDTH);
    for (int j = 0; j < BIAS_WIDTH; j++) to.weights[i * BIAS_WIDTH + j] = from.values[i] * to.effective[j];
  }
  std::memcpy(to.bias, to.effective, BIAS_WIDTH * sizeof(real));
  std::fill_n(to.effective, BIAS_WIDTH, real(0));
}

// The entry of b' in the direction of a Hessian-vector product at `params`.
inline void set_effective_direction(const real *params, real *direction) {
  const Context at(params);
  const Context dot(direction);
  std::memcpy(dot.effective, dot.bias, BIAS_WIDTH * sizeof(real));
  for (int i = 0; i < CONTEXT; i++)
    for (int j = 0; j < BIAS_WIDTH; j++)
      dot.effective[j] +=
          dot.values[i] * at.weights[i * BIAS_WIDTH + j] + at.values[i] * dot.weights[i * BIAS_WIDTH + j];
}

// adjoint -= the product of a Hessian at `params` with `direction` for b, c and W, where its entry of b' is -p', and
// becomes zero.
inline void split_hvp(const real *params, const real *direction, const ForwardBackward<SUPPORT> &pass, real *adjoint) {
  const Context at(params), dot(direction);
  const Context to(adjoint);
  real bias_gradient[BIAS_WIDTH] = {};  // g'
  for (int k = 0; k < SUPPORT; k++) {
    if constexpr (HEAD == 0) bias_gradient[0] += pass.head_delta[k];
    else
      for (int j = 0; j < BIAS_WIDTH; j++) bias_gradient[j] += pass.deltas[k * BIAS_WIDTH + j];
  }
  for (int j = 0; j < BIAS_WIDTH; j++) to.bias[j] += to.effective[j];
  for (int i = 0; i < CONTEXT; i++) {
    to.values[i] += bias_product(to.effective, at.weights + i * BIAS_WIDTH) -
                    bias_product(bias_gradient, dot.weights + i * BIAS_WIDTH);
    for (int j = 0; j < BIAS_WIDTH; j++)
      to.weights[i * BIAS_WIDTH + j] += at.values[i] * to.effective[j] - dot.values[i] * bias_gradient[j];
  }
  std::fill_n(to.effective, BIAS_WIDTH, real(0));
}

}  // namespace
