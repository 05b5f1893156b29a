"use strict";
/* Linear algebra in float64. Matrices are {rows, columns, values}, row by row. */
const Matrices = (() => {
  const matrix = (rows, columns, values = new Float64Array(rows * columns)) => ({ rows, columns, values });
  const map = (a, f) => matrix(a.rows, a.columns, a.values.map(f));

  /* a b, for matrices; `a` or `b` transposed where asked for. */
  function product(a, b, { left = false, right = false } = {}) {
    const [rows, inner] = left ? [a.columns, a.rows] : [a.rows, a.columns];
    const columns = right ? b.rows : b.columns;
    const result = matrix(rows, columns);
    for (let i = 0; i < rows; i++) {
      for (let k = 0; k < inner; k++) {
        const factor = a.values[left ? k * a.columns + i : i * a.columns + k];
        if (factor === 0) continue;
        for (let j = 0; j < columns; j++) {
          result.values[i * columns + j] += factor * b.values[right ? j * b.columns + k : k * b.columns + j];
        }
      }
    }
    return result;
  }

  /* Elementwise f(a, b); a `b` of one element is for all elements of `a`. */
  const zip = (a, b, f) => map(a, (value, i) => f(value, b.values.length === 1 ? b.values[0] : b.values[i]));

  function columnSums(a) {
    const result = matrix(1, a.columns);
    a.values.forEach((value, i) => { result.values[i % a.columns] += value; });
    return result;
  }

  function columnsFrom(a, first) {
    const result = matrix(a.rows, a.columns - first);
    result.values.forEach((_, i) => {
      const row = Math.floor(i / result.columns);
      result.values[i] = a.values[row * a.columns + first + (i - row * result.columns)];
    });
    return result;
  }

  /* The Cholesky factor L of a positive definite matrix, in its lower triangle. */
  function cholesky(a) {
    const n = a.rows, factor = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = a.values[i * n + j];
        for (let k = 0; k < j; k++) sum -= factor[i * n + k] * factor[j * n + k];
        factor[i * n + j] = i === j ? Math.sqrt(sum) : sum / factor[j * n + j];
      }
    }
    return factor;
  }

  /* L^-1 y. */
  function solveLower(factor, y) {
    const n = y.length, result = Float64Array.from(y);
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < i; k++) result[i] -= factor[i * n + k] * result[k];
      result[i] /= factor[i * n + i];
    }
    return result;
  }

  /* a^-1 y for a positive definite matrix. */
  function solvePositive(a, y) {
    const n = a.rows, factor = cholesky(a), result = solveLower(factor, y);
    for (let i = n - 1; i >= 0; i--) {
      for (let k = i + 1; k < n; k++) result[i] -= factor[k * n + i] * result[k];
      result[i] /= factor[i * n + i];
    }
    return result;
  }

  return { matrix, map, zip, product, columnSums, columnsFrom, cholesky, solveLower, solvePositive };
})();
