// Outer steps of MAML on the CPU: one task at a time, in the processor's cache.
//
// The formulas are those of adjoint.py: the passes of all inner steps are kept, and the derivative of the query loss
// comes back through them by products of the Hessian with a vector. Everything that shapes a loop is a constant here,
// given by the compiler's command line: REAL, WIDTHS (of the layers, inputs first, one output), SUPPORT, QUERY, STEPS,
// ACTIVATION, LOSS; ALPHAS (1 or STEPS), PER_PARAMETER, LEARNED, POSITIVE; and GROUPS, the alpha of each tensor (weight
// and bias of each layer, -1 where it does not adapt), NUM_GROUPS of them.
//
// Shapes: N outer steps, R runs, B tasks. Values of a hidden layer are [points][width], padded with zeros to whole
// vectors; so are parameters, [in][width] and then the bias, but for the head, whose weights are one row.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace {

using real = REAL;
constexpr int WIDTH[] = {WIDTHS};
constexpr int LAYERS = sizeof(WIDTH) / sizeof(int) - 1, HEAD = LAYERS - 1;
constexpr int GROUP[] = {GROUPS};
enum { RELU, TANH, SIGMOID, SIN, SOFTPLUS, SILU };
enum { MSE, L1, HUBER };
constexpr bool CURVED = ACTIVATION != RELU;  // whether f'' is anything but zero

#ifndef VECTOR_BYTES
#if defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int REGISTERS = 26;
#else
constexpr int REGISTERS = 12;
#endif
constexpr int LANES = VECTOR_BYTES / sizeof(real);
typedef real vec __attribute__((vector_size(VECTOR_BYTES)));

constexpr int padded(int n) { return (n + LANES - 1) / LANES * LANES; }
constexpr int weight_at(int layer) {  // where the weights of a layer begin, among padded parameters
  int at = 0;
  for (int l = 0; l < layer; l++) at += (WIDTH[l] + 1) * padded(WIDTH[l + 1]);
  return at;
}
constexpr int bias_at(int layer) {
  return weight_at(layer) + (layer == HEAD ? padded(WIDTH[layer]) : WIDTH[layer] * padded(WIDTH[layer + 1]));
}
constexpr int SIZE = bias_at(HEAD) + LANES;
constexpr int plain_at(int tensor) {  // where a tensor begins, among unpadded parameters
  int at = 0;
  for (int t = 0; t < tensor; t++) at += (t % 2 ? 1 : WIDTH[t / 2]) * WIDTH[t / 2 + 1];
  return at;
}
constexpr int PLAIN = plain_at(2 * LAYERS);
constexpr int hidden_at(int points, int layer) {  // where the values of hidden layer 0, 1, ... begin
  int at = 0;
  for (int l = 0; l < layer; l++) at += points * padded(WIDTH[l + 1]);
  return at;
}
constexpr int turned_at(int layer) {  // where the transposed weights of layers 1 .. HEAD - 1 begin
  int at = 0;
  for (int l = 1; l < layer; l++) at += WIDTH[l + 1] * padded(WIDTH[l]);
  return at;
}
constexpr int TURNED = std::max(LANES, turned_at(std::max(1, HEAD)));
constexpr int adapted_size(int tensor) { return GROUP[tensor] < 0 ? 0 : plain_at(tensor + 1) - plain_at(tensor); }
constexpr int alpha_at(int tensor) {  // where the alphas of a tensor begin, ALPHAS of them one after the other
  if (!PER_PARAMETER) return GROUP[tensor] * ALPHAS;
  int at = 0;
  for (int t = 0; t < tensor; t++) at += ALPHAS * adapted_size(t);
  return at;
}
constexpr int NUM_ALPHAS = PER_PARAMETER ? alpha_at(2 * LAYERS) : NUM_GROUPS * ALPHAS;
constexpr int WHOLE = PLAIN + NUM_ALPHAS, TAUGHT = LEARNED ? WHOLE : PLAIN;

#define ALIGNED alignas(64)
#define UNROLL _Pragma("GCC unroll 32")

inline vec &at(real *place) { return *reinterpret_cast<vec *>(place); }
inline const vec &at(const real *place) { return *reinterpret_cast<const vec *>(place); }

// ---- products of small matrices: C (+)= A B, where A(m, d) = A[m * AM + d * AD] and the rows of B and C are vectors

enum { SET, ADD, TAKE };

template <int MODE, int ROWS, int VECS, int D, int AM, int AD, int BN, int CN>
inline void tile(const real *A, const real *B, real *C) {
  vec sum[ROWS][VECS];
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < VECS; c++)
    sum[r][c] = MODE == SET ? vec{} : at(C + r * CN + c * LANES);
  for (int d = 0; d < D; d++) {
    vec b[VECS];
    UNROLL for (int c = 0; c < VECS; c++) b[c] = at(B + d * BN + c * LANES);
    UNROLL for (int r = 0; r < ROWS; r++) {
      const real a = A[r * AM + d * AD];
      UNROLL for (int c = 0; c < VECS; c++) {
        if constexpr (MODE == TAKE) sum[r][c] -= a * b[c];
        else sum[r][c] += a * b[c];
      }
    }
  }
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < VECS; c++) at(C + r * CN + c * LANES) = sum[r][c];
}

template <int MODE, int M, int VECS, int D, int AM, int AD, int BN, int CN>
inline void columns(const real *A, const real *B, real *C) {
  constexpr int MOST = std::max(1, REGISTERS / VECS), BLOCKS = (M + MOST - 1) / MOST, ROWS = (M + BLOCKS - 1) / BLOCKS;
  constexpr int REST = M % ROWS;
  for (int m = 0; m + ROWS <= M; m += ROWS) tile<MODE, ROWS, VECS, D, AM, AD, BN, CN>(A + m * AM, B, C + m * CN);
  if constexpr (REST > 0)
    tile<MODE, REST, VECS, D, AM, AD, BN, CN>(A + (M - REST) * AM, B, C + (M - REST) * CN);
}

template <int MODE, int M, int N, int D, int AM, int AD, int BN, int CN>
inline void product(const real *A, const real *B, real *C) {
  constexpr int VECS = N / LANES, MOST = 5, REST = VECS % MOST;
  for (int c = 0; c + MOST <= VECS; c += MOST)
    columns<MODE, M, MOST, D, AM, AD, BN, CN>(A, B + c * LANES, C + c * LANES);
  if constexpr (REST > 0)
    columns<MODE, M, REST, D, AM, AD, BN, CN>(A, B + (VECS - REST) * LANES, C + (VECS - REST) * LANES);
}

// A square of vectors, rows for columns: each round deals the first half of the rows out between those of the second.
template <int... I> inline void deal(vec *rows, std::integer_sequence<int, I...>) {
  for (int round = 1; round < LANES; round *= 2) {
    vec dealt[LANES];
    UNROLL for (int i = 0; i < LANES / 2; i++) {
      const vec a = rows[i], b = rows[i + LANES / 2];
      dealt[2 * i] = __builtin_shufflevector(a, b, (I % 2 ? LANES : 0) + I / 2 ...);
      dealt[2 * i + 1] = __builtin_shufflevector(a, b, (I % 2 ? LANES : 0) + I / 2 + LANES / 2 ...);
    }
    UNROLL for (int i = 0; i < LANES; i++) rows[i] = dealt[i];
  }
}

template <int ROWS, int COLUMNS> inline void transpose(const real *from, real *to) {
  constexpr int F = padded(COLUMNS), T = padded(ROWS);
  for (int i = 0; i < ROWS; i += LANES)
    for (int j = 0; j < COLUMNS; j += LANES) {
      vec rows[LANES];
      UNROLL for (int k = 0; k < LANES; k++) rows[k] = i + k < ROWS ? at(from + (i + k) * F + j) : vec{};
      deal(rows, std::make_integer_sequence<int, LANES>{});
      UNROLL for (int k = 0; k < LANES; k++) if (j + k < COLUMNS) at(to + (j + k) * T + i) = rows[k];
    }
}

template <int layer = 1> inline void transpose_all(const real *params, real *turned) {
  if constexpr (layer < HEAD) {
    transpose<WIDTH[layer], WIDTH[layer + 1]>(params + weight_at(layer), turned + turned_at(layer));
    transpose_all<layer + 1>(params, turned);
  }
}

// ---- what is not linear: value, first and second derivative

inline void activate(real z, real &value, real &slope, real &bend) {
  if constexpr (ACTIVATION == RELU) {
    value = z > 0 ? z : 0, slope = z > 0 ? 1 : 0;
  } else if constexpr (ACTIVATION == TANH) {
    value = std::tanh(z), slope = 1 - value * value, bend = -2 * value * slope;
  } else if constexpr (ACTIVATION == SIN) {
    value = std::sin(z), slope = std::cos(z), bend = -value;
  } else {
    const real part = 1 / (1 + std::exp(-z));
    if constexpr (ACTIVATION == SIGMOID) {
      value = part, slope = part * (1 - part), bend = slope * (1 - 2 * part);
    } else if constexpr (ACTIVATION == SOFTPLUS) {
      value = z > 20 ? z : std::log1p(std::exp(z)), slope = part, bend = part * (1 - part);
    } else {
      value = z * part, slope = part + value * (1 - part), bend = part * (1 - part) * (2 + z * (1 - 2 * part));
    }
  }
}

inline void lose(real error, real &value, real &slope, real &bend) {
  const real size = std::abs(error), sign = (error > 0) - (error < 0);
  if constexpr (LOSS == MSE) value = error * error, slope = 2 * error, bend = 2;
  else if constexpr (LOSS == L1) value = size, slope = sign, bend = 0;
  else value = size < 1 ? error * error / 2 : size - real(0.5), slope = size < 1 ? error : sign, bend = size < 1;
}

// ---- the network at some points: forward, and the derivatives of the loss back

template <int POINTS> struct Pass {
  static constexpr int VALUES = std::max(LANES, hidden_at(POINTS, HEAD));
  ALIGNED real value[VALUES], slope[VALUES], delta[VALUES];
  ALIGNED real bend[CURVED ? VALUES : LANES], back[CURVED ? VALUES : LANES];
  real head_delta[POINTS], head_bend[POINTS], loss;
};

// z = h W + b for layer `layer`, whose inputs are `x` for the first and `values` of the layer before for the others
template <int POINTS, int layer>
inline void affine(const real *x, const real *values, const real *params, real *z) {
  constexpr int N = padded(WIDTH[layer + 1]);
  for (int k = 0; k < POINTS; k++) std::memcpy(z + k * N, params + bias_at(layer), N * sizeof(real));
  if constexpr (layer == 0) product<ADD, POINTS, N, 1, 1, 1, N, N>(x, params, z);
  else
    product<ADD, POINTS, N, WIDTH[layer], padded(WIDTH[layer]), 1, N, N>(values, params + weight_at(layer), z);
}

// sum over i of h[k][i] w[i], for each point: the head
template <int POINTS> inline void head_product(const real *values, const real *weight, real *out) {
  constexpr int N = padded(WIDTH[HEAD]);
  for (int k = 0; k < POINTS; k++) {
    vec sum{};
    for (int i = 0; i < N; i += LANES) sum += at(values + k * N + i) * at(weight + i);
    real whole = 0;
    UNROLL for (int i = 0; i < LANES; i++) whole += sum[i];
    out[k] += whole;
  }
}

template <int POINTS, int layer = 0> inline void forward(const real *x, const real *params, Pass<POINTS> &pass) {
  if constexpr (layer < HEAD) {
    constexpr int H = hidden_at(POINTS, layer), N = padded(WIDTH[layer + 1]);
    real *value = pass.value + H;
    affine<POINTS, layer>(x, pass.value + hidden_at(POINTS, std::max(0, layer - 1)), params, value);
    for (int i = 0; i < POINTS * N; i++)
      activate(value[i], value[i], pass.slope[H + i], pass.bend[CURVED ? H + i : 0]);
    forward<POINTS, layer + 1>(x, params, pass);
  }
}

template <int POINTS, int layer = HEAD - 1> inline void backward(const real *params, const real *turned, Pass<POINTS> &pass) {
  if constexpr (layer >= 0) {
    constexpr int H = hidden_at(POINTS, layer), N = padded(WIDTH[layer + 1]);
    real *delta = pass.delta + H;
    if constexpr (layer == HEAD - 1) product<SET, POINTS, N, 1, 1, 1, N, N>(pass.head_delta, params + weight_at(HEAD), delta);
    else
      product<SET, POINTS, N, WIDTH[layer + 2], padded(WIDTH[layer + 2]), 1, N, N>(
          pass.delta + hidden_at(POINTS, layer + 1), turned + turned_at(layer + 1), delta);
    if constexpr (CURVED) std::memcpy(pass.back + H, delta, POINTS * N * sizeof(real));
    for (int i = 0; i < POINTS * N; i++) delta[i] *= pass.slope[H + i];
    backward<POINTS, layer - 1>(params, turned, pass);
  }
}

template <int POINTS>
inline void run(const real *x, const real *y, const real *params, const real *turned, Pass<POINTS> &pass) {
  forward(x, params, pass);
  real out[POINTS], loss = 0;
  for (int k = 0; k < POINTS; k++) out[k] = params[bias_at(HEAD)];
  if constexpr (HEAD > 0) head_product<POINTS>(pass.value + hidden_at(POINTS, HEAD - 1), params + weight_at(HEAD), out);
  else
    for (int k = 0; k < POINTS; k++) out[k] += x[k] * params[0];
  for (int k = 0; k < POINTS; k++) {
    real value, slope, bend;
    lose(out[k] - y[k], value, slope, bend);
    loss += value, pass.head_delta[k] = slope / POINTS, pass.head_bend[k] = bend / POINTS;
  }
  pass.loss = loss / POINTS;
  backward(params, turned, pass);
}

// (+/-)= h^T delta and the sum of delta, for the layers from `layer` on
template <int MODE, int POINTS, int layer = 0>
inline void gather(const real *x, const real *values, const real *deltas, const real *head_delta, real *found, bool bias) {
  constexpr int IN = std::max(0, hidden_at(POINTS, std::max(0, layer - 1)));
  if constexpr (layer < HEAD) {
    constexpr int N = padded(WIDTH[layer + 1]), M = WIDTH[layer];
    const real *delta = deltas + hidden_at(POINTS, layer);
    if constexpr (layer == 0) product<MODE, 1, N, POINTS, 1, 1, N, N>(x, delta, found + weight_at(0));
    else product<MODE, M, N, POINTS, 1, padded(M), N, N>(values + IN, delta, found + weight_at(layer));
    static constexpr real one = 1;
    if (bias) product<MODE, 1, N, POINTS, 0, 0, N, N>(&one, delta, found + bias_at(layer));
    gather<MODE, POINTS, layer + 1>(x, values, deltas, head_delta, found, bias);
  } else {
    constexpr int N = padded(WIDTH[HEAD]);
    real sum = 0, weighted = 0;
    for (int k = 0; k < POINTS; k++) sum += head_delta[k], weighted += x[k] * head_delta[k];
    if constexpr (HEAD > 0) {
      product<MODE, 1, N, POINTS, 1, 1, N, N>(head_delta, values + IN, found + weight_at(HEAD));
      for (int i = WIDTH[HEAD]; i < N; i++) found[weight_at(HEAD) + i] = 0;  // where f(0) is not zero
    } else {
      found[0] = (MODE == SET ? 0 : found[0]) + (MODE == TAKE ? -weighted : weighted);
    }
    if (bias) found[bias_at(HEAD)] = (MODE == SET ? 0 : found[bias_at(HEAD)]) + (MODE == TAKE ? -sum : sum);
  }
}

template <int POINTS> inline void gradients(const real *x, const Pass<POINTS> &pass, real *found) {
  gather<SET, POINTS>(x, pass.value, pass.delta, pass.head_delta, found, true);
}

// ---- found -= H vector: the derivative of a pass along a vector, of its values forward and of its deltas back

struct Turn {
  static constexpr int VALUES = Pass<SUPPORT>::VALUES;
  ALIGNED real change[VALUES], turn[CURVED ? VALUES : LANES], delta[VALUES];
  ALIGNED real turned[TURNED];
};

template <int layer = 0>
inline void turn_forward(const real *x, const real *params, const real *vector, const Pass<SUPPORT> &pass, Turn &work) {
  if constexpr (layer < HEAD) {
    constexpr int K = SUPPORT, N = padded(WIDTH[layer + 1]), H = hidden_at(K, layer), IN = hidden_at(K, std::max(0, layer - 1));
    real *change = work.change + H;
    affine<K, layer>(x, pass.value + IN, vector, change);
    if constexpr (layer > 0)
      product<ADD, K, N, WIDTH[layer], padded(WIDTH[layer]), 1, N, N>(work.change + IN, params + weight_at(layer), change);
    if constexpr (CURVED) std::memcpy(work.turn + H, change, K * N * sizeof(real));
    for (int i = 0; i < K * N; i++) change[i] *= pass.slope[H + i];
    turn_forward<layer + 1>(x, params, vector, pass, work);
  }
}

template <int layer = HEAD - 1>
inline void turn_back(const real *params, const real *turned, const real *vector, const real *head_delta,
                      const Pass<SUPPORT> &pass, Turn &work) {
  if constexpr (layer >= 0) {
    constexpr int K = SUPPORT, N = padded(WIDTH[layer + 1]), H = hidden_at(K, layer), NEXT = layer + 1;
    real *delta = work.delta + H;
    if constexpr (NEXT == HEAD) {
      product<SET, K, N, 1, 1, 1, N, N>(head_delta, params + weight_at(HEAD), delta);
      product<ADD, K, N, 1, 1, 1, N, N>(pass.head_delta, vector + weight_at(HEAD), delta);
    } else {
      constexpr int D = WIDTH[NEXT + 1], P = padded(D), AFTER = hidden_at(K, NEXT);
      product<SET, K, N, D, P, 1, N, N>(work.delta + AFTER, turned + turned_at(NEXT), delta);
      product<ADD, K, N, D, P, 1, N, N>(pass.delta + AFTER, work.turned + turned_at(NEXT), delta);
    }
    for (int i = 0; i < K * N; i++) {
      delta[i] *= pass.slope[H + i];
      if constexpr (CURVED) delta[i] += pass.back[H + i] * pass.bend[H + i] * work.turn[H + i];
    }
    turn_back<layer - 1>(params, turned, vector, head_delta, pass, work);
  }
}

inline void take_hessian(const real *x, const real *params, const real *turned, const real *vector,
                         const Pass<SUPPORT> &pass, Turn &work, real *found) {
  constexpr int K = SUPPORT, LAST = hidden_at(K, std::max(0, HEAD - 1));
  turn_forward(x, params, vector, pass, work);
  real out[K];
  for (int k = 0; k < K; k++) out[k] = vector[bias_at(HEAD)];
  if constexpr (HEAD > 0) {
    head_product<K>(pass.value + LAST, vector + weight_at(HEAD), out);
    head_product<K>(work.change + LAST, params + weight_at(HEAD), out);
  } else {
    for (int k = 0; k < K; k++) out[k] += x[k] * vector[0];
  }
  for (int k = 0; k < K; k++) out[k] *= pass.head_bend[k];
  transpose_all(vector, work.turned);
  turn_back(params, turned, vector, out, pass, work);
  gather<TAKE, K>(x, pass.value, work.delta, out, found, true);
  // What goes into the first layer, and into any bias, does not change.
  if constexpr (HEAD > 0) gather<TAKE, K, 1>(x, work.change, pass.delta, pass.head_delta, found, false);
}

// ---- one task: adapted, judged, and the derivative back

struct Task {
  ALIGNED real params[STEPS][SIZE], turned[STEPS][TURNED], slopes[STEPS][SIZE];
  Pass<SUPPORT> passes[STEPS];
  Pass<QUERY> query;
  Turn work;
  ALIGNED real vector[SIZE], found[SIZE], early[SIZE], alphas[LEARNED ? ALPHAS : 1][SIZE];
};

struct Start {
  ALIGNED real params[SIZE], turned[TURNED], alphas[ALPHAS][SIZE];
};

void adapt(const Start &start, const real *x, const real *y, const double *weights, bool second_order, Task &task) {
  const real *query_x = x + SUPPORT, *query_y = y + SUPPORT;
  const real *params = start.params, *turned = start.turned;
  for (int s = 0; s < STEPS; s++) {
    const real *alpha = start.alphas[std::min(s, ALPHAS - 1)];
    real *next = task.params[s];
    run<SUPPORT>(x, y, params, turned, task.passes[s]);
    gradients<SUPPORT>(x, task.passes[s], task.slopes[s]);
    for (int i = 0; i < SIZE; i++) next[i] = params[i] - alpha[i] * task.slopes[s][i];
    transpose_all(next, task.turned[s]);
    params = next, turned = task.turned[s];
  }
  run<QUERY>(query_x, query_y, params, turned, task.query);
  gradients<QUERY>(query_x, task.query, task.found);
  const real loss = task.query.loss, last = real(weights[STEPS]);
  if (last != 1) for (int i = 0; i < SIZE; i++) task.found[i] *= last;
  if constexpr (LEARNED) std::memset(task.alphas, 0, sizeof task.alphas);
  for (int s = STEPS - 1; s >= 0; s--) {
    const int own = std::min(s, ALPHAS - 1);
    const real *alpha = start.alphas[own];
    params = s ? task.params[s - 1] : start.params, turned = s ? task.turned[s - 1] : start.turned;
    if constexpr (LEARNED)
      for (int i = 0; i < SIZE; i++) task.alphas[own][i] -= task.found[i] * task.slopes[s][i] * (POSITIVE ? alpha[i] : 1);
    if (second_order) {
      for (int i = 0; i < SIZE; i++) task.vector[i] = alpha[i] * task.found[i];
      take_hessian(x, params, turned, task.vector, task.passes[s], task.work, task.found);
    }
    if (weights[s] != 0) {
      run<QUERY>(query_x, query_y, params, turned, task.query);
      gradients<QUERY>(query_x, task.query, task.early);
      for (int i = 0; i < SIZE; i++) task.found[i] += real(weights[s]) * task.early[i];
    }
  }
  task.query.loss = loss;
}

// ---- between the padded parameters of a task and the plain ones of a run

template <typename Each> inline void each_row(Each each) {  // each(plain place, padded place, length, tensor)
  for (int t = 0; t < 2 * LAYERS; t++) {
    const int l = t / 2, plain = plain_at(t), n = WIDTH[l + 1];
    if (t % 2) each(plain, bias_at(l), n, t);
    else if (l == HEAD) each(plain, weight_at(l), WIDTH[l], t);
    else
      for (int i = 0; i < WIDTH[l]; i++) each(plain + i * n, weight_at(l) + i * padded(n), n, t);
  }
}

void spread(const real *plain, const real *noise, Start &start) {
  std::memset(&start, 0, sizeof start);
  each_row([&](int from, int to, int n, int) {
    for (int i = 0; i < n; i++) start.params[to + i] = plain[from + i] + (noise ? noise[from + i] : 0);
  });
  transpose_all(start.params, start.turned);
  const real *alphas = plain + PLAIN;
  for (int s = 0; s < ALPHAS; s++)
    each_row([&](int from, int to, int n, int t) {
      if (GROUP[t] < 0) return;
      const real *own = alphas + alpha_at(t);
      own += PER_PARAMETER ? s * adapted_size(t) + from - plain_at(t) : s;
      for (int i = 0; i < n; i++) {
        const real value = own[PER_PARAMETER ? i : 0];
        start.alphas[s][to + i] = POSITIVE ? std::exp(value) : value;
      }
    });
}

void collect(const real *found, const real (*alphas)[SIZE], real *plain) {
  each_row([&](int to, int from, int n, int) { std::memcpy(plain + to, found + from, n * sizeof(real)); });
  if constexpr (!LEARNED) return;
  real *into = plain + PLAIN;
  std::fill_n(into, NUM_ALPHAS, real(0));
  for (int s = 0; s < ALPHAS; s++)
    each_row([&](int to, int from, int n, int t) {
      if (GROUP[t] < 0) return;
      real *own = into + alpha_at(t) + (PER_PARAMETER ? s * adapted_size(t) + to - plain_at(t) : s);
      for (int i = 0; i < n; i++) own[PER_PARAMETER ? i : 0] += alphas[s][from + i];
    });
}

real squares(const real *values, int n) {
  real parts[16] = {}, whole = 0;
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) parts[j] += values[i + j] * values[i + j];
  for (; i < n; i++) parts[0] += values[i] * values[i];
  for (real part : parts) whole += part;
  return whole;
}

}  // namespace

extern "C" {

enum { SGD, ADAM, ADAMW };

// What a call computes with; a field with [shape] is an array of that shape.
struct Block {
  int64_t num_steps, num_runs, num_tasks, num_threads;
  const real *x, *y;        // [N][R][B][SUPPORT + QUERY]
  const real *noise;        // [N][R][PLAIN], or null
  const double *weights;    // [N][STEPS + 1], of the query loss after each inner step
  const int32_t *second_order;  // [N]
  const double *rates;      // [N][2], outer learning rates of the parameters and of the alphas
  int32_t optimizers[2];    // of the parameters and of the alphas
  double clip_norm, clip_task_norm;  // infinite where nothing is clipped
  int32_t leave_out;        // whether tasks that are not finite are left out
  real *held, *first, *second;  // [R][WHOLE], [R][TAUGHT], [R][TAUGHT]: what is learned, and the moments of Adam
  int64_t moments;          // the steps that Adam has made before
  real *gradients;          // [R][TAUGHT], of the last step, as the optimiser got it
  const int32_t *going;     // [R], whether a run takes part
  double *loss, *norm;      // [R], of the last step
  double *loss_sum;         // [R], the losses of all steps are added
  int64_t *left_out;        // [R], and the tasks that were left out
  int64_t *done;            // [R], steps until one was not finite
};

int64_t sizes(int64_t *out) {
  out[0] = sizeof(Block), out[1] = WHOLE, out[2] = TAUGHT;
  return sizeof(Task) + sizeof(Start);
}

static void update(const Block &block, int64_t n, int64_t run) {
  real *held = block.held + run * WHOLE, *first = block.first + run * TAUGHT, *second = block.second + run * TAUGHT;
  const real *slopes = block.gradients + run * TAUGHT;
  const double count = double(block.moments + n + 1);
  for (int part = 0; part < (LEARNED ? 2 : 1); part++) {
    const int from = part ? PLAIN : 0, to = part ? WHOLE : PLAIN, kind = block.optimizers[part];
    const double rate = block.rates[2 * n + part];
    if (kind == SGD) {
      for (int i = from; i < to; i++) held[i] -= real(rate) * slopes[i];
      continue;
    }
    const real size = real(rate / (1 - std::pow(0.9, count))), root = real(std::sqrt(1 - std::pow(0.999, count)));
    const real kept = kind == ADAMW ? real(1 - rate * 0.01) : real(1);
    for (int i = from; i < to; i++) {
      first[i] += real(0.1) * (slopes[i] - first[i]);
      second[i] = real(0.999) * second[i] + real(0.001) * slopes[i] * slopes[i];
      held[i] = held[i] * kept - size * first[i] / (std::sqrt(second[i]) / root + real(1e-8));
    }
  }
}

// Those who take the tasks of one run together. Gradients are added up in the order of the tasks, whoever computed them,
// so that the number of threads changes no byte.
struct Team {
  const int size;
  Start start;
  std::vector<real> found, sum;  // [B or 1][TAUGHT], of each task or of the last; [TAUGHT]
  std::vector<double> loss;      // [B]
  bool done = false;

  Team(const Block &block, int size)
      : size(size), found((size > 1 ? block.num_tasks : 1) * TAUGHT), sum(TAUGHT), loss(block.num_tasks) {}

  real *found_by(int64_t task) { return found.data() + (size > 1 ? task * TAUGHT : 0); }

  void meet() {  // wait until all are here
    if (size == 1) return;
    const int now = round.load();
    if (here.fetch_add(1) + 1 == size) here.store(0), round.store(now + 1);
    else
      for (int spins = 0; round.load() == now; spins++)
        if (spins > 1000) std::this_thread::yield();
  }

 private:
  std::atomic<int> here{0}, round{0};
};

static void train(const Block &block, int64_t run, Team &team, int member, Task &task) {
  constexpr int POINTS = SUPPORT + QUERY;
  const int64_t count = block.num_tasks;
  real *mean = block.gradients + run * TAUGHT, *sum = team.sum.data();
  double loss = 0;
  int kept = 0;
  const auto add = [&, sum](int64_t b, const real *found) {
    real factor = 1;
    if (block.leave_out) {
      const real norm = std::sqrt(squares(found, TAUGHT));
      if (!std::isfinite(norm) || !std::isfinite(team.loss[b])) return;
      factor = std::min(real(1), real(block.clip_task_norm) / norm);
    }
    kept++, loss += team.loss[b];
    for (int i = 0; i < TAUGHT; i++) sum[i] += factor * found[i];
  };
  if (member == 0) team.done = false;
  for (int64_t n = 0; n < block.num_steps; n++) {
    const int64_t place = n * block.num_runs + run;
    if (member == 0) {
      spread(block.held + run * WHOLE, block.noise ? block.noise + place * PLAIN : nullptr, team.start);
      std::fill_n(sum, TAUGHT, real(0)), loss = 0, kept = 0;
    }
    team.meet();
    if (team.done) return;
    for (int64_t b = member; b < count; b += team.size) {
      const int64_t points = (place * count + b) * POINTS;
      adapt(team.start, block.x + points, block.y + points, block.weights + n * (STEPS + 1), block.second_order[n], task);
      real *found = team.found_by(b);
      collect(task.found, task.alphas, found);
      team.loss[b] = task.query.loss;
      if (team.size == 1) add(b, found);
    }
    team.meet();
    if (member > 0) continue;
    if (team.size > 1)
      for (int64_t b = 0; b < count; b++) add(b, team.found_by(b));
    for (int i = 0; i < TAUGHT; i++) sum[i] /= real(count);
    const double norm = std::sqrt(double(squares(sum, TAUGHT)));
    block.loss[run] = loss / kept, block.norm[run] = norm;
    if (!kept || !std::isfinite(loss) || !std::isfinite(norm)) {
      team.done = true;
      if (n + 1 < block.num_steps) team.meet();  // where the others are
      return;
    }
    block.loss_sum[run] += loss / kept, block.left_out[run] += count - kept;
    const real scale = real(std::min(1.0, block.clip_norm / norm));
    for (int i = 0; i < TAUGHT; i++) mean[i] = scale == 1 ? sum[i] : scale * sum[i];
    update(block, n, run);
    block.done[run] = n + 1;
  }
}

void advance(const Block *block) {
  const int size = int(std::max<int64_t>(1, block->num_threads / block->num_runs));
  const int64_t teams = std::min(block->num_threads, block->num_runs);
  std::atomic<int64_t> next{0};
  const auto some = [&] {
    const auto task = std::make_unique<Task>();
    const auto team = std::make_unique<Team>(*block, 1);
    std::memset(static_cast<void *>(task.get()), 0, sizeof(Task));
    for (int64_t run; (run = next++) < block->num_runs;)
      if (block->going[run]) train(*block, run, *team, 0, *task);
  };
  std::vector<std::unique_ptr<Team>> together;
  const auto one = [&](int64_t run, int member) {
    const auto task = std::make_unique<Task>();
    std::memset(static_cast<void *>(task.get()), 0, sizeof(Task));
    if (block->going[run]) train(*block, run, *together[run], member, *task);
  };
  std::vector<std::thread> others;
  if (size == 1) {
    for (int64_t i = 1; i < teams; i++) others.emplace_back(some);
    some();
  } else {
    for (int64_t run = 0; run < block->num_runs; run++) together.push_back(std::make_unique<Team>(*block, size));
    for (int64_t i = 1; i < block->num_runs * size; i++) others.emplace_back(one, i / size, int(i % size));
    one(0, 0);
  }
  for (auto &other : others) other.join();
}
}
