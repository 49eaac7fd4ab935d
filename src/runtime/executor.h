// Runs plans on processors: owns the memory that they share, compiles what a plan needs, submits
// each step as soon as other processors have written what it reads, and waits for them meanwhile
// (sync.h says how).
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "processor/processor.h"
#include "runtime/executables.h"
#include "runtime/slots.h"
#include "runtime/sync.h"
#include "runtime/trace.h"

namespace hetero {

/// What one processor did since the counters were last cleared.
struct ProcessorUse {
  Nanos busy{};       // running submissions
  Nanos wait{};       // the rest of the passes' time: waiting for others, or for the control thread
  int64_t steps = 0;  // submissions
  int64_t macs = 0;   // multiply-accumulates of linear operators and attention, padding not counted
};

/// What a processor took, in passes of plans whose steps' durations were predicted (by the plan, or by
/// what was seen in the beginning), and what it should have taken.
struct Pace {
  Nanos busy{};
  Nanos predicted{};
};

/// A plan with everything resolved: executables, addresses, waits and transfers. Made by
/// Executor::prepare, owned by the executor.
class LinkedPlan;

/// All calls from one thread, the control thread. The graph and the processors outlive it.
class Executor {
 public:
  static Result<std::unique_ptr<Executor>> create(const Graph& graph, std::vector<Processor*> processors,
                                                  const RowCapacity& capacity);
  ~Executor();

  /// Compiles what the plan needs and is not compiled yet; may take seconds. `progress`, if given,
  /// is called with (done, total) around each compilation.
  Result<const LinkedPlan*> prepare(const Plan& plan, const std::function<void(int, int)>& progress = {});

  /// What prepare(plan) would compile, and may take long: for processors with static shapes.
  std::vector<Compilation> missing(const Plan& plan) const;
  /// Where compiled slices are kept; a CompileThread may add to it.
  const std::shared_ptr<Executables>& executables() const { return executables_; }
  /// Forgets all other plans, and what was compiled for them alone.
  void keep_only(const std::vector<const LinkedPlan*>& plans);

  /// Parts of weights, in the graph's memory.
  struct WeightPart {
    const std::byte* begin = nullptr;
    Bytes size = 0;
  };
  /// What of the weights only processors with copies of their own use, in prepared plans for one row.
  /// Each part once, in ascending order.
  std::vector<WeightPart> copied_weights() const;

  /// A processor that plans may use from now on; nothing happens if it is there already.
  void add(Processor& processor);
  /// Index of the processor whose failure ended the last run() or prepare(); -1: it was no failure of
  /// a processor.
  int failed() const { return failed_; }
  /// Never to be used again. False if what it alone held of the KV cache is lost: then what was fed
  /// has to be fed again.
  bool abandon(int processor);

  /// Token ids of the next body pass, capacity().tokens long.
  std::span<int32_t> ids();

  /// Runs a body plan at `position`, or a head plan over rows first_row.. of the last body pass.
  /// Returns when all of it is done. `cancel`, if given, is looked at between steps; then the
  /// result is Code::kCancelled and the pass has not happened, as far as the KV cache goes.
  Status run(const LinkedPlan& plan, int64_t position, int64_t first_row = 0,
             const std::atomic<bool>* cancel = nullptr);

  /// run(body) and run(head), as far as possible without waiting in between.
  Status run_with_head(const LinkedPlan& body, int64_t position, const LinkedPlan& head, int64_t first_row,
                       const std::atomic<bool>* cancel = nullptr);

  /// The logits of the last head pass: row i at logits() + i * vocabulary.
  const float* logits() const;

  const RowCapacity& capacity() const { return capacity_; }
  /// By processor, in the order given to create().
  const std::vector<ProcessorUse>& use() {
    settle();
    return use_;
  }
  void clear_use();
  const std::vector<Processor*>& processors() const { return processors_; }
  /// By processor, for the last run() whose timestamps were looked at: the last one, or the one before.
  const std::vector<Pace>& pace() const { return pace_; }
  /// Measured multiply-accumulates per second of processor `a`, divided by those of all, in operators
  /// that processors share; nullopt where nothing was measured. `plan` has run.
  std::optional<double> measured_share(const LinkedPlan& plan, int a);
  /// What steps took: for each processor and kind of work, in the order in which they were met.
  struct StepReport {
    std::string processor;
    std::string op;  // without its layer
    int64_t columns = 0;
    int64_t tokens = 0;
    Nanos predicted{};  // by the plan; zero: not
    Nanos measured{};   // usually
    Nanos expected{};   // when it is waited for: from submission, or from the end of what ran before it
    int64_t times = 0;
  };
  std::vector<StepReport> report();
  /// There is a new plan: its durations are compared with what is seen from now on.
  void forget_baselines() { times_.forget_baselines(); }
  /// How to wait; Sync::kFast unless set.
  void set_sync(Sync sync) { sync_ = sync; }
  /// Records what every submission did, until it is set back to nullptr.
  void set_trace(Trace* trace) {
    settle();
    trace_ = trace;
  }

 private:
  struct Home {  // where a value that outlives a pass is up to date
    bool host = true;
    std::vector<bool> copies;  // by processor: devices with memory of their own
  };

  struct Flight {  // of one step
    Fence ran;
    Fence visible;  // to other processors: behind its downloads
    Nanos submitted{};
    Nanos expected{};  // to be visible
    Nanos looked{};    // when it was seen not to be visible yet
    bool done = false;
    bool alone = false;  // nothing else was in the queue
  };

  struct Pass {
    std::array<const LinkedPlan*, 2> plans{};  // a body and the head behind it, or one of them
    int64_t position = 0;
    Nanos time{};
    size_t turn = 0;
  };

  Executor(const Graph& graph, std::vector<Processor*> processors, const RowCapacity& capacity);
  Status allocate();
  Result<Buffer*> buffer(int slot, int processor);
  Compilation compilation(int processor, const Step& step, bool head) const;
  Status blame(int processor, Status status);
  Status bind(const Plan& plan, LinkedPlan& linked);
  Status expect_copies(const LinkedPlan& linked);
  Status bring_home(const LinkedPlan& plan, int64_t position);
  Status make_current(ValueId value, int processor, int64_t rows);
  bool follows_in_queue(const LinkedPlan& body, const LinkedPlan& head) const;
  Status run(const std::array<const LinkedPlan*, 2>& plans, int64_t position, int64_t first_row,
             const std::atomic<bool>* cancel);
  Status run_fast(const LinkedPlan& plan, int64_t position, int64_t first_row,
                  const std::atomic<bool>* cancel);
  Status run_by_driver(const LinkedPlan& plan, int64_t position, int64_t first_row,
                       const std::atomic<bool>* cancel);
  Status submit(const LinkedPlan& plan, int step, int64_t position, int64_t first_row);
  Status enqueue(const LinkedPlan& plan, int step, int64_t position, int64_t first_row);
  Result<bool> is_ready(const LinkedPlan& plan, int step);
  Fence waker(const LinkedPlan& plan, size_t processor);
  bool is_alone(const LinkedPlan& plan, const Fence& fence);
  Status wait_for_any(const LinkedPlan& plan, const std::atomic<bool>* cancel);
  Status wait(int processor, const Fence& fence, Nanos expected);
  void flush();
  static Interval interval(const Flight& flight);
  void learn(const std::array<const LinkedPlan*, 2>& plans);
  bool has_own_memory(const LinkedPlan& plan) const;
  /// Learns from the pass that is left to be learnt from, if there is one.
  void settle();
  Status drain();
  void count(const LinkedPlan& plan, int64_t position);
  void note_written(const LinkedPlan& plan);
  std::vector<Flight>& flights(const LinkedPlan& plan);
  Region region(ValueId value, int64_t row, int64_t rows, int64_t col, int64_t cols) const;
  int find_processor(const std::string& id) const;

  const Graph& graph_;
  std::vector<Processor*> processors_;
  RowCapacity capacity_;
  SlotAssignment slots_;
  std::vector<PageMemory> memory_;                             // by slot
  std::vector<std::vector<std::unique_ptr<Buffer>>> buffers_;  // by slot, processor
  std::shared_ptr<Executables> executables_;
  std::vector<std::unique_ptr<LinkedPlan>> plans_;
  std::vector<Home> homes_;  // by value
  std::vector<Fence> last_;  // by processor: its latest submission
  Clock& clock_;             // that all processors share
  Sync sync_ = Sync::kFast;
  StepTimes times_;
  Waiter waiter_;
  /// Of the body's steps, and the head's; twice, as the pass before may not be learnt from yet.
  std::array<std::array<std::vector<Flight>, 2>, 2> flights_;
  size_t turn_ = 0;
  std::optional<Pass> unsettled_;
  std::vector<int> control_cpus_;  // control_cpus() of processor.h
  std::vector<size_t> next_;       // by processor: how many of its steps are submitted
  std::vector<Nanos> tail_;        // by processor: when all that is submitted is expected to be done
  std::vector<bool> unflushed_;    // by processor
  std::vector<Binding> moved_inputs_;
  std::vector<int> together_;  // steps with one interval, while learn() looks at them
  std::vector<Nanos> busy_;    // by processor, in one pass
  std::vector<ProcessorUse> use_;
  std::vector<Pace> pace_;
  int failed_ = -1;
  Trace* trace_ = nullptr;
};

}  // namespace hetero
