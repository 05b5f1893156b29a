// A head in closed form: the ridge regression of the targets on the features of the support points, and its
// derivatives; the formulas of the solution are those of core/ridge.py.
//
// F [K][P] are the features of the K support points: the values of the last hidden layer and a 1. The head w [P] has
// the prior mean w0 and the penalties L, a diagonal matrix:
//
//   w = argmin over w of |y - F w|^2 + (w - w0)^T L (w - w0),  a = y - F w the residuals.
//
// With K <= P it is solved in K unknowns, (F L^-1 F^T + I) a = y - F w0 and w = w0 + L^-1 F^T a; otherwise in P,
// (F^T F + L) (w - w0) = F^T (y - F w0). All in double precision, whatever that of the network.
#pragma once

#include "network.h"

namespace {

constexpr bool RIDGE = PENALTIES > 0;
constexpr int GRADIENT_LAYERS = RIDGE ? HEAD : LAYERS;  // layers that descend a gradient of the support loss

struct RidgeSizes {
  static constexpr int K = RIDGE ? SUPPORT : 1, P = RIDGE ? WIDTH[HEAD] + 1 : 1, N = std::min(K, P);
  static constexpr bool BY_POINTS = K <= P;  // whether the unknowns are the residuals
  static constexpr int PADDED_K = padded<double>(K), PADDED_P = padded<double>(P), PADDED_N = padded<double>(N);
};

// L and its inverse.
struct Penalties : RidgeSizes {
  ALIGNED double values[PADDED_P];
  ALIGNED double inverses[PADDED_P];
};

struct RidgeSolution : RidgeSizes {
  ALIGNED double rows[K * PADDED_P];     // F
  ALIGNED double columns[P * PADDED_K];  // F^T
  ALIGNED double factor[N * PADDED_N];   // U of the system's Cholesky factors U^T U, with the inverses of its diagonal
  ALIGNED double change[PADDED_P];       // w - w0
  ALIGNED double head[PADDED_P];         // w
  ALIGNED double residuals[PADDED_K];    // a
};

// out (=, +=, -=) F p
template <int MODE> inline void features_product(const RidgeSolution &ridge, const double *p, double *out) {
  constexpr int K = RidgeSizes::PADDED_K, P = RidgeSizes::P;
  product<MODE, 1, K, K>(out, term<P, 1, 1, K>(p, ridge.columns));
}

// out (=, +=, -=) F^T k
template <int MODE> inline void transposed_features_product(const double *rows, const double *k, double *out) {
  constexpr int K = RidgeSizes::K, P = RidgeSizes::PADDED_P;
  product<MODE, 1, P, P>(out, term<K, 1, 1, P>(k, rows));
}

// The Cholesky factor U of a matrix in its place, below whose diagonal is nothing of use; NaN where there is none.
inline void factorize(double *U) {
  constexpr int N = RidgeSizes::N, ROW = RidgeSizes::PADDED_N;
  for (int i = 0; i < N; i++) {
    const double pivot = U[i * ROW + i], inverse = pivot > 0 ? 1 / std::sqrt(pivot) : NAN;
    for (int j = 0; j < ROW; j++) U[i * ROW + j] *= inverse;
    for (int m = i + 1; m < N; m++) {
      const double entry = U[i * ROW + m];
      for (int j = 0; j < ROW; j++) U[m * ROW + j] -= entry * U[i * ROW + j];
    }
    U[i * ROW + i] = inverse;
  }
}

// b = (U^T U)^-1 b
inline void solve_factored(const double *U, double *b) {
  constexpr int N = RidgeSizes::N, ROW = RidgeSizes::PADDED_N;
  for (int i = 0; i < N; i++) {
    b[i] *= U[i * ROW + i];
    for (int j = i + 1; j < N; j++) b[j] -= b[i] * U[i * ROW + j];
  }
  for (int i = N - 1; i >= 0; i--) {
    for (int j = i + 1; j < N; j++) b[i] -= b[j] * U[i * ROW + j];
    b[i] *= U[i * ROW + i];
  }
}

// The values of the last hidden layer, and `last`, as rows in double precision.
inline void widen_features(const real *x, const real *hidden, double last, double *rows) {
  constexpr int K = RidgeSizes::K, P = RidgeSizes::P, ROW = HEAD == 0 ? INPUTS : padded(WIDTH[HEAD]);
  const real *h = inputs<SUPPORT, HEAD>(x, hidden);
  for (int k = 0; k < K; k++) {
    for (int j = 0; j < P - 1; j++) rows[k * RidgeSizes::PADDED_P + j] = h[k * ROW + j];
    rows[k * RidgeSizes::PADDED_P + P - 1] = last;
  }
}

// The solution for the features in `pass`.
inline void solve_head(const real *x, const real *y, const ForwardBackward<SUPPORT> &pass, const double *prior,
                       const Penalties &penalties, RidgeSolution &ridge) {
  constexpr int K = RidgeSizes::K, P = RidgeSizes::P, ROW_K = RidgeSizes::PADDED_K, ROW_P = RidgeSizes::PADDED_P;
  widen_features(x, pass.hidden, 1, ridge.rows);
  transpose<K, P>(ridge.rows, ridge.columns);
  for (int k = 0; k < K; k++) ridge.residuals[k] = y[k];
  features_product<SUB>(ridge, prior, ridge.residuals);
  if constexpr (RidgeSizes::BY_POINTS) {
    ALIGNED double scaled[P * ROW_K];  // L^-1 F^T
    for (int j = 0; j < P; j++)
      for (int k = 0; k < ROW_K; k++) scaled[j * ROW_K + k] = ridge.columns[j * ROW_K + k] * penalties.inverses[j];
    product<SET, K, ROW_K, ROW_K>(ridge.factor, term<P, 1, ROW_K, ROW_K>(scaled, ridge.columns));
    for (int k = 0; k < K; k++) ridge.factor[k * ROW_K + k] += 1;
    factorize(ridge.factor);
    solve_factored(ridge.factor, ridge.residuals);
    transposed_features_product<SET>(ridge.rows, ridge.residuals, ridge.change);
    for (int j = 0; j < ROW_P; j++) ridge.change[j] *= penalties.inverses[j];
  } else {
    product<SET, P, ROW_P, ROW_P>(ridge.factor, term<K, 1, ROW_P, ROW_P>(ridge.rows, ridge.rows));
    for (int j = 0; j < P; j++) ridge.factor[j * ROW_P + j] += penalties.values[j];
    factorize(ridge.factor);
    transposed_features_product<SET>(ridge.rows, ridge.residuals, ridge.change);
    solve_factored(ridge.factor, ridge.change);
    features_product<SUB>(ridge, ridge.change, ridge.residuals);
  }
  for (int j = 0; j < ROW_P; j++) ridge.head[j] = prior[j] + ridge.change[j];
}

// The tangents of w and a for the tangent h_dot of the features: (F^T F + L) w_dot = F_dot^T a - F^T F_dot w.
inline void ridge_tangent(const real *h_dot, const Penalties &penalties, const RidgeSolution &ridge, double *head_dot,
                          double *residuals_dot) {
  constexpr int K = RidgeSizes::K, ROW_K = RidgeSizes::PADDED_K, ROW_P = RidgeSizes::PADDED_P;
  ALIGNED double rows_dot[K * ROW_P] = {};
  widen_features(nullptr, h_dot, 0, rows_dot);
  std::fill_n(residuals_dot, ROW_K, 0.0);
  row_products<K, ROW_P>(rows_dot, ridge.head, residuals_dot);
  for (int k = 0; k < ROW_K; k++) residuals_dot[k] = -residuals_dot[k];
  transposed_features_product<SET>(rows_dot, ridge.residuals, head_dot);
  if constexpr (RidgeSizes::BY_POINTS) {
    for (int j = 0; j < ROW_P; j++) head_dot[j] *= penalties.inverses[j];
    features_product<SUB>(ridge, head_dot, residuals_dot);
    solve_factored(ridge.factor, residuals_dot);
    ALIGNED double change[ROW_P];
    transposed_features_product<SET>(ridge.rows, residuals_dot, change);
    for (int j = 0; j < ROW_P; j++) head_dot[j] += change[j] * penalties.inverses[j];
  } else {
    transposed_features_product<ADD>(ridge.rows, residuals_dot, head_dot);
    solve_factored(ridge.factor, head_dot);
    features_product<SUB>(ridge, head_dot, residuals_dot);
  }
}

// z = (F^T F + L)^-1 u and F z for the adjoint u of w; u is overwritten.
inline void ridge_adjoint(double *u, const Penalties &penalties, const RidgeSolution &ridge, double *z, double *Fz) {
  constexpr int ROW_P = RidgeSizes::PADDED_P;
  if constexpr (RidgeSizes::BY_POINTS) {
    for (int j = 0; j < ROW_P; j++) z[j] = u[j] * penalties.inverses[j];
    features_product<SET>(ridge, z, Fz);
    solve_factored(ridge.factor, Fz);
    transposed_features_product<SUB>(ridge.rows, Fz, u);
    for (int j = 0; j < ROW_P; j++) z[j] = u[j] * penalties.inverses[j];
  } else {
    std::copy_n(u, ROW_P, z);
    solve_factored(ridge.factor, z);
    features_product<SET>(ridge, z, Fz);
  }
}

// sum += weight * values, all of length P
inline void add_scaled(double weight, const double *values, double *sum) {
  for (int j = 0; j < RidgeSizes::P; j++) sum[j] += weight * values[j];
}

// ---- between a head w [P] and the head among padded parameters

inline void widen_head(const real *params, double *head) {
  constexpr int P = RidgeSizes::P;
  for (int j = 0; j < P - 1; j++) head[j] = params[weight_offset(HEAD) + j];
  head[P - 1] = params[bias_offset(HEAD)];
}

inline void set_head(const double *head, real *params) {
  constexpr int P = RidgeSizes::P;
  for (int j = 0; j < P - 1; j++) params[weight_offset(HEAD) + j] = real(head[j]);
  params[bias_offset(HEAD)] = real(head[P - 1]);
}

// ---- the loss of an inner step on the body, the minimum over w of (|y - F w|^2 + (w - w0)^T L (w - w0)) / K
//
// By the envelope theorem its gradient in the body is that of the mean squared error at the fixed head w. The tangent
// of that gradient along a direction of the body is a Hessian-vector product for the direction with w_dot as its head.

// solved = `params` with the head that is solved for on the support points; `prior` is the head of the start.
inline void solve(const real *x, const real *y, const real *params, const double *prior, const Penalties &penalties,
                  ForwardBackward<SUPPORT> &pass, RidgeSolution &ridge, real *solved) {
  forward(x, params, pass);
  solve_head(x, y, pass, prior, penalties, ridge);
  std::memcpy(solved, params, PADDED_SIZE * sizeof(real));
  set_head(ridge.head, solved);
}

// dL/dz of the head for the gradient in the body.
inline void set_head_delta(const RidgeSolution &ridge, ForwardBackward<SUPPORT> &pass) {
  constexpr int K = std::max(1, SUPPORT);  // of no points in joint training, which has no such head
  for (int k = 0; k < SUPPORT; k++) pass.head_delta[k] = real(-2 * ridge.residuals[k] / K);
}

// In tangent_head's place: the head of `direction`, and the parts of the derivative of the gradient in prior and
// penalties, d/dw0 = 2/K L (w0 - w) and d/dlog L = 1/K L (w - w0)^2 of the loss, which are subtracted.
inline void ridge_tangent_head(const Tangent &tangent, const Penalties &penalties, const RidgeSolution &ridge,
                               real *direction, real *head_delta_dot, real *adjoint, double *penalty_gradients) {
  constexpr int K = RidgeSizes::K, P = RidgeSizes::P;
  ALIGNED double head_dot[RidgeSizes::PADDED_P], residuals_dot[RidgeSizes::PADDED_K], prior[RidgeSizes::PADDED_P];
  ridge_tangent(tangent.h_dot, penalties, ridge, head_dot, residuals_dot);
  set_head(head_dot, direction);
  for (int k = 0; k < K; k++) head_delta_dot[k] = real(-2 * residuals_dot[k] / K);
  widen_head(adjoint, prior);
  for (int j = 0; j < P; j++) {
    const double weighted = 2 * penalties.values[j] * head_dot[j] / K;
    prior[j] += weighted;
    penalty_gradients[j] -= weighted * ridge.change[j];
  }
  set_head(prior, adjoint);
}

// ---- a loss of the head w, such as the query loss

// From the gradient in body and head w that in body, prior and, in penalty_gradients, log L. `pass` is that of the
// support points, whose deltas are overwritten; `params` have the head w.
inline void ridge_backward(const real *x, const real *params, const real *transposed, const Penalties &penalties,
                           const RidgeSolution &ridge, ForwardBackward<SUPPORT> &pass, real *gradient,
                           double *penalty_gradients) {
  constexpr int K = SUPPORT, P = RidgeSizes::P;
  ALIGNED double u[RidgeSizes::PADDED_P] = {}, z[RidgeSizes::PADDED_P], Fz[RidgeSizes::PADDED_K];
  widen_head(gradient, u);
  ridge_adjoint(u, penalties, ridge, z, Fz);
  for (int j = 0; j < P; j++) u[j] = penalties.values[j] * z[j], penalty_gradients[j] = -u[j] * ridge.change[j];
  set_head(u, gradient);
  if constexpr (HEAD > 0) {  // dL/dF = a z^T - F z w^T
    constexpr int H = hidden_offset(K, std::max(0, HEAD - 1)), N = padded(WIDTH[HEAD]);
    real residuals[K];
    ALIGNED real by_residual[PADDED_SIZE] = {};
    set_head(z, by_residual);
    for (int k = 0; k < K; k++) residuals[k] = real(ridge.residuals[k]), pass.head_delta[k] = real(-Fz[k]);
    set_inputs<K, HEAD>(pass.deltas + H, transposed_term<HEAD>(pass.head_delta, params, transposed),
                        transposed_term<HEAD>(residuals, by_residual, transposed));
    for (int i = 0; i < K * N; i++) pass.deltas[H + i] = pass.times_derivative(pass.deltas[H + i], H + i);
    backward<K, HEAD - 2>(params, transposed, pass);
    accumulate_gradients<ADD, K, GRADIENT_LAYERS>(x, pass, gradient);
  }
}

}  // namespace
