#include "sim/world.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace hetero {
namespace {

double number(Nanos t) {
  return static_cast<double>(t.count());
}

/// Whole nanoseconds, forgiving what sums of fractions are off by.
Nanos rounded_up(double ns) {
  return Nanos(static_cast<int64_t>(std::ceil(std::max(0.0, ns - 1e-3))));
}

}  // namespace

double World::Energy::total() const {
  double sum = dram + control + base;
  for (const double p : processors) {
    sum += p;
  }
  return sum;
}

World::World(Soc soc) : soc_(std::move(soc)), queues_(soc_.processors.size()) {
  energy_.processors.resize(queues_.size());
  depth_ = std::max<size_t>(1, static_cast<size_t>(soc_.game.queue_depth));
  burst_ = std::max<size_t>(1, static_cast<size_t>(soc_.game.burst));
}

void World::sleep_until(Nanos time) {
  if (time <= now()) {
    return;
  }
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(soc_.sleep_grain_us * 1e3));
  const int64_t grains = ((time - now()).count() + grain - 1) / grain;
  advance(now() + Nanos(grains * grain));
}

void World::relax() {
  work(rounded_up(std::max(1e-3, soc_.poll_us) * 1e3));
}

void World::work(Nanos time) {
  energy_.control += soc_.control_watts * number(time) * 1e-9;
  advance(now() + time);
}

uint64_t World::enqueue(size_t processor, const Cost& cost, std::function<Status()> finish) {
  Queue& q = queues_[processor];
  q.apps[0].push_back({cost, std::move(finish), false});
  start_tasks();
  return ++q.issued;
}

bool World::done(size_t processor, uint64_t ticket) const {
  const Queue& q = queues_[processor];
  return q.completed >= ticket || !q.error.ok();
}

Interval World::interval(size_t processor, uint64_t ticket) const {
  const Queue& q = queues_[processor];
  const bool kept = ticket > 0 && ticket <= q.completed && ticket + Timeline::kKeptIntervals > q.completed;
  return kept ? q.intervals[ticket % Timeline::kKeptIntervals] : Interval{};
}

Status World::run_until_done(size_t processor, uint64_t ticket) {
  const Queue& q = queues_[processor];
  if (ticket > q.issued) {
    return internal_error("a wait for work that was never submitted");
  }
  while (!done(processor, ticket)) {
    start_tasks();
    share_memory();
    advance(now() + std::max(Nanos(1), rounded_up(q.left * q.duration)));
  }
  return q.error;
}

Status World::start_game(double frame_ms) {
  const SocGame& g = soc_.game;
  const auto gpu = std::find_if(soc_.processors.begin(), soc_.processors.end(),
                                [](const SocProcessor& p) { return p.kind == "gpu"; });
  if (g.fps <= 0.0 || gpu == soc_.processors.end()) {
    return invalid_argument(soc_.name + " describes no game, or has no GPU for it");
  }
  game_gpu_ = static_cast<size_t>(gpu - soc_.processors.begin());
  batches_ = static_cast<size_t>(g.batches);
  batch_ns_ = (frame_ms > 0.0 ? frame_ms : g.frame_ms) * 1e6 / g.batches;
  game_on_ = true;
  game_start_ = seen_since_ = next_frame_ = now();
  frame_number_ = 0;
  return {};
}

World::GameSeen World::take_game() {
  GameSeen seen = seen_;
  seen.time = now() - seen_since_;
  seen_ = {};
  seen_since_ = now();
  return seen;
}

/// A frame's time has come. If the one before is not done, this one is left out.
void World::tick() {
  ++frame_number_;
  next_frame_ =
      game_start_ + Nanos(static_cast<int64_t>(static_cast<double>(frame_number_) * 1e9 / soc_.game.fps));
  if (batches_left_ > 0) {
    ++seen_.dropped;
    return;
  }
  batches_left_ = batches_;
  for (size_t i = 0; i < batches_; ++i) {
    queues_[game_gpu_].apps[1].push_back({{batch_ns_, 0.0}, {}, true});
  }
}

void World::start_tasks() {
  for (Queue& q : queues_) {
    while (q.taken.size() < depth_ && !(q.apps[0].empty() && q.apps[1].empty())) {
      if (q.apps[q.turn].empty()) {
        q.turn = 1 - q.turn;
      }
      std::deque<Task>& app = q.apps[q.turn];
      for (size_t i = 0; i < burst_ && !app.empty() && q.taken.size() < depth_; ++i) {
        q.taken.push_back(std::move(app.front()));
        app.pop_front();
      }
      q.turn = 1 - q.turn;
    }
    if (!q.running && !q.taken.empty()) {
      q.running = true;
      q.left = 1.0;
      q.begin = now();
    }
  }
}

/// Max-min fair: nobody gets more than it can use, and what it leaves goes to the others.
void World::share_memory() {
  struct Demand {
    size_t index;
    double wanted;  // bytes per nanosecond
  };
  std::vector<Demand> demands;
  for (size_t i = 0; i < queues_.size(); ++i) {
    Queue& q = queues_[i];
    if (!q.running) {
      continue;
    }
    const Cost& c = q.taken.front().cost;
    q.duration = std::max(1.0, c.compute_ns);
    if (c.bytes > 0.0) {
      demands.push_back({i, std::min(soc_.processors[i].gbps, c.bytes / q.duration)});
    }
  }
  std::stable_sort(demands.begin(), demands.end(),
                   [](const Demand& a, const Demand& b) { return a.wanted < b.wanted; });
  double free = soc_.dram_gbps;
  for (size_t i = 0; i < demands.size(); ++i) {
    const double got = std::min(demands[i].wanted, free / static_cast<double>(demands.size() - i));
    free -= got;
    Queue& q = queues_[demands[i].index];
    q.duration = std::max(q.duration, q.taken.front().cost.bytes / got);
  }
}

void World::pass(Nanos time) {
  const double ns = number(time);
  energy_.base += soc_.base_watts * ns * 1e-9;
  for (size_t i = 0; i < queues_.size(); ++i) {
    Queue& q = queues_[i];
    if (!q.running) {
      continue;
    }
    const Cost& c = q.taken.front().cost;
    const double part = std::min(q.left, ns / q.duration);
    q.left -= part;
    bytes_ += part * c.bytes;
    energy_.dram += part * c.bytes * soc_.dram_pj_per_byte * 1e-12;
    const SocProcessor& p = soc_.processors[i];
    energy_.processors[i] +=
        (p.stall_watts + (p.watts - p.stall_watts) * std::min(1.0, c.compute_ns / q.duration)) * ns * 1e-9;
  }
  now_.store(now_.load(std::memory_order_relaxed) + time.count(), std::memory_order_relaxed);
}

void World::complete(size_t processor) {
  Queue& q = queues_[processor];
  const Task task = std::move(q.taken.front());
  q.taken.pop_front();
  q.running = false;
  if (task.game) {
    if (--batches_left_ == 0) {
      ++seen_.frames;
    }
    return;
  }
  ++q.completed;
  q.intervals[q.completed % Timeline::kKeptIntervals] = {q.begin, now()};
  if (task.finish && q.error.ok()) {
    q.error = task.finish();
  }
}

void World::advance(Nanos target) {
  for (;;) {
    start_tasks();
    share_memory();
    Nanos next = target;
    for (const Queue& q : queues_) {
      if (q.running) {
        next = std::min(next, now() + rounded_up(q.left * q.duration));
      }
    }
    if (game_on_) {
      next = std::min(next, std::max(now(), next_frame_));
    }
    std::vector<size_t> ending;
    for (size_t i = 0; i < queues_.size(); ++i) {
      if (queues_[i].running && now() + rounded_up(queues_[i].left * queues_[i].duration) <= next) {
        ending.push_back(i);
      }
    }
    pass(next - now());
    for (const size_t i : ending) {
      complete(i);
    }
    const bool frame = game_on_ && next_frame_ <= now();
    if (frame) {
      tick();
    }
    if (ending.empty() && !frame && now() >= target) {
      return;
    }
  }
}

}  // namespace hetero
