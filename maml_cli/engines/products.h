// Products and transposes of small matrices, whose sizes are known to the compiler, on SIMD vectors of a type T.
//
// Matrices are row-major; rows of vectors are padded with zeros to a multiple of lanes<T>. REAL, on the compiler's
// command line, is float or double.
#pragma once

#include <algorithm>
#include <utility>

namespace {

#ifndef VECTOR_BYTES
#if defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif
#if defined(__AVX512VL__) || defined(__aarch64__)
constexpr int REGISTERS = 26;  // accumulators of a tile: of 32 vector registers, the others hold operands
#else
constexpr int REGISTERS = 12;  // of 16
#endif

using real = REAL;
template <typename T> struct Vector {
  typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};
template <typename T> using vec_of = typename Vector<T>::type;
template <typename T> constexpr int lanes = VECTOR_BYTES / sizeof(T);  // numbers in a vector
constexpr int LANES = lanes<real>;

#define ALIGNED alignas(64)  // a cache line
#define UNROLL _Pragma("GCC unroll 32")

template <typename T = real> constexpr int padded(int n) { return (n + lanes<T> - 1) / lanes<T> * lanes<T>; }
template <typename T> inline vec_of<T> &at(T *address) { return *reinterpret_cast<vec_of<T> *>(address); }
template <typename T> inline const vec_of<T> &at(const T *address) {
  return *reinterpret_cast<const vec_of<T> *>(address);
}

// The modes of a product: C = A B, C = -A B, C += A B, C -= A B.
enum { SET, NEG, ADD, SUB };

// A term A B of a sum of products, A (M x D) and B (D x N). A(m, d) = A[m * AM + d * AD], so that A may be a transpose
// or a row that repeats; BN is the length of the rows of B.
template <int D, int AM, int AD, int BN, typename T> struct Term {
  const T *A, *B;
  Term block(int row, int column) const { return {A + row * AM, B + column}; }
};
template <int D, int AM, int AD, int BN, typename T> inline Term<D, AM, AD, BN, T> term(const T *A, const T *B) {
  return {A, B};
}

// sum (ROWS x VECS vectors) += or, if MODE says so, -= A B
template <int MODE, int ROWS, int VECS, int D, int AM, int AD, int BN, typename T>
inline void accumulate(Term<D, AM, AD, BN, T> term, vec_of<T> (&sum)[ROWS][VECS]) {
  for (int d = 0; d < D; d++) {
    vec_of<T> b[VECS];
    UNROLL for (int c = 0; c < VECS; c++) b[c] = at(term.B + d * BN + c * lanes<T>);
    UNROLL for (int r = 0; r < ROWS; r++) {
      const T a = term.A[r * AM + d * AD];
      UNROLL for (int c = 0; c < VECS; c++) {
        if constexpr (MODE == SUB || MODE == NEG) sum[r][c] -= a * b[c];
        else sum[r][c] += a * b[c];
      }
    }
  }
}

// C (ROWS x VECS vectors), all in registers; CN is the length of its rows.
template <int MODE, int ROWS, int VECS, int CN, typename T, typename... Terms>
inline void tile(T *C, Terms... terms) {
  constexpr int LANES = lanes<T>;
  vec_of<T> sum[ROWS][VECS];
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < VECS; c++)
    sum[r][c] = MODE == SET || MODE == NEG ? vec_of<T>{} : at(C + r * CN + c * LANES);
  (accumulate<MODE>(terms, sum), ...);
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < VECS; c++) at(C + r * CN + c * LANES) = sum[r][c];
}

// C (M x VECS vectors) in tiles of as many rows as the registers hold, of nearly equal size; M may be 0.
template <int MODE, int M, int VECS, int CN, typename T, typename... Terms>
inline void columns(T *C, Terms... terms) {
  constexpr int MAX_ROWS = std::max(1, REGISTERS / VECS), TILES = std::max(1, (M + MAX_ROWS - 1) / MAX_ROWS);
  constexpr int ROWS = std::max(1, (M + TILES - 1) / TILES), REMAINING = M % ROWS;
  for (int m = 0; m + ROWS <= M; m += ROWS) tile<MODE, ROWS, VECS, CN>(C + m * CN, terms.block(m, 0)...);
  if constexpr (REMAINING > 0)
    tile<MODE, REMAINING, VECS, CN>(C + (M - REMAINING) * CN, terms.block(M - REMAINING, 0)...);
}

// C (M x N) =, = -, += or -= the sum of the terms, with N a multiple of lanes<T>; CN is the length of the rows of C.
template <int MODE, int M, int N, int CN, typename T, typename... Terms> inline void product(T *C, Terms... terms) {
  constexpr int LANES = lanes<T>;
  constexpr int VECS = N / LANES, MAX_VECS = 5, REMAINING = VECS % MAX_VECS, LAST = (VECS - REMAINING) * LANES;
  for (int c = 0; c + MAX_VECS <= VECS; c += MAX_VECS)
    columns<MODE, M, MAX_VECS, CN>(C + c * LANES, terms.block(0, c * LANES)...);
  if constexpr (REMAINING > 0) columns<MODE, M, REMAINING, CN>(C + LAST, terms.block(0, LAST)...);
}

// The sum of the numbers in a vector: each of log2(lanes<T>) rounds adds the second half of those that are left to the
// first.
template <typename T, int... I> inline T sum_of(vec_of<T> values, std::integer_sequence<int, I...>) {
  UNROLL for (int half = lanes<T> / 2; half > 0; half /= 2) {
    const vec_of<T> others = {values[(I + half) % lanes<T>]...};
    values += others;
  }
  return values[0];
}

// out[m] += the product of row m of A (M x N) with b, N a multiple of lanes<T>
template <int M, int N, typename T> inline void row_products(const T *A, const T *b, T *out) {
  constexpr int LANES = lanes<T>;
  for (int m = 0; m < M; m++) {
    vec_of<T> sums{};
    for (int i = 0; i < N; i += LANES) sums += at(A + m * N + i) * at(b + i);
    out[m] += sum_of<T>(sums, std::make_integer_sequence<int, LANES>{});
  }
}

// Transposes lanes<T> x lanes<T> numbers: each of log2(lanes<T>) rounds interleaves the first half of the rows with the
// second.
template <typename T, int... I> inline void interleave(vec_of<T> *rows, std::integer_sequence<int, I...>) {
  using vec = vec_of<T>;
  constexpr int LANES = lanes<T>;
  for (int round = 1; round < LANES; round *= 2) {
    vec interleaved[LANES];
    UNROLL for (int i = 0; i < LANES / 2; i++) {
      const vec a = rows[i], b = rows[i + LANES / 2];
      interleaved[2 * i] = __builtin_shufflevector(a, b, (I % 2 ? LANES : 0) + I / 2 ...);
      interleaved[2 * i + 1] = __builtin_shufflevector(a, b, (I % 2 ? LANES : 0) + I / 2 + LANES / 2 ...);
    }
    UNROLL for (int i = 0; i < LANES; i++) rows[i] = interleaved[i];
  }
}

// (ROWS x COLUMNS) -> (COLUMNS x ROWS), the rows of both padded.
template <int ROWS, int COLUMNS, typename T> inline void transpose(const T *from, T *to) {
  using vec = vec_of<T>;
  constexpr int LANES = lanes<T>, FROM = padded<T>(COLUMNS), TO = padded<T>(ROWS);
  for (int i = 0; i < ROWS; i += LANES)
    for (int j = 0; j < COLUMNS; j += LANES) {
      vec rows[LANES];
      UNROLL for (int k = 0; k < LANES; k++) rows[k] = i + k < ROWS ? at(from + (i + k) * FROM + j) : vec{};
      interleave<T>(rows, std::make_integer_sequence<int, LANES>{});
      UNROLL for (int k = 0; k < LANES; k++) if (j + k < COLUMNS) at(to + (j + k) * TO + i) = rows[k];
    }
}

// The sum over i of a[i] b[i], by several sums, so that the compiler may use vectors.
template <int SUMS = 16> inline real inner_product(const real *a, const real *b, int n) {
  real sums[SUMS] = {}, total = 0;
  int i = 0;
  for (; i + SUMS <= n; i += SUMS)
    for (int j = 0; j < SUMS; j++) sums[j] += a[i + j] * b[i + j];
  for (; i < n; i++) sums[0] += a[i] * b[i];
  for (real sum : sums) total += sum;
  return total;
}

}  // namespace
