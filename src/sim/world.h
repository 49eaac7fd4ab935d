// Virtual time: what happens on a simulated chip, event by event. Queues of work on processors,
// memory bandwidth that those who run at the same moment share, energy, a game that wants the GPU,
// and the control thread, whose every action takes time of its own.
//
// Deterministic: integer nanoseconds, and no more of floating point than + - * /, which IEEE 754
// defines to the last bit. One thread, the control thread; only now() may be called by others.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "processor/processor.h"
#include "sim/cost.h"
#include "sim/soc.h"

namespace hetero {

class World : public Clock {
 public:
  explicit World(Soc soc);

  const Soc& soc() const { return soc_; }

  // Clock
  Nanos now() override { return Nanos(now_.load(std::memory_order_relaxed)); }
  /// Sleeps end on multiples of the system's grain, counted from their start.
  void sleep_until(Nanos time) override;
  void relax() override;

  /// The control thread is busy for so long.
  void work(Nanos time);
  /// The control thread is asleep in a driver's call for so long.
  void block(Nanos time) { advance(now() + time); }

  /// Appends to the queue of processor `index` (of soc().processors). `finish` is called when the
  /// work is done, in virtual time; its error fails the processor from there on.
  uint64_t enqueue(size_t processor, const Cost& cost, std::function<Status()> finish);
  bool done(size_t processor, uint64_t ticket) const;
  /// Whether nothing of the engine's is queued or running.
  bool idle(size_t processor) const { return queues_[processor].completed == queues_[processor].issued; }
  Interval interval(size_t processor, uint64_t ticket) const;
  Status status(size_t processor) const { return queues_[processor].error; }
  /// Time passes until the ticket is done, or the processor has failed.
  Status run_until_done(size_t processor, uint64_t ticket);

  /// A game begins to draw frames, each `frame_ms` of work on the first GPU (0: as the chip's file
  /// says). Needs Soc::game.
  Status start_game(double frame_ms = 0.0);
  struct GameSeen {
    int64_t frames = 0;   // finished
    int64_t dropped = 0;  // that could not begin in time
    Nanos time{};
    double fps() const {
      return time.count() > 0 ? static_cast<double>(frames) * 1e9 / static_cast<double>(time.count()) : 0.0;
    }
  };
  /// Since the start or the last call.
  GameSeen take_game();

  /// Joules since the start.
  struct Energy {
    std::vector<double> processors;
    double dram = 0.0;
    double control = 0.0;
    double base = 0.0;
    double total() const;
  };
  const Energy& energy() const { return energy_; }
  /// Bytes to and from memory since the start.
  double bytes() const { return bytes_; }

 private:
  struct Task {
    Cost cost;
    std::function<Status()> finish;
    bool game = false;
  };
  struct Queue {
    std::array<std::deque<Task>, 2> apps;  // the engine's, the game's
    size_t turn = 0;                       // whose burst it is
    std::deque<Task> taken;                // by the hardware, which works them off in order
    bool running = false;
    double left = 0.0;      // of the running task, 1 to 0
    double duration = 0.0;  // ns that all of it would take as things are
    Nanos begin{};
    uint64_t issued = 0;
    uint64_t completed = 0;
    std::array<Interval, Timeline::kKeptIntervals> intervals{};
    Status error;
  };

  void advance(Nanos target);
  void start_tasks();
  void share_memory();
  void pass(Nanos time);
  void complete(size_t processor);
  void tick();

  Soc soc_;
  std::atomic<int64_t> now_ = 0;
  std::vector<Queue> queues_;
  Energy energy_;
  double bytes_ = 0.0;
  size_t depth_ = 1;
  size_t burst_ = 1;

  bool game_on_ = false;
  size_t game_gpu_ = 0;
  double batch_ns_ = 0.0;
  size_t batches_ = 0;
  int64_t frame_number_ = 0;
  Nanos game_start_{};
  Nanos next_frame_{};
  size_t batches_left_ = 0;  // of the frame being drawn
  GameSeen seen_;
  Nanos seen_since_{};
};

}  // namespace hetero
