// Errors of adapted networks on the CPU: one task at a time, in the processor's cache, and nothing is stored for a
// backward pass.
//
// Shapes: R runs, B tasks, S inner steps, G groups of M points in all at which the network predicts. The parameters of
// a run start all of its tasks, P = 1, or each task has parameters of its own, P = B.

#include <atomic>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "calls.h"
#include "start.h"

namespace {

constexpr int BLOCK = 20;  // points that are predicted at a time

constexpr int NUM_ARRAYS = 10;

// The arguments of a call, as EvaluationArgs of kernel_evaluation.py has them. [shape] is that of an array.
struct EvaluationArgs {
  int64_t num_runs;         // R
  int64_t num_tasks;        // B
  int64_t num_starts;       // P
  int64_t num_steps;        // S
  int64_t num_points;       // M
  int64_t num_groups;       // G
  int64_t num_predictions;  // L, the points whose predictions are wanted, the first of each task
  int64_t num_threads;
  int64_t trained_steps;    // inner steps that have alphas and curvatures of their own; those after use the last
  double longest;           // largest length of an update past them, as a multiple of that before; or infinite
  double inner_clip;        // largest norm or entry of a gradient of an inner step, if CLIP
  double inner_momentum;    // of the inner steps, if MOMENTUM
  double inner_proximal;    // lambda of the inner loss, if PROXIMAL
  double alpha_scale;       // factor on every alpha
  double unit;              // of the network in that of the tasks, whose errors are computed
  const real *x;            // [R][B][SUPPORT][INPUTS], inputs of the support points
  const real *y;            // [R][B][SUPPORT], their targets
  const real *points;       // [R][B][M][INPUTS], inputs of the points
  const real *targets;      // [R][B][M]
  const int64_t *groups;    // [G], points of each group, one after the other; M in all
  const real *params;       // [R][P][NUM_PARAMS], of the networks before the first inner step
  const real *values;       // [R][NUM_VALUES], of which the parameters of the network are not read
  const double *factors;    // [S], on the updates
  real *errors;             // [S + 1][G][R][B][2], mean squared and mean absolute, after 0, 1, ..., S inner steps
  real *predictions;        // [S + 1][R][B][L]
  int64_t lengths[10];      // elements of the NUM_ARRAYS arrays above, in their order
};

int64_t refusal(const EvaluationArgs &args) {
  const int64_t R = args.num_runs, B = args.num_tasks, P = args.num_starts, S = args.num_steps, M = args.num_points;
  const int64_t G = args.num_groups, L = args.num_predictions;
  if (R < 1 || B < 1 || S < 0 || S >= INT32_MAX || M < 1 || G < 1 || L < 0 || L > M) return BAD_COUNTS;
  if ((P != 1 && P != B) || args.num_threads < 1 || args.num_threads > MAX_THREADS) return BAD_COUNTS;
  const void *const arrays[NUM_ARRAYS] = {args.x,      args.y,      args.points,  args.targets, args.groups,
                                          args.params, args.values, args.factors, args.errors,  args.predictions};
  const int64_t expected[NUM_ARRAYS] = {
      total({R, B, SUPPORT, INPUTS}), total({R, B, SUPPORT}), total({R, B, M, INPUTS}), total({R, B, M}), G,
      total({R, P, NUM_PARAMS}), total({R, NUM_VALUES}), S, total({S + 1, G, R, B, 2}), total({S + 1, R, B, L})};
  for (int i = 0; i < NUM_ARRAYS; i++)
    if (expected[i] < 0 || args.lengths[i] != expected[i] || (expected[i] > 0 && !arrays[i])) return i + 1;
  int64_t points = 0;
  for (int64_t g = 0; g < G; g++) {
    if (args.groups[g] < 1 || args.groups[g] > M - points) return BAD_COUNTS;
    points += args.groups[g];
  }
  return points == M ? ACCEPTED : BAD_COUNTS;
}

// The memory of a thread for one task after the other; padded parameters. Inner steps take turns in arrays of two.
struct Workspace {
  InnerStart start;
  ALIGNED real params[2][PADDED_SIZE];
  ALIGNED real transposed[2][TRANSPOSED_SIZE];
  Update updates[2];
  ForwardBackward<SUPPORT> support;
  RidgeSolution solution;
  ALIGNED real solved[RIDGE ? PADDED_SIZE : LANES];
  ForwardBackward<BLOCK> block;
  std::vector<real> predictions;  // [M]
};

// predictions [count] at x [count][INPUTS]
void predict(const real *x, int64_t count, const real *params, ForwardBackward<BLOCK> &pass, real *predictions) {
  for (int64_t done = 0; done < count; done += BLOCK) {
    const int points = int(std::min<int64_t>(BLOCK, count - done));
    real block_x[BLOCK * INPUTS] = {}, out[BLOCK];
    std::copy_n(x + done * INPUTS, points * INPUTS, block_x);
    forward(block_x, params, pass);
    head_outputs<BLOCK>(inputs<BLOCK, HEAD>(block_x, pass.hidden), params, out);
    std::copy_n(out, points, predictions + done);
  }
}

// The errors [G][R][B][2] of a task, from its predictions [M].
void set_errors(const EvaluationArgs &args, int64_t task, const real *predictions, real *errors) {
  const real *targets = args.targets + task * args.num_points;
  const real unit = real(args.unit);
  for (int64_t g = 0, begin = 0; g < args.num_groups; begin += args.groups[g++]) {
    double squares = 0, sizes = 0;
    for (int64_t i = begin; i < begin + args.groups[g]; i++) {
      const double error = (predictions[i] - targets[i]) / unit;
      squares += error * error, sizes += std::abs(error);
    }
    real *of_group = errors + 2 * (g * args.num_runs * args.num_tasks + task);
    of_group[0] = real(squares / args.groups[g]), of_group[1] = real(sizes / args.groups[g]);
  }
}

// The factor on the update alpha * velocity of inner step `s`; `squared_length` is that of the update before, and
// becomes that of this one.
real update_factor(const EvaluationArgs &args, int s, const real *alpha, const real *velocity, real &squared_length) {
  real factor = real(args.factors[s]), squared = 0;
  if (s + 1 < args.trained_steps || std::isinf(args.longest)) return factor;
  for (int i = 0; i < PADDED_SIZE; i++) squared += alpha[i] * velocity[i] * alpha[i] * velocity[i];
  squared *= factor * factor;
  const real limit = real(args.longest * args.longest) * squared_length;
  if (s >= args.trained_steps && squared > limit) factor *= std::sqrt(limit / squared), squared *= limit / squared;
  squared_length = squared;
  return factor;
}

// Inner step `s` from `params`: the parameters after it are in work.params[s % 2].
void take_inner_step(const EvaluationArgs &args, const real *x, const real *y, const real *params,
                     const real *transposed, int s, real &squared_length, Workspace &work) {
  const InnerStart &start = work.start;
  if constexpr (RIDGE) {
    const Penalties &penalties = start.penalties[1 + std::min(s, std::max(0, STEPS - 1))];
    solve(x, y, params, start.prior, penalties, work.support, work.solution, work.solved);
    set_head_delta(work.solution, work.support);
    backward(work.solved, transposed, work.support);
  } else {
    forward_backward<SUPPORT>(x, y, params, transposed, work.support);
  }
  const RuleSettings settings = {real(args.inner_clip), real(args.inner_momentum), real(args.inner_proximal),
                                 real(args.alpha_scale)};
  Update &update = work.updates[s % 2];
  compute_update(x, params, start.params, work.support, start.curvature[std::max(0, std::min(s, CURVATURES - 1))],
                 settings, s, s ? &work.updates[(s + 1) % 2] : nullptr, update);
  const real *alpha = start.alphas[std::min(s, ALPHAS - 1)], *velocity = update.velocity();
  const real factor = update_factor(args, s, alpha, velocity, squared_length);
  real *next = work.params[s % 2];
  for (int i = 0; i < PADDED_SIZE; i++) next[i] = params[i] - factor * alpha[i] * velocity[i];
  if constexpr (CONTEXT) set_effective_bias(next);
  transpose_weights(next, work.transposed[s % 2]);
}

// Adapts to a task of a run from work.start, and computes the errors after each inner step.
void evaluate_task(const EvaluationArgs &args, int64_t task, Workspace &work) {
  const int64_t M = args.num_points, L = args.num_predictions, all_tasks = args.num_runs * args.num_tasks;
  const real *x = args.x + task * SUPPORT * INPUTS, *y = args.y + task * SUPPORT;
  const real *params = work.start.params, *transposed = work.start.transposed;
  real squared_length = 0;
  for (int s = 0; s <= args.num_steps; s++) {
    const real *adapted = params;
    if constexpr (RIDGE)
      if (s) {
        solve(x, y, params, work.start.prior, work.start.penalties[0], work.support, work.solution, work.solved);
        adapted = work.solved;
      }
    predict(args.points + task * M * INPUTS, M, adapted, work.block, work.predictions.data());
    set_errors(args, task, work.predictions.data(), args.errors + s * args.num_groups * all_tasks * 2);
    std::copy_n(work.predictions.data(), L, args.predictions + (s * all_tasks + task) * L);
    if (s == args.num_steps || (RIDGE && STEPS == 0)) continue;
    take_inner_step(args, x, y, params, transposed, s, squared_length, work);
    params = work.params[s % 2], transposed = work.transposed[s % 2];
  }
}

// The tasks of a thread: those of one run follow each other, so that its rule is read once.
void evaluate_tasks(const EvaluationArgs &args, std::atomic<int64_t> &next_task, Workspace &work) {
  int64_t last_run = -1;
  for (int64_t task; (task = next_task++) < args.num_runs * args.num_tasks;) {
    const int64_t run = task / args.num_tasks;
    if (run != last_run) pad_rule(args.values + run * NUM_VALUES, real(args.alpha_scale), work.start);
    if (run != last_run || args.num_starts > 1)
      pad_network(args.params + (args.num_starts > 1 ? task : run) * NUM_PARAMS, nullptr, work.start);
    last_run = run;
    evaluate_task(args, task, work);
  }
}

}  // namespace

// Returns ACCEPTED, or why the call was refused.
extern "C" int64_t compute_errors(const EvaluationArgs *args) {
  if (const int64_t code = refusal(*args)) return code;
  std::vector<std::unique_ptr<Workspace>> work;
  std::vector<std::thread> threads;
  std::atomic<int64_t> next_task{0};
  int64_t code = ACCEPTED;
  try {
    for (int64_t i = 0; i < args->num_threads; i++) {
      work.push_back(std::make_unique<Workspace>());
      work.back()->predictions.resize(args->num_points);
    }
    for (int64_t i = 1; i < args->num_threads; i++)
      threads.emplace_back([&, i] { evaluate_tasks(*args, next_task, *work[i]); });
  } catch (const std::exception &) {
    code = NO_RESOURCES;
    next_task = args->num_runs * args->num_tasks;
  }
  if (code == ACCEPTED) evaluate_tasks(*args, next_task, *work[0]);
  for (auto &thread : threads) thread.join();
  return code;
}
