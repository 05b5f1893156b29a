// Multiply-adds of numbers in registers and nothing else, as many at once as hide the time that one of them takes.
#include <cstdint>

#define UNROLL _Pragma("GCC unroll 16")

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int LANES = BYTES / sizeof(float), SUMS = 12;
typedef float vec __attribute__((vector_size(BYTES)));

}  // namespace

// At least `count` multiply-adds of floats; returns a number that depends on all of them.
extern "C" float multiply_adds(int64_t count) {
  const vec factor = vec{} + 0.999f, term = vec{} + 0.001f;
  vec sums[SUMS], total{};
  UNROLL for (int i = 0; i < SUMS; i++) sums[i] = vec{} + float(i);
  for (int64_t done = 0; done < count; done += SUMS * LANES)
    UNROLL for (int i = 0; i < SUMS; i++) sums[i] = sums[i] * factor + term;
  UNROLL for (int i = 0; i < SUMS; i++) total += sums[i];
  return total[0];
}
