#include "profile/profiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <tuple>

#include "base/threads.h"
#include "profile/bench_pass.h"
#include "profile/profile_tasks.h"

namespace hetero {
namespace {

constexpr int kHandoffRounds = 25;

/// Reorders `v`, which is not empty.
template <class T>
T median(std::vector<T>& v) {
  const auto at = v.begin() + static_cast<int64_t>(v.size() / 2);
  std::nth_element(v.begin(), at, v.end());
  return *at;
}

/// As the executor's fast synchronization: asleep for half of what the last wait for this processor took,
/// which was for the same work, then looking again and again. A thread that only looks would slow
/// stand-ins, which need its core.
class FastWait {
 public:
  Status operator()(Processor& processor, const Fence& fence) {
    Clock& clock = processor.clock();
    const Nanos begin = clock.now();
    Nanos& last = last_[&processor];
    if (last > kShortest) {
      clock.sleep_until(begin + last / 2);
    }
    while (!fence.done()) {
      clock.relax();
    }
    last = clock.now() - begin;
    return fence.wait();
  }

 private:
  static constexpr Nanos kShortest = std::chrono::microseconds(100);
  std::map<const Processor*, Nanos> last_;
};

class Profiler {
 public:
  Profiler(const Graph& graph, std::span<Processor* const> processors, const ProfilerOptions& options)
      : graph_(graph),
        processors_(processors),
        options_(options),
        context_(context_for(graph, options)),
        tasks_(graph, processors, options_.lengths, context_, options.grid) {
    if (options_.sync.empty()) {
      options_.sync = {{"fast", FastWait()}, {"driver", [](Processor& processor, const Fence& fence) {
                                                HETERO_RETURN_IF_ERROR(processor.finish());
                                                return fence.wait();
                                              }}};
    }
  }

  Result<Profile> run(const ProfileIdentity& identity, const Profile* known) {
    const ScopedAffinity affinity(control_cpus({processors_.begin(), processors_.end()}));
    start(identity, known);
    const std::vector<ProfileTask> tasks = tasks_.all();
    deadline_ = processors_[0]->clock().now() + options_.time_limit;
    int done = 0;
    for (const ProfileTask& task : tasks) {
      if (options_.progress) {
        options_.progress("measuring " + tasks_.describe(task), done, static_cast<int>(tasks.size()));
      }
      ++done;
      if (is_done(task)) {
        continue;
      }
      Status status = stop();
      if (status.ok()) {
        status = measure(task);
      }
      if (status.code() == Code::kCancelled) {
        profile_.complete = false;
        break;
      }
      HETERO_RETURN_IF_ERROR(status.with_prefix("profiling " + tasks_.describe(task)));
      one_done_ = true;
      if (options_.save) {
        HETERO_RETURN_IF_ERROR(options_.save(profile_));
      }
    }
    if (options_.progress) {
      options_.progress("measuring", static_cast<int>(tasks.size()), static_cast<int>(tasks.size()));
    }
    return profile_;
  }

 private:
  static int64_t context_for(const Graph& graph, const ProfilerOptions& options) {
    const int64_t context = std::max(options.context, options.lengths.back() + kChunkPosition);
    return graph.shape.context > 0 ? std::min(context, std::max(graph.shape.context, options.lengths.back()))
                                   : context;
  }

  void start(const ProfileIdentity& identity, const Profile* known) {
    if (known != nullptr) {
      profile_ = *known;
    }
    profile_.identity = identity;
    profile_.complete = true;
    for (size_t p = 0; p < processors_.size(); ++p) {
      const ProcessorInfo& info = processors_[p]->info();
      passes_.emplace_back();
      if (profile_.find(info.id) != nullptr) {
        continue;
      }
      ProfiledProcessor out;
      out.id = info.id;
      out.kind = info.kind;
      out.name = info.name;
      out.provider = info.provider;
      out.driver = info.driver;
      out.stand_in = info.stand_in;
      out.setting = p < options_.settings.size() ? options_.settings[p] : "";
      out.static_shapes = processors_[p]->traits().static_shapes;
      out.copies_weights = processors_[p]->traits().copies_weights;
      out.lengths = options_.lengths;
      out.grid = options_.grid;
      profile_.processors.push_back(std::move(out));
    }
  }

  /// An error, kCancelled, once measuring must end.
  Status stop() const {
    const bool wanted = options_.cancel != nullptr && options_.cancel->load();
    return wanted || processors_[0]->clock().now() >= deadline_ ? cancelled("stopped") : Status();
  }
  /// The same between two passes or compilations of one piece, whose measurements are then dropped. The
  /// first piece of a call may take longer than the time limit: the next call would get no further.
  Status stop_inside() const {
    const bool wanted = options_.cancel != nullptr && options_.cancel->load();
    return wanted || one_done_ ? stop() : Status();
  }

  ProfiledProcessor& profiled(size_t p) {
    return *std::find_if(profile_.processors.begin(), profile_.processors.end(),
                         [&](const ProfiledProcessor& q) { return q.id == processors_[p]->info().id; });
  }
  const std::string& id(size_t p) const { return processors_[p]->info().id; }

  bool has_point(const ProfiledProcessor& p, const Work& work, int64_t tokens, int64_t context,
                 bool exchanged) const {
    return std::any_of(p.series.begin(), p.series.end(), [&](const Series& s) {
      return s.work == work && std::any_of(s.points.begin(), s.points.end(), [&](const Point& point) {
               return point.tokens == tokens && point.context == context && point.exchanged == exchanged;
             });
    });
  }

  bool is_done(const ProfileTask& task) {
    if (task.kind == ProfileTask::kHandoff) {
      return std::any_of(profile_.handoffs.begin(), profile_.handoffs.end(), [&](const Handoff& h) {
        return h.from == id(task.from) && h.to == id(task.to) && h.visits > task.visit;
      });
    }
    if (task.kind == ProfileTask::kTogether) {
      std::vector<std::string> ids;
      for (const size_t p : tasks_.members(task.set)) {
        ids.push_back(id(p));
      }
      const Share* share = profile_.share(ids[0], ids);
      return share != nullptr && share->visits > task.visit;
    }
    const std::vector<size_t> members = tasks_.members(task.set);
    return std::all_of(members.begin(), members.end(), [&](size_t p) { return is_measured(task, p); });
  }

  bool is_measured(const ProfileTask& task, size_t p) {
    const std::vector<OpSlice> slices = tasks_.slices(task, p);
    return std::all_of(slices.begin(), slices.end(), [&](const OpSlice& s) {
      return has_point(profiled(p), work_of(graph_, s.op, s.begin, s.end), task.tokens,
                       tasks_.context_of(s.op, task), s.exchanged);
    });
  }

  Status measure(const ProfileTask& task) {
    switch (task.kind) {
      case ProfileTask::kHandoff:
        return measure_handoff(task);
      case ProfileTask::kTogether:
        return measure_together(task);
      default:
        return measure_ops(task);
    }
  }

  Result<BenchPass*> pass(size_t p) {
    if (passes_[p] == nullptr) {
      HETERO_TRY(passes_[p], BenchPass::create(graph_, *processors_[p], options_.lengths.back(), context_));
    }
    return passes_[p].get();
  }

  Status prepare(BenchPass& bench, std::span<const OpSlice> slices, int64_t tokens) {
    for (const OpSlice& s : slices) {
      HETERO_RETURN_IF_ERROR(stop_inside());
      HETERO_RETURN_IF_ERROR(bench.prepare(std::span(&s, 1), tokens));
    }
    return {};
  }

  bool is_product(const OpSlice& s) const { return graph_.op(s.op).is<Linear>(); }

  /// Times by work, context and order of operands.
  using Samples = std::map<std::tuple<Work, int64_t, bool>, std::vector<Nanos>>;

  /// Runs the slices once and sorts the times by work.
  Status run_round(BenchPass& bench, const ProfileTask& task, std::span<const OpSlice> slices,
                   Samples& samples) {
    std::vector<std::vector<OpSlice>> rows = {{slices.begin(), slices.end()}};
    if (options_.alone) {
      const auto others = std::stable_partition(rows[0].begin(), rows[0].end(),
                                                [&](const OpSlice& s) { return is_product(s); });
      const std::vector<OpSlice> products(rows[0].begin(), others);
      rows[0].erase(rows[0].begin(), others);
      for (const OpSlice& s : products) {
        rows.push_back({s});
      }
    } else if (bench.batched()) {  // times of single submissions are not to be had
      std::map<Work, std::vector<OpSlice>> of_work;
      for (const OpSlice& s : slices) {
        of_work[work_of(graph_, s.op, s.begin, s.end)].push_back(s);
      }
      rows.clear();
      for (auto& [work, same] : of_work) {
        rows.push_back(std::move(same));
      }
    }
    for (const std::vector<OpSlice>& row : rows) {
      Clock& clock = bench.processor().clock();
      const Nanos begin = clock.now();
      HETERO_RETURN_IF_ERROR(bench.submit(row, task.tokens, task.position));
      HETERO_TRY(std::vector<OpTime> times, bench.collect());
      if (options_.alone && !row.empty() && is_product(row[0])) {
        times[0].time = clock.now() - begin;
      }
      for (size_t i = 0; i < times.size(); ++i) {
        samples[{work_of(graph_, row[i].op, row[i].begin, row[i].end), tasks_.context_of(row[i].op, task),
                 row[i].exchanged}]
            .push_back(times[i].time);
      }
    }
    return {};
  }

  /// The task's operators on its processors in turns, `rounds` times behind a first one that warms up.
  Status measure_ops(const ProfileTask& task) {
    struct Run {
      size_t processor;
      BenchPass* bench;
      std::vector<OpSlice> slices;
      Samples samples;
    };
    std::vector<Run> runs;
    for (const size_t p : tasks_.members(task.set)) {
      if (is_measured(task, p)) {
        continue;
      }
      HETERO_TRY(BenchPass* const bench, pass(p));
      runs.push_back({p, bench, tasks_.slices(task, p), {}});
      HETERO_RETURN_IF_ERROR(prepare(*bench, runs.back().slices, task.tokens));
    }
    for (int round = 0; round <= options_.rounds; ++round) {
      if (const Status status = stop_inside(); !status.ok()) {
        if (round > 1) {
          break;  // enough to go by
        }
        return status;
      }
      for (Run& run : runs) {
        Samples warm;
        HETERO_RETURN_IF_ERROR(run_round(*run.bench, task, run.slices, round > 0 ? run.samples : warm)
                                   .with_prefix(id(run.processor)));
      }
    }
    for (const Run& run : runs) {
      HETERO_RETURN_IF_ERROR(keep(task, run.processor, *run.bench, run.samples));
    }
    return {};
  }

  Status keep(const ProfileTask& task, size_t p, BenchPass& bench, const Samples& samples) {
    ProfiledProcessor& out = profiled(p);
    for (const auto& [key, times] : samples) {
      const auto& [work, context, exchanged] = key;
      if (has_point(out, work, task.tokens, context, exchanged)) {
        continue;
      }
      auto series = std::find_if(out.series.begin(), out.series.end(),
                                 [&of = work](const Series& s) { return s.work == of; });
      if (series == out.series.end()) {
        out.series.push_back({work, {}});
        series = out.series.end() - 1;
      }
      const Summary summary = summary_of(times);
      series->points.push_back(
          {task.tokens, context, exchanged, summary.median, summary.spread, summary.samples});
      std::sort(series->points.begin(), series->points.end(), [](const Point& a, const Point& b) {
        return std::tie(a.exchanged, a.tokens, a.context) < std::tie(b.exchanged, b.tokens, b.context);
      });
    }
    out.submit = summary_of(bench.submit_times()).median;
    if (out.copy_gbps == 0.0) {
      HETERO_TRY(out.copy_gbps, bench.copy_gbps());
    }
    if (task.kind == ProfileTask::kOrder) {
      bench.compile_times().clear();  // those of the usual order stand for both
    }
    keep_compile_times(p, bench);
    forget(bench);
    return {};
  }

  /// Graphs are copies of weights; as long as they are few they stay, since where a device takes any
  /// number of tokens the next length has the same ones.
  static void forget(BenchPass& bench) {
    if (bench.processor().traits().static_shapes && bench.compiled_weights() > kEnoughWeights) {
      bench.forget_executables();
    }
  }

  /// The median of each shape that had to be compiled, where it is worth telling.
  void keep_compile_times(size_t p, BenchPass& bench) {
    std::map<std::pair<Work, int64_t>, std::vector<Nanos>> of_shape;
    for (const CompileTime& c : bench.compile_times()) {
      of_shape[{c.work, c.tokens}].push_back(c.time);
    }
    bench.compile_times().clear();
    ProfiledProcessor& out = profiled(p);
    for (const auto& [shape, times] : of_shape) {
      if (out.static_shapes) {
        out.compile_times.push_back({shape.first, shape.second, summary_of(times).median});
      }
    }
  }

  /// An operator of about 0.2 ms, as hand-offs have them: long enough that its end is waited for.
  struct UsualOp {
    OpSlice slice;
    int64_t tokens;
    Nanos in_queue;  // what it takes there
  };
  std::optional<UsualOp> usual_op(size_t p) {
    std::optional<UsualOp> best;
    double distance = 0.0;
    for (const OpSlice& s : tasks_.slices({}, p)) {
      if (graph_.op(s.op).layer > 0 || graph_.op(s.op).is<Embed>()) {
        continue;
      }
      for (const int64_t tokens : {int64_t{1}, options_.lengths.back() >= 32 ? int64_t{32} : int64_t{1}}) {
        const auto t = time_of(profiled(p), work_of(graph_, s.op, s.begin, s.end), tokens, tokens);
        const double d = t ? std::abs(std::log(std::max(1.0, t->ns) / 2e5)) : 1e9;
        if (t && (!best || d < distance)) {
          best = {tasks_.slice(p, s.op, s.begin, s.end, tokens), tokens, Nanos(static_cast<int64_t>(t->ns))};
          distance = d;
        }
      }
    }
    return best;
  }

  Status measure_handoff(const ProfileTask& task) {
    const auto a = usual_op(task.from);
    const auto b = usual_op(task.to);
    if (!a || !b) {
      return {};  // one of them can run nothing of this model
    }
    HETERO_TRY(BenchPass* const from, pass(task.from));
    HETERO_TRY(BenchPass* const to, pass(task.to));
    HETERO_RETURN_IF_ERROR(prepare(*from, std::span(&a->slice, 1), a->tokens));
    HETERO_RETURN_IF_ERROR(prepare(*to, std::span(&b->slice, 1), b->tokens));
    for (const SyncMode& mode : options_.sync) {
      std::vector<Nanos> between;
      std::vector<Nanos> to_host;
      for (int round = 0; round < kHandoffRounds; ++round) {
        HETERO_RETURN_IF_ERROR(from->submit(std::span(&a->slice, 1), a->tokens, 0));
        HETERO_RETURN_IF_ERROR(mode.wait(from->processor(), from->last()));
        const Nanos seen = from->processor().clock().now();
        HETERO_RETURN_IF_ERROR(to->submit(std::span(&b->slice, 1), b->tokens, 0));
        HETERO_RETURN_IF_ERROR(mode.wait(to->processor(), to->last()));
        HETERO_TRY(const std::vector<OpTime> first, from->collect());
        HETERO_TRY(const std::vector<OpTime> second, to->collect());
        if (round >= 5) {
          const Nanos end = first[0].interval.end;
          const Interval& after = second[0].interval;
          // Work that begins behind a pause takes longer than in a queue: threads wake up, caches are cold.
          between.push_back(std::max({Nanos{}, after.begin - end, after.end - b->in_queue - end}));
          to_host.push_back(std::max(Nanos{}, seen - end));
        }
      }
      keep_handoff({id(task.from), id(task.to), mode.name}, between);
      const Handoff* host = find_handoff({id(task.from), kHost, mode.name});
      if (host == nullptr || host->visits <= task.visit) {  // whichever pair is the first of this visit
        keep_handoff({id(task.from), kHost, mode.name}, to_host);
      }
    }
    return {};
  }

  using HandoffKey = std::array<std::string, 3>;  // from, to, sync

  Handoff* find_handoff(const HandoffKey& key) {
    const auto found =
        std::find_if(profile_.handoffs.begin(), profile_.handoffs.end(), [&](const Handoff& h) {
          return HandoffKey{h.from, h.to, h.sync} == key;
        });
    return found == profile_.handoffs.end() ? nullptr : &*found;
  }

  /// The median of all visits' medians, as for contention.
  void keep_handoff(const HandoffKey& key, const std::vector<Nanos>& times) {
    Handoff* known = find_handoff(key);
    Handoff& out = known != nullptr
                       ? *known
                       : profile_.handoffs.emplace_back(Handoff{key[0], key[1], key[2], {}, {}, 0});
    std::vector<Summary>& visits = handoffs_[key];
    visits.resize(static_cast<size_t>(out.visits), {out.median, out.spread, 0});  // of an earlier call
    visits.push_back(summary_of(times));
    std::vector<Nanos> medians;
    std::vector<Nanos> spreads;
    for (const Summary& v : visits) {
      medians.push_back(v.median);
      spreads.push_back(v.spread);
    }
    out.median = median(medians);
    out.spread = median(spreads);
    out.visits = static_cast<int>(visits.size());
  }

  /// Each of the set its own part of the columns of all linear operators, all at once; what of it
  /// ran while all others worked counts.
  struct Load {
    Bytes bytes = 0;
    Nanos time{};
  };
  Result<std::vector<Load>> load(const std::vector<size_t>& running, const std::vector<size_t>& set,
                                 int64_t tokens) {
    constexpr int kRepeats = 3;  // so that all are at work for most of the time
    std::vector<std::vector<OpSlice>> slices(processors_.size());
    for (size_t j = 0; j < set.size(); ++j) {
      for (const OpSlice& s : tasks_.slices({.tokens = tokens}, set[j])) {
        const int64_t grids = s.end / options_.grid;
        const auto count = static_cast<int64_t>(set.size());
        const auto at = static_cast<int64_t>(j);
        const int64_t begin = grids * at / count * options_.grid;
        const int64_t end = at + 1 == count ? s.end : grids * (at + 1) / count * options_.grid;
        if (graph_.op(s.op).is<Linear>() && begin < end) {
          slices[set[j]].push_back(tasks_.slice(set[j], s.op, begin, end, tokens));
        }
      }
    }
    for (const size_t p : running) {
      HETERO_TRY(BenchPass* const bench, pass(p));
      HETERO_RETURN_IF_ERROR(prepare(*bench, slices[p], tokens));
      HETERO_RETURN_IF_ERROR(bench->submit(slices[p], tokens, 0));  // warms up
      HETERO_RETURN_IF_ERROR(bench->collect().status());
    }
    HETERO_RETURN_IF_ERROR(stop_inside());
    for (int i = 0; i < kRepeats; ++i) {
      for (const size_t p : running) {
        HETERO_RETURN_IF_ERROR(passes_[p]->submit(slices[p], tokens, 0));
      }
    }
    std::vector<std::vector<OpTime>> times;
    Nanos begin{};
    Nanos end = Nanos::max();
    for (const size_t p : running) {
      HETERO_TRY(auto t, passes_[p]->collect());
      if (!t.empty()) {
        begin = std::max(begin, t.front().interval.begin);
        end = std::min(end, t.back().interval.end);
      }
      times.push_back(std::move(t));
    }
    std::vector<Load> loads(running.size());
    for (size_t j = 0; j < running.size(); ++j) {
      for (size_t i = 0; i < times[j].size(); ++i) {
        const OpTime& t = times[j][i];
        const OpSlice& s = slices[running[j]][i % slices[running[j]].size()];
        if (begin >= end || (t.interval.end > begin && t.interval.begin < end)) {  // or they never met
          loads[j].bytes += weight_bytes(graph_, s.op, s.begin, s.end);
          loads[j].time += t.time;
        }
      }
      passes_[running[j]]->compile_times().clear();
    }
    return loads;
  }

  Status measure_together(const ProfileTask& task) {
    std::vector<size_t> set;
    for (const size_t p : tasks_.members(task.set)) {
      if (!tasks_.slices({}, p).empty()) {
        set.push_back(p);
      }
    }
    if (set.empty()) {
      return {};
    }
    const int64_t many =
        *std::min_element(options_.lengths.begin(), options_.lengths.end(),
                          [](int64_t a, int64_t b) { return std::abs(a - 128) < std::abs(b - 128); });
    const auto rate = [](const Load& l) {
      return l.time > Nanos{} ? static_cast<double>(l.bytes) / static_cast<double>(l.time.count()) : 0.0;
    };
    std::vector<Share> shares;
    HETERO_TRY(const std::vector<Load> one_row, load(set, set, 1));
    for (size_t j = 0; j < set.size(); ++j) {
      shares.push_back({id(set[j]), rate(one_row[j]), 1.0, 1});
    }
    if (set.size() > 1) {
      HETERO_TRY(const std::vector<Load> rows, load(set, set, many));
      for (size_t j = 0; j < set.size(); ++j) {
        HETERO_TRY(const std::vector<Load> alone, load({set[j]}, set, many));
        shares[j].slowdown = rate(rows[j]) > 0.0 ? rate(alone[0]) / rate(rows[j]) : 1.0;
      }
    }
    keep_together(std::move(shares));
    for (const size_t p : set) {
      forget(*passes_[p]);
    }
    return {};
  }

  /// Medians of all visits, since whatever else the machine does meanwhile looks like contention.
  void keep_together(std::vector<Share> shares) {
    std::sort(shares.begin(), shares.end(), [](const Share& a, const Share& b) { return a.id < b.id; });
    const auto same_ids = [&](const Together& t) {
      return std::equal(t.processors.begin(), t.processors.end(), shares.begin(), shares.end(),
                        [](const Share& a, const Share& b) { return a.id == b.id; });
    };
    auto out = std::find_if(profile_.together.begin(), profile_.together.end(), same_ids);
    if (out == profile_.together.end()) {
      profile_.together.push_back({shares});
      out = profile_.together.end() - 1;
      for (Share& s : out->processors) {
        s.visits = 0;
      }
    }
    std::vector<std::vector<Share>>& visits = together_[static_cast<size_t>(out - profile_.together.begin())];
    visits.resize(static_cast<size_t>(out->processors[0].visits), out->processors);  // of an earlier call
    visits.push_back(std::move(shares));
    for (size_t j = 0; j < out->processors.size(); ++j) {
      std::vector<double> gbps;
      std::vector<double> slowdowns;
      for (const std::vector<Share>& visit : visits) {
        gbps.push_back(visit[j].gbps);
        slowdowns.push_back(visit[j].slowdown);
      }
      out->processors[j] = {out->processors[j].id, median(gbps), std::max(1.0, median(slowdowns)),
                            static_cast<int>(visits.size())};
    }
  }

  const Graph& graph_;
  const std::span<Processor* const> processors_;
  ProfilerOptions options_;
  const int64_t context_;
  const ProfileTasks tasks_;
  Nanos deadline_{};
  bool one_done_ = false;  // of the pieces, in this call
  Profile profile_;
  std::vector<std::unique_ptr<BenchPass>> passes_;              // by processor; made when first needed
  std::map<HandoffKey, std::vector<Summary>> handoffs_;         // visits by from, to, sync
  std::map<size_t, std::vector<std::vector<Share>>> together_;  // visits by place in the profile
};

}  // namespace

Summary summary_of(std::vector<Nanos> samples) {
  if (samples.empty()) {
    return {};
  }
  const auto spread_around = [&](Nanos center) {
    std::vector<Nanos> distances;
    for (const Nanos s : samples) {
      distances.push_back(s > center ? s - center : center - s);
    }
    return median(distances);
  };
  Summary out;
  out.median = median(samples);
  out.spread = spread_around(out.median);
  // A spread of almost nothing would make outliers of everything.
  const Nanos limit = std::max(5 * out.spread, out.median / 50);
  std::erase_if(samples, [&](Nanos s) { return s > out.median + limit || s < out.median - limit; });
  out.median = median(samples);
  out.spread = spread_around(out.median);
  out.samples = static_cast<int>(samples.size());
  return out;
}

Result<Profile> measure(const Graph& graph, std::span<Processor* const> processors,
                        const ProfileIdentity& identity, const ProfilerOptions& options,
                        const Profile* known) {
  if (processors.empty() || options.lengths.empty()) {
    return invalid_argument("profiling needs a processor and a length");
  }
  return Profiler(graph, processors, options).run(identity, known);
}

}  // namespace hetero
