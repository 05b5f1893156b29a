// Calls from Python: counts, threads and lengths of arrays are checked before anything is read or written.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace {

constexpr int64_t MAX_THREADS = 1024;

// The product of counts; -1, which is no length, if it overflows.
int64_t total(std::initializer_list<int64_t> counts) {
  int64_t product = 1;
  for (int64_t count : counts)
    if (__builtin_mul_overflow(product, count, &product)) return -1;
  return product;
}

// Codes of calls that are refused before anything is read or written; from 1 on, the number of the first array that has
// another length than its shape.
enum : int64_t { ACCEPTED = 0, BAD_COUNTS = -1, NO_RESOURCES = -2 };

}  // namespace
