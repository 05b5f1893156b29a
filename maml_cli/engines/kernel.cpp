// Outer steps of MAML on the CPU: one task at a time, in the processor's cache.
//
// The forward and backward passes of all inner steps are stored, and the adjoint of the query loss is propagated back
// through them by Hessian-vector products, as adjoint.py does. Parameters within a task are padded, those of a run are
// not: see network.h.
//
// Shapes: N outer steps, R runs, B tasks.

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "calls.h"
#include "start.h"

namespace {

// ---- the meta-gradient of a task

// The memory of a thread for one task after the other; padded parameters.
struct TaskWorkspace {
  static constexpr int SAVED = std::max(1, STEPS), SOLUTIONS = RIDGE ? STEPS + 1 : 1;
  ALIGNED real params[SAVED][PADDED_SIZE];          // after each inner step
  ALIGNED real transposed[SAVED][TRANSPOSED_SIZE];  // their weights
  Update updates[SAVED];
  ForwardBackward<SUPPORT> support[STEPS + RIDGE];  // before each inner step; of a ridge head also after the last
  RidgeSolution solutions[SOLUTIONS];               // of the heads in closed form there
  ALIGNED real solved[SOLUTIONS][RIDGE ? PADDED_SIZE : LANES];  // the parameters there with these heads
  ForwardBackward<QUERY> query;
  Tangent tangent;
  Direction direction;
  Carried carried;  // from the inner step after
  ALIGNED real proximal_adjoint[PROXIMAL ? PADDED_SIZE : LANES];  // of the initial parameters in proximal terms
  ALIGNED real query_gradient[PADDED_SIZE];  // of an inner step before the last
  ALIGNED real alpha_gradients[LEARNED && !PER_PARAMETER ? ALPHAS : 1][PADDED_SIZE];  // of alphas that several share
  ALIGNED double penalty_gradients[SOLUTIONS][RidgeSizes::PADDED_P];  // of log penalties
  ALIGNED double query_penalty_gradients[RidgeSizes::PADDED_P];
};

// The query loss after `s` inner steps, and its gradient; a head in closed form overwrites support[s] and solved[s].
inline real query_loss(const InnerStart &start, const real *x, const real *y, const real *params,
                       const real *transposed, int s, TaskWorkspace &work, real *gradient) {
  const real *query_x = x + SUPPORT * INPUTS, *query_y = y + SUPPORT;
  if constexpr (RIDGE) {
    solve(x, y, params, start.prior, start.penalties[0], work.support[s], work.solutions[s], work.solved[s]);
    params = work.solved[s];
  }
  forward_backward<QUERY>(query_x, query_y, params, transposed, work.query);
  accumulate_gradients<SET, QUERY, LAYERS>(query_x, work.query, gradient);
  if constexpr (CONTEXT) split_gradient(params, gradient);
  if constexpr (RIDGE)
    ridge_backward(x, params, transposed, start.penalties[0], work.solutions[s], work.support[s], gradient,
                   work.query_penalty_gradients);
  return work.query.loss;
}

// An inner step from `params`, after the passes at its points `x`: the parameters after it are in work.params[s].
inline void take_inner_step(const InnerStart &start, const real *x, const real *params,
                            const ForwardBackward<SUPPORT> &pass, int s, const RuleSettings &settings,
                            TaskWorkspace &work) {
  const Curvature &curvature = start.curvature[std::max(0, std::min(s, CURVATURES - 1))];
  compute_update(x, params, start.params, pass, curvature, settings, s, s ? &work.updates[s - 1] : nullptr,
                 work.updates[s]);
  const real *alpha = start.alphas[std::min(s, ALPHAS - 1)], *velocity = work.updates[s].velocity();
  real *next = work.params[s];
  for (int i = 0; i < PADDED_SIZE; i++) next[i] = params[i] - alpha[i] * velocity[i];
  if constexpr (CONTEXT) set_effective_bias(next);
  transpose_weights(next, work.transposed[s]);
}

// The last of the meta-gradient of a task: alphas and penalties that several parameters share get the sum of theirs,
// and what the outer loop does not learn has no gradient.
void finish_gradient(const TaskWorkspace &work, real *gradient) {
  for_each_row([&](int, int at, int n, int t) {
    if (is_zero(t)) std::fill_n(gradient + at, n, real(0));
    if constexpr (LEARNED)
      for (int s = 0; s < ALPHAS; s++) {
        if (PER_PARAMETER && !adapts(t)) std::fill_n(gradient + (1 + s) * PARAMS_LINES + at, n, real(0));
        if (!PER_PARAMETER && adapts(t))
          for (int i = 0; i < n; i++)
            gradient[PARAMS_LINES + alpha_offset(t) + s] += work.alpha_gradients[s][at + i];
      }
  });
  if constexpr (RIDGE && PENALTIES_LEARNED)
    for (int s = 0; s <= STEPS; s++)
      for (int j = 0; j < RidgeSizes::P; j++)
        gradient[GRADIENT_PENALTIES + s * PENALTIES + (PENALTIES > 1 ? j : 0)] += real(work.penalty_gradients[s][j]);
}

// The part of a proximal term in the Hessian-vector product of an inner step: lambda for the parameters before it, and
// -lambda for the initial parameters, which cancel where these are the same.
void add_proximal_adjoint(real lambda, const real *direction, real *adjoint, real *initial_adjoint) {
  for (int i = 0; i < PADDED_SIZE; i++) adjoint[i] -= lambda * direction[i], initial_adjoint[i] += lambda * direction[i];
}

// Reptile (Nichol et al. 2018, arXiv:1803.02999, eq. 2): the query loss after the inner steps, and in `gradient` the
// initial minus the adapted parameters. Each inner step sees the next SUPPORT of all points, cyclically.
real reptile_gradient(const InnerStart &start, const real *x, const real *y, const RuleSettings &settings,
                      TaskWorkspace &work, real *gradient) {
  constexpr int POINTS = SUPPORT + QUERY;
  const real *params = start.params, *transposed = start.transposed;
  for (int s = 0; s < STEPS; s++) {
    real step_x[SUPPORT * INPUTS], step_y[SUPPORT];
    for (int k = 0; k < SUPPORT; k++) {
      const int point = (s * SUPPORT + k) % POINTS;
      std::copy_n(x + point * INPUTS, INPUTS, step_x + k * INPUTS), step_y[k] = y[point];
    }
    forward_backward<SUPPORT>(step_x, step_y, params, transposed, work.support[s]);
    take_inner_step(start, step_x, params, work.support[s], s, settings, work);
    params = work.params[s], transposed = work.transposed[s];
  }
  forward(x + SUPPORT * INPUTS, params, work.query);
  compute_loss(x + SUPPORT * INPUTS, y + SUPPORT, params, work.query);
  for (int i = 0; i < PADDED_SIZE; i++) gradient[i] = start.params[i] - params[i];
  if constexpr (CONTEXT) std::fill_n(Context(gradient).effective, BIAS_WIDTH, real(0));
  finish_gradient(work, gradient);
  return work.query.loss;
}

// The query loss after the last inner step, and in `gradient` [GRADIENT_SIZE] the meta-gradient. `step_weights`
// [STEPS + 1] are the weights of the query losses before and after each inner step.
real meta_gradient(const InnerStart &start, const real *x, const real *y, const double *step_weights,
                   bool second_order, const RuleSettings &settings, TaskWorkspace &work, real *gradient) {
  if constexpr (REPTILE) return reptile_gradient(start, x, y, settings, work, gradient);
  const real *params = start.params, *transposed = start.transposed;
  for (int s = 0; s < STEPS; s++) {
    if constexpr (RIDGE) {
      solve(x, y, params, start.prior, start.penalties[1 + s], work.support[s], work.solutions[s], work.solved[s]);
      set_head_delta(work.solutions[s], work.support[s]);
      backward(work.solved[s], transposed, work.support[s]);
    } else {
      forward_backward<SUPPORT>(x, y, params, transposed, work.support[s]);
    }
    take_inner_step(start, x, params, work.support[s], s, settings, work);
    params = work.params[s], transposed = work.transposed[s];
  }
  real *adjoint = gradient;
  const real loss = query_loss(start, x, y, params, transposed, STEPS, work, adjoint);
  const real last_weight = real(step_weights[STEPS]);
  if (last_weight != 1) for (int i = 0; i < PADDED_SIZE; i++) adjoint[i] *= last_weight;
  if constexpr (MOMENTUM || SCALE_BY_RMS) std::memset(&work.carried, 0, sizeof work.carried);
  if constexpr (PROXIMAL) std::memset(work.proximal_adjoint, 0, sizeof work.proximal_adjoint);
  std::fill(gradient + PARAMS_LINES, gradient + (CURVATURES == STEPS ? GRADIENT_FACTORS : GRADIENT_SIZE), real(0));
  if constexpr (LEARNED && !PER_PARAMETER) std::memset(work.alpha_gradients, 0, sizeof work.alpha_gradients);
  if constexpr (RIDGE) {
    std::memset(work.penalty_gradients, 0, sizeof work.penalty_gradients);
    add_scaled(step_weights[STEPS], work.query_penalty_gradients, work.penalty_gradients[0]);
  }
  for (int s = STEPS - 1; s >= 0; s--) {
    const int a = std::min(s, ALPHAS - 1), c = std::max(0, std::min(s, CURVATURES - 1));
    params = s ? work.params[s - 1] : start.params, transposed = s ? work.transposed[s - 1] : start.transposed;
    if (second_order || LEARNED || KRONECKER)
      update_adjoint(x, work.support[s], work.updates[s], start.curvature[c], settings, s, start.alphas[a], adjoint,
                     work.carried, work.direction,
                     PER_PARAMETER ? gradient + (1 + a) * PARAMS_LINES : work.alpha_gradients[LEARNED ? a : 0],
                     gradient + GRADIENT_FACTORS + c * FACTORS_SIZE);
    if (second_order) {
      const real *point = RIDGE ? work.solved[s] : params;
      real head_delta_dot[SUPPORT];
      if constexpr (PROXIMAL)
        if (s) add_proximal_adjoint(settings.proximal, work.direction.vector, adjoint, work.proximal_adjoint);
      if constexpr (CONTEXT) set_effective_direction(params, work.direction.vector);
      tangent_forward(x, point, work.direction, work.support[s], work.tangent);
      if constexpr (RIDGE)
        ridge_tangent_head(work.tangent, start.penalties[1 + s], work.solutions[s], work.direction.vector,
                           head_delta_dot, adjoint, work.penalty_gradients[1 + s]);
      else tangent_head(x, point, work.direction, work.support[s], work.tangent, head_delta_dot);
      subtract_hvp<GRADIENT_LAYERS>(x, point, transposed, work.direction, head_delta_dot, work.support[s],
                                    work.tangent, adjoint);
      if constexpr (CONTEXT) split_hvp(params, work.direction.vector, work.support[s], adjoint);
    }
    if (step_weights[s] != 0) {
      query_loss(start, x, y, params, transposed, s, work, work.query_gradient);
      for (int i = 0; i < PADDED_SIZE; i++) adjoint[i] += real(step_weights[s]) * work.query_gradient[i];
      if constexpr (RIDGE) add_scaled(step_weights[s], work.query_penalty_gradients, work.penalty_gradients[0]);
    }
  }
  if constexpr (PROXIMAL) for (int i = 0; i < PADDED_SIZE; i++) adjoint[i] += work.proximal_adjoint[i];
  finish_gradient(work, gradient);
  return loss;
}

// ---- between the unpadded parameters of a run and the padded ones of a task

real squared_norm(const real *gradient) {  // of a gradient [GRADIENT_SIZE]
  const real *factors = gradient + GRADIENT_FACTORS;
  return inner_product(gradient, gradient, GRADIENT_FACTORS) +
         inner_product<128>(factors, factors, GRADIENT_SIZE - GRADIENT_FACTORS);
}

// gradient [GRADIENT_SIZE] -> unpadded [NUM_LEARNED], times a factor
void unpad(const real *gradient, real scale, real *unpadded) {
  const auto copy = [&](int to, int from, int n) {
    for (int i = 0; i < n; i++) unpadded[to + i] = scale * gradient[from + i];
  };
  for_each_row([&](int to, int from, int n, int t) {
    if (!is_zero(t)) copy(to, from, n);
    if (LEARNED && PER_PARAMETER && adapts(t))
      for (int s = 0; s < ALPHAS; s++)
        copy(ALPHAS_BEGIN + alpha_offset(t) + s * tensor_size(t) + to - tensor_offset(t), (1 + s) * PARAMS_LINES + from,
             n);
  });
  if constexpr (LEARNED && !PER_PARAMETER) copy(ALPHAS_BEGIN, PARAMS_LINES, NUM_ALPHAS);
  if constexpr (PENALTIES_LEARNED) copy(PENALTIES_BEGIN, GRADIENT_PENALTIES, NUM_PENALTIES);
  for (int c = 0; c < CURVATURES; c++)
    for_each_factor_row(c, [&](int to, int from, int n) {
      copy(CURVATURE_BEGIN + to, GRADIENT_FACTORS + c * FACTORS_SIZE + from, n);
    });
}

// ---- outer steps

enum { SGD, ADAM, ADAMW };

constexpr int NUM_ARRAYS = 16;

// The arguments of a call, as CallArgs of kernel_call.py has them. [shape] is that of an array.
struct CallArgs {
  int64_t num_steps;             // N
  int64_t num_runs;              // R
  int64_t num_tasks;             // B
  int64_t num_threads;
  const real *x;                 // [N][R][B][SUPPORT + QUERY][INPUTS], inputs
  const real *y;                 // [N][R][B][SUPPORT + QUERY], targets
  const real *noise;             // [N][R][NUM_PARAMS], added to the parameters before the inner loop; or null
  const double *step_weights;    // [N][STEPS + 1], of the query losses before and after each inner step
  const int32_t *second_order;   // [N], 0: first-order MAML
  const double *learning_rates;  // [N][2], of the alphas, second, and of everything else
  int32_t optimizers[2];         // of the same two: SGD, ADAM or ADAMW
  double clip_norm;              // largest norm of the meta-gradient of a run; infinite: no clipping
  double clip_task_norm;         // largest norm of the meta-gradient of a task; infinite: no clipping
  double inner_clip;             // largest norm or entry of a gradient of an inner step, if CLIP
  double inner_momentum;         // of the inner steps, if MOMENTUM
  double inner_proximal;         // lambda of the inner loss, if PROXIMAL
  double alpha_scale;            // factor on every alpha
  int32_t skip_tasks;            // 1: tasks whose loss or gradient is not finite are skipped; 0: they stop the run
  real *values;                  // [R][NUM_VALUES], meta-parameters, updated
  real *first_moments;           // [R][NUM_LEARNED], of Adam, updated
  real *second_moments;          // [R][NUM_LEARNED], of Adam, updated
  int64_t adam_steps;            // steps of Adam before this call
  const int32_t *active;         // [R], 0: the run has diverged and is frozen
  double *loss_sum;              // [R], the mean query loss of each completed step is added
  int64_t *skipped_tasks;        // [R], the number of skipped tasks is added
  double *loss;                  // [R], mean query loss of the last step
  double *grad_norm;             // [R], norm of the meta-gradient of the last step, before clip_norm
  real *gradients;               // [R][NUM_LEARNED], meta-gradient of the last step, after clip_norm
  int64_t *completed;            // [R], steps before a loss or gradient was not finite
  int64_t lengths[16];           // elements of the NUM_ARRAYS arrays above, in their order
};

int64_t refusal(const CallArgs &args) {
  const int64_t N = args.num_steps, R = args.num_runs, B = args.num_tasks;
  if (N < 1 || R < 1 || B < 1 || args.num_threads < 1 || args.num_threads > MAX_THREADS) return BAD_COUNTS;
  if (args.adam_steps < 0 || args.adam_steps > INT64_MAX - N) return BAD_COUNTS;
  for (int optimizer : args.optimizers)
    if (optimizer < SGD || optimizer > ADAMW) return BAD_COUNTS;
  const void *const arrays[NUM_ARRAYS] = {
      args.x, args.y, args.noise, args.step_weights, args.second_order, args.learning_rates, args.values,
      args.first_moments, args.second_moments, args.active, args.loss_sum, args.skipped_tasks, args.loss,
      args.grad_norm, args.gradients, args.completed};
  const int64_t points = total({N, R, B, SUPPORT + QUERY}), inputs = total({N, R, B, SUPPORT + QUERY, INPUTS});
  const int64_t learned = total({R, NUM_LEARNED});
  const int64_t expected[NUM_ARRAYS] = {
      inputs, points, args.noise ? total({N, R, NUM_PARAMS}) : 0, total({N, STEPS + 1}), N, total({N, 2}),
      total({R, NUM_VALUES}), learned, learned, R, R, R, R, R, learned, R};
  for (int i = 0; i < NUM_ARRAYS; i++)
    if (expected[i] < 0 || args.lengths[i] != expected[i] || (expected[i] > 0 && !arrays[i])) return i + 1;
  return ACCEPTED;
}

void optimizer_step(const CallArgs &args, int64_t step, int64_t run) {
  real *values = args.values + run * NUM_VALUES;
  real *first = args.first_moments + run * NUM_LEARNED, *second = args.second_moments + run * NUM_LEARNED;
  const real *gradient = args.gradients + run * NUM_LEARNED;
  const double count = double(args.adam_steps + step + 1);
  struct Section {
    int begin, end;
    bool alphas;  // whether it has the optimiser and learning rate of the alphas
  };
  constexpr int ALPHAS_END = LEARNED ? NUM_PARAMS + NUM_ALPHAS : NUM_PARAMS;
  const Section sections[] = {{0, NUM_PARAMS, false}, {NUM_PARAMS, ALPHAS_END, true}, {ALPHAS_END, NUM_LEARNED, false}};
  for (const auto [begin, end, alphas] : sections) {
    const int optimizer = args.optimizers[alphas];
    const double lr = args.learning_rates[2 * step + alphas];
    if (optimizer == SGD) {
      for (int i = begin; i < end; i++) values[i] -= real(lr) * gradient[i];
      continue;
    }
    // Kingma & Ba 2015, Algorithm 1; AdamW: Loshchilov & Hutter 2019. The constants are PyTorch's defaults.
    const real step_size = real(lr / (1 - std::pow(0.9, count)));
    const real second_correction = real(std::sqrt(1 - std::pow(0.999, count)));
    const real decay = optimizer == ADAMW ? real(1 - lr * 0.01) : real(1);
    for (int i = begin; i < end; i++) {
      first[i] += real(0.1) * (gradient[i] - first[i]);
      second[i] = real(0.999) * second[i] + real(0.001) * gradient[i] * gradient[i];
      values[i] = values[i] * decay - step_size * first[i] / (std::sqrt(second[i]) / second_correction + real(1e-8));
    }
  }
}

// The threads that share the tasks of one run. Gradients are added in the order of the tasks, whichever thread
// computed them, so that the number of threads changes no byte.
struct Team {
  struct ALIGNED Line {
    real values[LINE];
  };
  static constexpr int LINES = (GRADIENT_SIZE + LINE - 1) / LINE;  // of a meta-gradient

  const int size;
  InnerStart start{};
  std::vector<Line> task_gradients;  // [B][LINES]; of a team of one, [LINES] of the last task
  std::vector<double> task_losses;   // [B]
  std::vector<Line> gradient_sum;    // [LINES], of the tasks that were added
  double loss_sum = 0;               // of the tasks that were added
  int64_t num_added = 0;
  bool stopped = false;

  Team(const CallArgs &args, int size)
      : size(size), task_gradients((size > 1 ? args.num_tasks : 1) * LINES), task_losses(args.num_tasks),
        gradient_sum(LINES) {}

  real *task_gradient(int64_t task) { return task_gradients[size > 1 ? task * LINES : 0].values; }
  real *sum() { return gradient_sum[0].values; }

  void barrier() {  // waits for all threads of the team, busily at first: the waits of a step are short
    if (size == 1) return;
    const int current = round.load();
    if (arrived.fetch_add(1) + 1 == size) arrived.store(0), round.store(current + 1);
    else
      for (int spins = 0; round.load() == current; spins++)
        if (spins > 1000) std::this_thread::yield();
  }

 private:
  std::atomic<int> arrived{0}, round{0};
};

// Compiled as a piece of train_run: what the compiler inlines decides which products and sums it contracts to one
// operation with one rounding, and so the last bits of results.
#define INLINED __attribute__((always_inline)) inline

// Adds the meta-gradient and loss of a task to the sums of its team. With args.skip_tasks the gradient is clipped
// first, and a task that is not finite is skipped.
INLINED void add_task(const CallArgs &args, Team &team, int64_t task) {
  const real *gradient = team.task_gradient(task);
  real *sum = team.sum(), factor = 1;
  if (args.skip_tasks) {
    const real norm = std::sqrt(squared_norm(gradient));
    if (!std::isfinite(norm) || !std::isfinite(team.task_losses[task])) return;
    factor = std::min(real(1), real(args.clip_task_norm) / norm);
  }
  team.num_added++, team.loss_sum += team.task_losses[task];
  for (int i = 0; i < GRADIENT_SIZE; i++) sum[i] += factor * gradient[i];
}

// The end of an outer step, once all tasks are added: mean, clipping, update. False, without an update, if the loss or
// the gradient is not finite.
INLINED bool finish_step(const CallArgs &args, Team &team, int64_t step, int64_t run) {
  real *sum = team.sum();
  for (int i = 0; i < GRADIENT_SIZE; i++) sum[i] /= real(args.num_tasks);
  const double norm = std::sqrt(double(squared_norm(sum)));
  const double loss = team.loss_sum / team.num_added;  // 0 / 0 if all tasks were skipped
  args.loss[run] = std::isnan(loss) ? NAN : loss, args.grad_norm[run] = std::isnan(norm) ? NAN : norm;  // of one sign
  if (!std::isfinite(loss) || !std::isfinite(norm)) return false;
  args.loss_sum[run] += loss, args.skipped_tasks[run] += args.num_tasks - team.num_added;
  const real scale = real(std::min(1.0, args.clip_norm / norm));
  unpad(sum, scale, args.gradients + run * NUM_LEARNED);
  optimizer_step(args, step, run);
  args.completed[run] = step + 1;
  return true;
}

// The outer steps of a run, as thread `member` of its team. Thread 0 begins and ends each step.
void train_run(const CallArgs &args, int64_t run, Team &team, int member, TaskWorkspace &work) {
  const RuleSettings settings = {real(args.inner_clip), real(args.inner_momentum), real(args.inner_proximal),
                                 real(args.alpha_scale)};
  if (member == 0) team.stopped = false;
  for (int64_t step = 0; step < args.num_steps; step++) {
    const int64_t index = step * args.num_runs + run;
    if (member == 0) {
      const real *noise = args.noise ? args.noise + index * NUM_PARAMS : nullptr;
      pad_network(args.values + run * NUM_VALUES, noise, team.start);
      pad_rule(args.values + run * NUM_VALUES, settings.alpha_scale, team.start);
      std::fill_n(team.sum(), GRADIENT_SIZE, real(0)), team.loss_sum = 0, team.num_added = 0;
    }
    team.barrier();
    if (team.stopped) return;
    for (int64_t task = member; task < args.num_tasks; task += team.size) {
      const int64_t points = (index * args.num_tasks + task) * (SUPPORT + QUERY);
      real *gradient = team.task_gradient(task);
      team.task_losses[task] = meta_gradient(team.start, args.x + points * INPUTS, args.y + points,
                                             args.step_weights + step * (STEPS + 1), args.second_order[step],
                                             settings, work, gradient);
      if (team.size == 1) add_task(args, team, task);
    }
    team.barrier();
    if (member > 0) continue;
    if (team.size > 1)
      for (int64_t task = 0; task < args.num_tasks; task++) add_task(args, team, task);
    if (!finish_step(args, team, step, run)) {
      team.stopped = true;
      if (step + 1 < args.num_steps) team.barrier();  // at which the other threads wait for the next step
      return;
    }
  }
}

}  // namespace

// args->num_steps outer steps of all active runs. With more threads than runs, several share the tasks of a run;
// otherwise each thread takes one run after the other. Returns ACCEPTED, or why the call was refused.
extern "C" int64_t take_outer_steps(const CallArgs *args) {
  if (const int64_t code = refusal(*args)) return code;
  const int team_size = int(std::max<int64_t>(1, args->num_threads / args->num_runs));
  const int64_t num_workers = team_size > 1 ? args->num_runs * team_size : std::min(args->num_threads, args->num_runs);
  const int64_t num_teams = num_workers / team_size;
  std::vector<std::unique_ptr<TaskWorkspace>> work;
  std::vector<std::unique_ptr<Team>> teams;
  std::vector<std::thread> threads;
  std::atomic<int64_t> next_run{0};
  // Threads wait until all of them exist: a team would wait forever for a member that it lacks.
  enum class Gate { WAIT, START, STOP };
  std::atomic<Gate> gate{Gate::WAIT};
  const auto worker = [&](int64_t index) {
    while (gate.load() == Gate::WAIT) std::this_thread::yield();
    if (gate.load() == Gate::STOP) return;
    Team &team = *teams[index / team_size];
    if (team_size == 1) {
      for (int64_t run; (run = next_run++) < args->num_runs;)
        if (args->active[run]) train_run(*args, run, team, 0, *work[index]);
    } else if (const int64_t run = index / team_size; args->active[run]) {
      train_run(*args, run, team, int(index % team_size), *work[index]);
    }
  };
  int64_t code = ACCEPTED;
  try {
    for (int64_t i = 0; i < num_workers; i++) work.push_back(std::make_unique<TaskWorkspace>());
    for (int64_t i = 0; i < num_teams; i++) teams.push_back(std::make_unique<Team>(*args, team_size));
    for (int64_t i = 1; i < num_workers; i++) threads.emplace_back(worker, i);
  } catch (const std::exception &) {
    code = NO_RESOURCES;
  }
  gate = code == ACCEPTED ? Gate::START : Gate::STOP;
  if (code == ACCEPTED) worker(0);
  for (auto &thread : threads) thread.join();
  return code;
}
