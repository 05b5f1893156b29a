// A multilayer perceptron with one output at the points of a task: gradients and Hessian-vector products of its loss.
//
// The formulas are those of forward_backward, gradients and subtract_hvp_ in derivatives.py (Pearlmutter 1994, Fast
// exact multiplication by the Hessian). The sizes of all loops are constants on the compiler's command line, documented in
// KernelSpec of kernel_build.py.
//
// K is the number of points; hidden activations are [K][width]. Parameters have two layouts:
//   unpadded: weight [in][out] and bias [out] of each layer, one after the other;
//   padded: the same with each row of length `out` padded with zeros to whole vectors; the weights of the head are one
//     row. The network computes with padded parameters.
#pragma once

#include <cmath>
#include <cstring>

#include "products.h"

namespace {

constexpr int WIDTH[] = {WIDTHS};
constexpr int LAYERS = sizeof(WIDTH) / sizeof(int) - 1, HEAD = LAYERS - 1;
constexpr int GROUP[] = {GROUPS};
enum { RELU, TANH, SIGMOID, SIN, SOFTPLUS, SILU };
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
constexpr int tensor_offset(int tensor) {  // within unpadded parameters
  int offset = 0;
  for (int t = 0; t < tensor; t++) offset += (t % 2 ? 1 : WIDTH[t / 2]) * WIDTH[t / 2 + 1];
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
constexpr int adapted_size(int tensor) {
  return GROUP[tensor] < 0 ? 0 : tensor_offset(tensor + 1) - tensor_offset(tensor);
}
constexpr int alpha_offset(int tensor) {  // of the ALPHAS alphas (or tensors of alphas) of a tensor
  if (!PER_PARAMETER) return GROUP[tensor] * ALPHAS;
  int offset = 0;
  for (int t = 0; t < tensor; t++) offset += ALPHAS * adapted_size(t);
  return offset;
}

constexpr int PADDED_SIZE = bias_offset(HEAD) + LANES;
constexpr int TRANSPOSED_SIZE = std::max(LANES, transposed_offset(std::max(1, HEAD)));
constexpr int NUM_PARAMS = tensor_offset(2 * LAYERS);
constexpr int NUM_ALPHAS = PER_PARAMETER ? alpha_offset(2 * LAYERS) : NUM_GROUPS * ALPHAS;
constexpr int NUM_VALUES = NUM_PARAMS + NUM_ALPHAS;  // meta-parameters of a run: parameters, then alphas
constexpr int NUM_LEARNED = LEARNED ? NUM_VALUES : NUM_PARAMS;  // the first of them, which the outer loop learns

template <int layer = 1> inline void transpose_weights(const real *params, real *transposed) {
  if constexpr (layer < HEAD) {
    transpose<WIDTH[layer], WIDTH[layer + 1]>(params + weight_offset(layer), transposed + transposed_offset(layer));
    transpose_weights<layer + 1>(params, transposed);
  }
}

// ---- activation and loss: value, first and second derivative

inline void activate(real z, real &value, real &first, real &second) {
  if constexpr (ACTIVATION == RELU) {
    value = z > 0 ? z : 0, first = z > 0 ? 1 : 0;
  } else if constexpr (ACTIVATION == TANH) {
    value = std::tanh(z), first = 1 - value * value, second = -2 * value * first;
  } else if constexpr (ACTIVATION == SIN) {
    value = std::sin(z), first = std::cos(z), second = -value;
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
  ALIGNED real act_first[SIZE];           // f'(z)
  ALIGNED real deltas[SIZE];              // dL/dz
  ALIGNED real act_second[CURVED_SIZE];   // f''(z)
  ALIGNED real grad_hidden[CURVED_SIZE];  // dL/dh
  real head_delta[POINTS];                // dL/dz of the head, the output
  real loss_second[POINTS];               // d2L/dz2 of the head
  real loss;                              // L, the mean over the points
};

// z = h W + b of a layer; h is x for the first layer, otherwise `hidden` of the layer before
template <int POINTS, int layer>
inline void affine(const real *x, const real *hidden, const real *params, real *z) {
  constexpr int N = padded(WIDTH[layer + 1]);
  for (int k = 0; k < POINTS; k++) std::memcpy(z + k * N, params + bias_offset(layer), N * sizeof(real));
  if constexpr (layer == 0) product<ADD, POINTS, N, 1, 1, 1, N, N>(x, params, z);
  else
    product<ADD, POINTS, N, WIDTH[layer], padded(WIDTH[layer]), 1, N, N>(hidden, params + weight_offset(layer), z);
}

// out[k] += sum over i of h[k][i] w[i]: the head
template <int POINTS> inline void head_product(const real *hidden, const real *weight, real *out) {
  constexpr int N = padded(WIDTH[HEAD]);
  for (int k = 0; k < POINTS; k++) {
    vec sums{};
    for (int i = 0; i < N; i += LANES) sums += at(hidden + k * N + i) * at(weight + i);
    real sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum += sums[i];
    out[k] += sum;
  }
}

template <int POINTS, int layer = 0>
inline void forward(const real *x, const real *params, ForwardBackward<POINTS> &pass) {
  if constexpr (layer < HEAD) {
    constexpr int H = hidden_offset(POINTS, layer), N = padded(WIDTH[layer + 1]);
    real *hidden = pass.hidden + H;
    affine<POINTS, layer>(x, pass.hidden + hidden_offset(POINTS, std::max(0, layer - 1)), params, hidden);
    for (int i = 0; i < POINTS * N; i++)
      activate(hidden[i], hidden[i], pass.act_first[H + i], pass.act_second[CURVED ? H + i : 0]);
    forward<POINTS, layer + 1>(x, params, pass);
  }
}

template <int POINTS, int layer = HEAD - 1>
inline void backward(const real *params, const real *transposed, ForwardBackward<POINTS> &pass) {
  if constexpr (layer >= 0) {
    constexpr int H = hidden_offset(POINTS, layer), N = padded(WIDTH[layer + 1]);
    real *delta = pass.deltas + H;
    if constexpr (layer == HEAD - 1)
      product<SET, POINTS, N, 1, 1, 1, N, N>(pass.head_delta, params + weight_offset(HEAD), delta);
    else
      product<SET, POINTS, N, WIDTH[layer + 2], padded(WIDTH[layer + 2]), 1, N, N>(
          pass.deltas + hidden_offset(POINTS, layer + 1), transposed + transposed_offset(layer + 1), delta);
    if constexpr (CURVED) std::memcpy(pass.grad_hidden + H, delta, POINTS * N * sizeof(real));
    for (int i = 0; i < POINTS * N; i++) delta[i] *= pass.act_first[H + i];
    backward<POINTS, layer - 1>(params, transposed, pass);
  }
}

template <int POINTS>
inline void forward_backward(const real *x, const real *y, const real *params, const real *transposed,
                             ForwardBackward<POINTS> &pass) {
  forward(x, params, pass);
  real out[POINTS], loss = 0;
  for (int k = 0; k < POINTS; k++) out[k] = params[bias_offset(HEAD)];
  if constexpr (HEAD > 0)
    head_product<POINTS>(pass.hidden + hidden_offset(POINTS, HEAD - 1), params + weight_offset(HEAD), out);
  else
    for (int k = 0; k < POINTS; k++) out[k] += x[k] * params[0];
  for (int k = 0; k < POINTS; k++) {
    real value, first, second;
    loss_derivatives(out[k] - y[k], value, first, second);
    loss += value, pass.head_delta[k] = first / POINTS, pass.loss_second[k] = second / POINTS;
  }
  pass.loss = loss / POINTS;
  backward(params, transposed, pass);
}

// gradient (=, +=, -=) h^T delta for the weights of the layers from `layer` on, and with `bias` the sum of delta over
// the points for their biases
template <int MODE, int POINTS, int layer = 0>
inline void accumulate_gradients(const real *x, const real *hidden, const real *deltas, const real *head_delta,
                                 real *gradient, bool bias) {
  constexpr int IN = std::max(0, hidden_offset(POINTS, std::max(0, layer - 1)));
  if constexpr (layer < HEAD) {
    constexpr int N = padded(WIDTH[layer + 1]), M = WIDTH[layer];
    const real *delta = deltas + hidden_offset(POINTS, layer);
    if constexpr (layer == 0) product<MODE, 1, N, POINTS, 1, 1, N, N>(x, delta, gradient + weight_offset(0));
    else product<MODE, M, N, POINTS, 1, padded(M), N, N>(hidden + IN, delta, gradient + weight_offset(layer));
    static constexpr real one = 1;
    if (bias) product<MODE, 1, N, POINTS, 0, 0, N, N>(&one, delta, gradient + bias_offset(layer));
    accumulate_gradients<MODE, POINTS, layer + 1>(x, hidden, deltas, head_delta, gradient, bias);
  } else {
    constexpr int N = padded(WIDTH[HEAD]), W = weight_offset(HEAD), B = bias_offset(HEAD);
    real sum = 0, weighted = 0;
    for (int k = 0; k < POINTS; k++) sum += head_delta[k], weighted += x[k] * head_delta[k];
    if constexpr (HEAD > 0) {
      product<MODE, 1, N, POINTS, 1, 1, N, N>(head_delta, hidden + IN, gradient + W);
      for (int i = WIDTH[HEAD]; i < N; i++) gradient[W + i] = 0;  // the padding of h is f(0), which may not be zero
    } else {
      gradient[0] = (MODE == SET ? 0 : gradient[0]) + (MODE == SUB ? -weighted : weighted);
    }
    if (bias) gradient[B] = (MODE == SET ? 0 : gradient[B]) + (MODE == SUB ? -sum : sum);
  }
}

template <int POINTS> inline void gradients(const real *x, const ForwardBackward<POINTS> &pass, real *gradient) {
  accumulate_gradients<SET, POINTS>(x, pass.hidden, pass.deltas, pass.head_delta, gradient, true);
}

// ---- Hessian-vector products: the tangents of a pass along a vector of parameters

// The tangents of the intermediates in ForwardBackward of the same layout.
struct Tangent {
  static constexpr int SIZE = ForwardBackward<SUPPORT>::SIZE;
  ALIGNED real h_dot[SIZE];
  ALIGNED real z_dot[CURVED ? SIZE : LANES];
  ALIGNED real delta_dot[SIZE];
  ALIGNED real transposed[TRANSPOSED_SIZE];  // the weights of the vector
};

// z_dot = h V + v + h_dot W and h_dot = f'(z) z_dot, where V and v are the vector's weights and biases
template <int layer = 0>
inline void tangent_forward(const real *x, const real *params, const real *vector,
                            const ForwardBackward<SUPPORT> &pass, Tangent &tangent) {
  if constexpr (layer < HEAD) {
    constexpr int K = SUPPORT, N = padded(WIDTH[layer + 1]), H = hidden_offset(K, layer);
    constexpr int IN = hidden_offset(K, std::max(0, layer - 1));
    real *h_dot = tangent.h_dot + H;
    affine<K, layer>(x, pass.hidden + IN, vector, h_dot);
    if constexpr (layer > 0)
      product<ADD, K, N, WIDTH[layer], padded(WIDTH[layer]), 1, N, N>(tangent.h_dot + IN,
                                                                      params + weight_offset(layer), h_dot);
    if constexpr (CURVED) std::memcpy(tangent.z_dot + H, h_dot, K * N * sizeof(real));
    for (int i = 0; i < K * N; i++) h_dot[i] *= pass.act_first[H + i];
    tangent_forward<layer + 1>(x, params, vector, pass, tangent);
  }
}

// delta_dot = f'(z) (delta_dot_next W^T + delta_next V^T) + dL/dh f''(z) z_dot, where `next` is the layer after
template <int layer = HEAD - 1>
inline void tangent_backward(const real *params, const real *transposed, const real *vector,
                             const real *head_delta_dot, const ForwardBackward<SUPPORT> &pass, Tangent &tangent) {
  if constexpr (layer >= 0) {
    constexpr int K = SUPPORT, N = padded(WIDTH[layer + 1]), H = hidden_offset(K, layer), NEXT = layer + 1;
    real *delta_dot = tangent.delta_dot + H;
    if constexpr (NEXT == HEAD) {
      product<SET, K, N, 1, 1, 1, N, N>(head_delta_dot, params + weight_offset(HEAD), delta_dot);
      product<ADD, K, N, 1, 1, 1, N, N>(pass.head_delta, vector + weight_offset(HEAD), delta_dot);
    } else {
      constexpr int D = WIDTH[NEXT + 1], P = padded(D), AFTER = hidden_offset(K, NEXT), T = transposed_offset(NEXT);
      product<SET, K, N, D, P, 1, N, N>(tangent.delta_dot + AFTER, transposed + T, delta_dot);
      product<ADD, K, N, D, P, 1, N, N>(pass.deltas + AFTER, tangent.transposed + T, delta_dot);
    }
    for (int i = 0; i < K * N; i++) {
      delta_dot[i] *= pass.act_first[H + i];
      if constexpr (CURVED) delta_dot[i] += pass.grad_hidden[H + i] * pass.act_second[H + i] * tangent.z_dot[H + i];
    }
    tangent_backward<layer - 1>(params, transposed, vector, head_delta_dot, pass, tangent);
  }
}

// adjoint -= H vector, with H the Hessian of the mean support loss at `params`, where `pass` was computed
inline void subtract_hvp(const real *x, const real *params, const real *transposed, const real *vector,
                         const ForwardBackward<SUPPORT> &pass, Tangent &tangent, real *adjoint) {
  constexpr int K = SUPPORT, LAST = hidden_offset(K, std::max(0, HEAD - 1));
  tangent_forward(x, params, vector, pass, tangent);
  real head_delta_dot[K];
  for (int k = 0; k < K; k++) head_delta_dot[k] = vector[bias_offset(HEAD)];
  if constexpr (HEAD > 0) {
    head_product<K>(pass.hidden + LAST, vector + weight_offset(HEAD), head_delta_dot);
    head_product<K>(tangent.h_dot + LAST, params + weight_offset(HEAD), head_delta_dot);
  } else {
    for (int k = 0; k < K; k++) head_delta_dot[k] += x[k] * vector[0];
  }
  for (int k = 0; k < K; k++) head_delta_dot[k] *= pass.loss_second[k];
  transpose_weights(vector, tangent.transposed);
  tangent_backward(params, transposed, vector, head_delta_dot, pass, tangent);
  accumulate_gradients<SUB, K>(x, pass.hidden, tangent.delta_dot, head_delta_dot, adjoint, true);
  // The inputs of the first layer and of all biases are constants: they have no tangent.
  if constexpr (HEAD > 0)
    accumulate_gradients<SUB, K, 1>(x, tangent.h_dot, pass.deltas, pass.head_delta, adjoint, false);
}

}  // namespace
