// A process that makes calls of the kernel: their arguments and arrays are read from the standard input, their results
// are written to the standard output.
//
// Every array is an allocation of its own, of exactly its size, so that AddressSanitizer notices an access one byte past
// its end. The command line includes kernel.cpp before this file; kernel_driver.py writes the input.

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

void read_bytes(void *memory, size_t size) {
  if (std::fread(memory, 1, size, stdin) != size) std::exit(2);
}

}  // namespace

int main() {
  CallArgs args;
  while (std::fread(&args, sizeof args, 1, stdin) == 1) {
    void *const fields[NUM_ARRAYS] = {
        &args.x, &args.y, &args.noise, &args.step_weights, &args.second_order, &args.learning_rates, &args.values,
        &args.first_moments, &args.second_moments, &args.active, &args.loss_sum, &args.skipped_tasks, &args.loss,
        &args.grad_norm, &args.gradients, &args.completed};
    void *arrays[NUM_ARRAYS];
    int64_t sizes[NUM_ARRAYS];  // in bytes; -1: no array
    read_bytes(sizes, sizeof sizes);
    for (int i = 0; i < NUM_ARRAYS; i++) {
      arrays[i] = sizes[i] < 0 ? nullptr : std::malloc(sizes[i]);
      if (sizes[i] > 0) read_bytes(arrays[i], sizes[i]);
      std::memcpy(fields[i], &arrays[i], sizeof arrays[i]);
    }
    const int64_t code = take_outer_steps(&args);
    std::fwrite(&code, sizeof code, 1, stdout);
    for (int i = 0; i < NUM_ARRAYS; i++) {
      if (sizes[i] > 0) std::fwrite(arrays[i], 1, sizes[i], stdout);
      std::free(arrays[i]);
    }
    std::fflush(stdout);
  }
}
