// A multilayer perceptron with one output at the points of a task: gradients and Hessian-vector products of its loss.
//
// The formulas are those of forward_backward, gradients and subtract_hvp_ in derivatives.py (Pearlmutter 1994, Fast
// exact multiplication by the Hessian). The sizes of all loops are constants on the compiler's command line, documented
// in KernelSpec of kernel_spec.py.
//
// K is the number of points; their inputs x are [K][INPUTS], hidden activations [K][width]. Parameters have two layouts:
//   unpadded: weight [in][out] and bias [out] of each layer, one after the other;
//   padded: the same with each row of length `out` padded with zeros to whole vectors; the weights of the head are one
//     row. The network computes with padded parameters. With context inputs, see context.h, the bias of the first layer
//     and its weights of the context are after all of these.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "products.h"

namespace {

constexpr int WIDTH[] = {WIDTHS};
constexpr int LAYERS = sizeof(WIDTH) / sizeof(int) - 1, HEAD = LAYERS - 1, INPUTS = WIDTH[0];
enum { RELU, TANH, SIGMOID, SIN, SOFTPLUS, SILU, GELU };
enum { MSE, L1, HUBER, HALF_MSE };
constexpr bool CURVED = ACTIVATION != RELU;  // whether f'' is not zero everywhere

// ---- offsets of tensors within arrays; a tensor index is 2 * layer for a weight and 2 * layer + 1 for a bias

constexpr int weight_offset(int layer) {  // within padded parameters
  int offset = 0;
  for (int l = 0; l < layer; l++) offset += (WIDTH[l] + 1) * padded(WIDTH[l + 1]);
  return offset;
}
constexpr int bias_offset(int layer) {  // within padded parameters
  return weight_offset(layer) + (layer == HEAD ? padded(WIDTH[layer]) : WIDTH[layer] * padded(WIDTH[layer + 1]));
}
constexpr int CONTEXT_TENSOR = 2 * LAYERS, NUM_TENSORS = CONTEXT_TENSOR + (CONTEXT > 0);
constexpr int tensor_size(int tensor) {
  if (tensor == CONTEXT_TENSOR) return CONTEXT;
  return (tensor % 2 ? 1 : WIDTH[tensor / 2] + (tensor == 0 ? CONTEXT : 0)) * WIDTH[tensor / 2 + 1];
}
constexpr int tensor_offset(int tensor) {  // within unpadded parameters
  int offset = 0;
  for (int t = 0; t < tensor; t++) offset += tensor_size(t);
  return offset;
}
constexpr int hidden_offset(int points, int layer) {  // of hidden layer 0, 1, ... within the activations of a network
  int offset = 0;
  for (int l = 0; l < layer; l++) offset += points * padded(WIDTH[l + 1]);
  return offset;
}
constexpr int transposed_offset(int layer) {  // of layers 1 .. HEAD - 1 within the transposed weights
  int offset = 0;
  for (int l = 1; l < layer; l++) offset += WIDTH[l + 1] * padded(WIDTH[l]);
  return offset;
}
constexpr int BIAS_WIDTH = padded(WIDTH[1]);  // of the first layer
constexpr int OWN_BIAS = bias_offset(HEAD) + LANES, CONTEXT_VALUES = OWN_BIAS + BIAS_WIDTH;  // see context.h
constexpr int CONTEXT_WEIGHTS = CONTEXT_VALUES + padded(CONTEXT);
constexpr int PADDED_SIZE = CONTEXT ? CONTEXT_WEIGHTS + CONTEXT * BIAS_WIDTH : OWN_BIAS;
constexpr int TRANSPOSED_SIZE = std::max(LANES, transposed_offset(std::max(1, HEAD)));
constexpr int NUM_PARAMS = tensor_offset(CONTEXT_TENSOR) + (CONTEXT_LEARNED ? CONTEXT : 0);

// callback(unpadded offset, padded offset, length, tensor) for each row of each tensor
template <typename Callback> inline void for_each_row(Callback callback) {
  for (int t = 0; t < CONTEXT_TENSOR; t++) {
    const int l = t / 2, unpadded = tensor_offset(t), n = WIDTH[l + 1];
    if (t % 2) callback(unpadded, t == 1 && CONTEXT ? OWN_BIAS : bias_offset(l), n, t);
    else if (l == HEAD) callback(unpadded, weight_offset(l), WIDTH[l], t);
    else
      for (int i = 0; i < WIDTH[l]; i++) callback(unpadded + i * n, weight_offset(l) + i * padded(n), n, t);
  }
  for (int i = 0; i < CONTEXT; i++) callback((WIDTH[0] + i) * WIDTH[1], CONTEXT_WEIGHTS + i * BIAS_WIDTH, WIDTH[1], 0);
  if (CONTEXT) callback(tensor_offset(CONTEXT_TENSOR), CONTEXT_VALUES, CONTEXT, CONTEXT_TENSOR);
}

template <int layer = 1> inline void transpose_weights(const real *params, real *transposed) {
  if constexpr (layer < HEAD) {
    transpose<WIDTH[layer], WIDTH[layer + 1]>(params + weight_offset(layer), transposed + transposed_offset(layer));
    transpose_weights<layer + 1>(params, transposed);
  }
}

// ---- activation and loss: value, first and second derivative; of ReLU the value alone

inline void activate(real z, real &value, real &first, real &second) {
  if constexpr (ACTIVATION == RELU) {
    value = z > 0 ? z : 0;
  } else if constexpr (ACTIVATION == TANH) {
    value = std::tanh(z), first = 1 - value * value, second = -2 * value * first;
  } else if constexpr (ACTIVATION == SIN) {
    value = std::sin(z), first = std::cos(z), second = -value;
  } else if constexpr (ACTIVATION == GELU) {
    const real half_root = real(0.70710678118654752440), density = real(0.39894228040143267794) * std::exp(-z * z / 2);
    const real probability = std::erfc(-z * half_root) / 2;  // of a standard normal number below z
    value = z * probability, first = probability + z * density, second = (2 - z * z) * density;
  } else {
    const real sigmoid = 1 / (1 + std::exp(-z));
    if constexpr (ACTIVATION == SIGMOID) {
      value = sigmoid, first = sigmoid * (1 - sigmoid), second = first * (1 - 2 * sigmoid);
    } else if constexpr (ACTIVATION == SOFTPLUS) {
      value = z > 20 ? z : std::log1p(std::exp(z)), first = sigmoid, second = sigmoid * (1 - sigmoid);
    } else {
      value = z * sigmoid, first = sigmoid + value * (1 - sigmoid);
      second = sigmoid * (1 - sigmoid) * (2 + z * (1 - 2 * sigmoid));
    }
  }
}

inline void loss_derivatives(real error, real &value, real &first, real &second) {
  const real size = std::abs(error), sign = (error > 0) - (error < 0);
  if constexpr (LOSS == MSE) value = error * error, first = 2 * error, second = 2;
  else if constexpr (LOSS == HALF_MSE) value = error * error / 2, first = error, second = 1;
  else if constexpr (LOSS == L1) value = size, first = sign, second = 0;
  else value = size < 1 ? error * error / 2 : size - real(0.5), first = size < 1 ? error : sign, second = size < 1;
}

// ---- the network at the points of a task, and the gradient of their mean loss

// The intermediates of a forward and a backward pass. Those of hidden layers, z = h W + b and h = f(z), follow each
// other, see hidden_offset; those of the head have one number for each point.
template <int POINTS> struct ForwardBackward {
  static constexpr int SIZE = std::max(LANES, hidden_offset(POINTS, HEAD));
  static constexpr int CURVED_SIZE = CURVED ? SIZE : LANES;
  ALIGNED real hidden[SIZE];              // h
  ALIGNED real deltas[SIZE];              // dL/dz
  ALIGNED real act_first[CURVED_SIZE];    // f'(z); of ReLU it is known from h
  ALIGNED real act_second[CURVED_SIZE];   // f''(z)
  ALIGNED real grad_hidden[CURVED_SIZE];  // dL/dh
  real head_delta[POINTS];                // dL/dz of the head, the output
  real loss_second[POINTS];               // d2L/dz2 of the head
  real loss;                              // L, the mean over the points

  real times_derivative(real value, int i) const {  // f'(z) value of hidden unit i
    if constexpr (CURVED) return value * act_first[i];
    else return hidden[i] > 0 ? value : 0;
  }
};

// The rows of the inputs and of the outputs of a layer, out of those of the hidden layers and of x, or of the head.
template <int POINTS, int layer, typename First, typename Hidden>
inline std::common_type_t<First *, Hidden *> inputs(First *x, Hidden *hidden) {
  if constexpr (layer == 0) return x;
  else return hidden + hidden_offset(POINTS, layer - 1);
}
template <int POINTS, int layer, typename Hidden, typename Last>
inline std::common_type_t<Hidden *, Last *> outputs(Hidden *hidden, Last *head) {
  if constexpr (layer == HEAD) return head;
  else return hidden + hidden_offset(POINTS, layer);
}

// The terms of products of `rows`: rows W of the inputs of a layer that is not the head, a row of biases at each point,
// and rows W^T of the outputs of a layer that is not the first.
template <int layer> inline auto weight_term(const real *rows, const real *params) {
  constexpr int IN = layer == 0 ? INPUTS : padded(WIDTH[layer]), OUT = padded(WIDTH[layer + 1]);
  return term<WIDTH[layer], IN, 1, OUT>(rows, params + weight_offset(layer));
}
template <int layer> inline auto bias_term(const real *params) {
  static constexpr real one = 1;
  return term<1, 0, 0, padded(WIDTH[layer + 1])>(&one, params + bias_offset(layer));
}
template <int layer> inline auto transposed_term(const real *rows, const real *params, const real *transposed) {
  constexpr int IN = padded(WIDTH[layer]), OUT = WIDTH[layer + 1];
  if constexpr (layer == HEAD) return term<1, 1, 1, IN>(rows, params + weight_offset(layer));
  else return term<OUT, padded(OUT), 1, IN>(rows, transposed + transposed_offset(layer));
}

// out = the sum of terms, for the outputs or for the inputs of a layer at the points
template <int POINTS, int layer, typename... Terms> inline void set_outputs(real *out, Terms... terms) {
  constexpr int OUT = padded(WIDTH[layer + 1]);
  product<SET, POINTS, OUT, OUT>(out, terms...);
}
template <int POINTS, int layer, typename... Terms> inline void set_inputs(real *out, Terms... terms) {
  constexpr int IN = padded(WIDTH[layer]);
  product<SET, POINTS, IN, IN>(out, terms...);
}

// out += h w of the head, h its inputs
template <int POINTS> inline void add_head_product(const real *h, const real *params, real *out) {
  const real *weight = params + weight_offset(HEAD);
  if constexpr (HEAD > 0) row_products<POINTS, padded(WIDTH[HEAD])>(h, weight, out);
  else
    for (int k = 0; k < POINTS; k++)
      for (int i = 0; i < INPUTS; i++) out[k] += h[k * INPUTS + i] * weight[i];
}

// out = h w + b of the head
template <int POINTS> inline void head_outputs(const real *h, const real *params, real *out) {
  std::fill_n(out, POINTS, params[bias_offset(HEAD)]);
  add_head_product<POINTS>(h, params, out);
}

template <int POINTS, int layer = 0>
inline void forward(const real *x, const real *params, ForwardBackward<POINTS> &pass) {
  if constexpr (layer < HEAD) {
    constexpr int H = hidden_offset(POINTS, layer), N = padded(WIDTH[layer + 1]);
    real *hidden = pass.hidden + H;
    set_outputs<POINTS, layer>(hidden, bias_term<layer>(params),
                               weight_term<layer>(inputs<POINTS, layer>(x, pass.hidden), params));
    for (int i = 0; i < POINTS * N; i++)
      activate(hidden[i], hidden[i], pass.act_first[CURVED ? H + i : 0], pass.act_second[CURVED ? H + i : 0]);
    forward<POINTS, layer + 1>(x, params, pass);
  }
}

template <int POINTS, int layer = HEAD - 1>
inline void backward(const real *params, const real *transposed, ForwardBackward<POINTS> &pass) {
  if constexpr (layer >= 0) {
    constexpr int H = hidden_offset(POINTS, layer), N = padded(WIDTH[layer + 1]);
    real *delta = pass.deltas + H;
    const real *next = outputs<POINTS, layer + 1>(pass.deltas, pass.head_delta);
    set_inputs<POINTS, layer + 1>(delta, transposed_term<layer + 1>(next, params, transposed));
    if constexpr (CURVED) std::memcpy(pass.grad_hidden + H, delta, POINTS * N * sizeof(real));
    for (int i = 0; i < POINTS * N; i++) delta[i] = pass.times_derivative(delta[i], H + i);
    backward<POINTS, layer - 1>(params, transposed, pass);
  }
}

// The loss at the outputs, after forward.
template <int POINTS>
inline void compute_loss(const real *x, const real *y, const real *params, ForwardBackward<POINTS> &pass) {
  real out[POINTS], loss = 0;
  head_outputs<POINTS>(inputs<POINTS, HEAD>(x, pass.hidden), params, out);
  for (int k = 0; k < POINTS; k++) {
    real value, first, second;
    loss_derivatives(out[k] - y[k], value, first, second);
    loss += value, pass.head_delta[k] = first / POINTS, pass.loss_second[k] = second / POINTS;
  }
  pass.loss = loss / POINTS;
}

template <int POINTS>
inline void forward_backward(const real *x, const real *y, const real *params, const real *transposed,
                             ForwardBackward<POINTS> &pass) {
  forward(x, params, pass);
  compute_loss(x, y, params, pass);
  backward(params, transposed, pass);
}

// Rows of the inputs and of the outputs of all layers.
struct Rows {
  const real *x, *hidden, *deltas, *head_delta;
};

// gradient (=, +=, -=) h^T delta for the weights of the layers from `layer` to END, the sum over all `rows`; those
// after the first have no part in the first layer.
template <int MODE, int POINTS, int END, int layer = 0, typename... More>
inline void accumulate_weights(real *gradient, const Rows &first, const More &...rows) {
  if constexpr (layer < END) {
    constexpr int M = WIDTH[layer], N = padded(WIDTH[layer + 1]), W = weight_offset(layer);
    const auto h = [](const Rows &from) { return inputs<POINTS, layer>(from.x, from.hidden); };
    const auto delta = [](const Rows &from) { return outputs<POINTS, layer>(from.deltas, from.head_delta); };
    if constexpr (layer < HEAD) {
      if constexpr (layer == 0) product<MODE, M, N, N>(gradient + W, term<POINTS, 1, M, N>(h(first), delta(first)));
      else
        product<MODE, M, N, N>(gradient + W, term<POINTS, 1, padded(M), N>(h(first), delta(first)),
                               term<POINTS, 1, padded(M), N>(h(rows), delta(rows))...);
      accumulate_weights<MODE, POINTS, END, layer + 1>(gradient, first, rows...);
    } else if constexpr (HEAD > 0) {
      product<MODE, 1, padded(M), padded(M)>(gradient + W, term<POINTS, 1, 1, padded(M)>(delta(first), h(first)),
                                             term<POINTS, 1, 1, padded(M)>(delta(rows), h(rows))...);
      for (int i = M; i < padded(M); i++) gradient[W + i] = 0;  // the padding of h is f(0), which may not be zero
    } else {
      for (int i = 0; i < INPUTS; i++) {
        real weighted = 0;
        for (int k = 0; k < POINTS; k++) weighted += h(first)[k * INPUTS + i] * delta(first)[k];
        gradient[i] = (MODE == SET ? 0 : gradient[i]) + (MODE == SUB ? -weighted : weighted);
      }
    }
  }
}

// gradient (=, +=, -=) the sum of delta over the points for the biases of the layers from `layer` to END
template <int MODE, int POINTS, int END, int layer = 0>
inline void accumulate_biases(const real *deltas, const real *head_delta, real *gradient) {
  if constexpr (layer < std::min(END, HEAD)) {
    constexpr int N = padded(WIDTH[layer + 1]);
    static constexpr real one = 1;
    const real *delta = deltas + hidden_offset(POINTS, layer);
    product<MODE, 1, N, N>(gradient + bias_offset(layer), term<POINTS, 0, 0, N>(&one, delta));
    accumulate_biases<MODE, POINTS, END, layer + 1>(deltas, head_delta, gradient);
  } else if constexpr (layer < END) {
    constexpr int B = bias_offset(HEAD);
    real sum = 0;
    for (int k = 0; k < POINTS; k++) sum += head_delta[k];
    gradient[B] = (MODE == SET ? 0 : gradient[B]) + (MODE == SUB ? -sum : sum);
  }
}

// gradient (=, +=, -=) that of the layers before END
template <int MODE, int POINTS, int END>
inline void accumulate_gradients(const real *x, const ForwardBackward<POINTS> &pass, real *gradient) {
  accumulate_weights<MODE, POINTS, END>(gradient, Rows{x, pass.hidden, pass.deltas, pass.head_delta});
  accumulate_biases<MODE, POINTS, END>(pass.deltas, pass.head_delta, gradient);
}

// ---- Hessian-vector products: the tangents of a pass along a direction of weights V and biases v, which is known by
// its products: direction.forward<layer>(x, pass, out, terms...) is out = h V + v of a layer and backward<layer>(pass,
// out, terms...) out = delta V^T of a layer that is not the first, both plus further terms

// The tangents of the intermediates in ForwardBackward of the same layout.
struct Tangent {
  static constexpr int SIZE = ForwardBackward<SUPPORT>::SIZE;
  ALIGNED real h_dot[SIZE];
  ALIGNED real z_dot[CURVED ? SIZE : LANES];
  ALIGNED real delta_dot[SIZE];
};

// z_dot = h V + v + h_dot W and h_dot = f'(z) z_dot
template <int layer = 0, typename Direction>
inline void tangent_forward(const real *x, const real *params, const Direction &direction,
                            const ForwardBackward<SUPPORT> &pass, Tangent &tangent) {
  if constexpr (layer < HEAD) {
    constexpr int K = SUPPORT, N = padded(WIDTH[layer + 1]), H = hidden_offset(K, layer);
    real *h_dot = tangent.h_dot + H;
    if constexpr (layer == 0) direction.template forward<layer>(x, pass, h_dot);
    else {
      const real *h_dot_before = tangent.h_dot + hidden_offset(K, layer - 1);
      direction.template forward<layer>(x, pass, h_dot, weight_term<layer>(h_dot_before, params));
    }
    if constexpr (CURVED) std::memcpy(tangent.z_dot + H, h_dot, K * N * sizeof(real));
    for (int i = 0; i < K * N; i++) h_dot[i] = pass.times_derivative(h_dot[i], H + i);
    tangent_forward<layer + 1>(x, params, direction, pass, tangent);
  }
}

// delta_dot = f'(z) (delta_dot_next W^T + delta_next V^T) + dL/dh f''(z) z_dot, where `next` is the layer after
template <int layer = HEAD - 1, typename Direction>
inline void tangent_backward(const real *params, const real *transposed, const Direction &direction,
                             const real *head_delta_dot, const ForwardBackward<SUPPORT> &pass, Tangent &tangent) {
  if constexpr (layer >= 0) {
    constexpr int K = SUPPORT, N = padded(WIDTH[layer + 1]), H = hidden_offset(K, layer), NEXT = layer + 1;
    real *delta_dot = tangent.delta_dot + H;
    const real *next = outputs<K, NEXT>(tangent.delta_dot, head_delta_dot);
    direction.template backward<NEXT>(pass, delta_dot, transposed_term<NEXT>(next, params, transposed));
    for (int i = 0; i < K * N; i++) {
      delta_dot[i] = pass.times_derivative(delta_dot[i], H + i);
      if constexpr (CURVED) delta_dot[i] += pass.grad_hidden[H + i] * pass.act_second[H + i] * tangent.z_dot[H + i];
    }
    tangent_backward<layer - 1>(params, transposed, direction, head_delta_dot, pass, tangent);
  }
}

// The tangents of dL/dz of the head, after tangent_forward.
template <typename Direction>
inline void tangent_head(const real *x, const real *params, const Direction &direction,
                         const ForwardBackward<SUPPORT> &pass, const Tangent &tangent, real *head_delta_dot) {
  constexpr int K = SUPPORT;
  direction.head_outputs(x, pass, head_delta_dot);
  if constexpr (HEAD > 0) add_head_product<K>(tangent.h_dot + hidden_offset(K, HEAD - 1), params, head_delta_dot);
  for (int k = 0; k < K; k++) head_delta_dot[k] *= pass.loss_second[k];
}

// adjoint -= H V in the layers before END, with H the Hessian of the mean support loss at `params`, where `pass` was
// computed; after tangent_head.
template <int END, typename Direction>
inline void subtract_hvp(const real *x, const real *params, const real *transposed, const Direction &direction,
                         const real *head_delta_dot, const ForwardBackward<SUPPORT> &pass, Tangent &tangent,
                         real *adjoint) {
  constexpr int K = SUPPORT;
  tangent_backward(params, transposed, direction, head_delta_dot, pass, tangent);
  // The inputs of the first layer and of all biases are constants: they have no tangent.
  accumulate_weights<SUB, K, END>(adjoint, Rows{x, pass.hidden, tangent.delta_dot, head_delta_dot},
                                  Rows{nullptr, tangent.h_dot, pass.deltas, pass.head_delta});
  accumulate_biases<SUB, K, END>(tangent.delta_dot, head_delta_dot, adjoint);
}

}  // namespace
