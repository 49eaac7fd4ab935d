#include "profile/profiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "profile/bench_pass.h"

namespace hetero {
namespace {

constexpr Bytes kEnoughWeights = Bytes{256} << 20;  // more than any cache holds
constexpr int64_t kLongPass = 128;                  // tokens from which a few layers stand for all
constexpr int kFewLayers = 4;
constexpr int64_t kChunkPosition = 512;  // where a later part of a prompt begins
constexpr int kHandoffRounds = 25;
constexpr int kTogetherRounds = 3;

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

/// One thing to measure.
struct Task {
  enum Kind { kBody, kHead, kAttention, kHandoff, kTogether, kOrder } kind = kBody;
  size_t processor = 0;
  size_t other = 0;  // kHandoff
  int64_t tokens = 1;
  int64_t position = 0;
  int64_t parts = 1;  // kBody: linear operators only, the first 1/parts of their columns
  unsigned set = 0;   // kTogether: processors, as bits
  int op = 0;         // kOrder: this operator and those of equal work, in the less usual order of operands
};

class Profiler {
 public:
  Profiler(const Graph& graph, std::span<Processor* const> processors, const ProfilerOptions& options)
      : graph_(graph), processors_(processors), options_(options) {
    context_ = std::max(options.context, options.lengths.back() + kChunkPosition);
    if (graph.shape.context > 0) {
      context_ = std::min(context_, std::max(graph.shape.context, options.lengths.back()));
    }
    if (options_.sync.empty()) {
      options_.sync = {{"fast", FastWait()},
                       {"driver", [](Processor&, const Fence& fence) { return fence.wait(); }}};
    }
  }

  Result<Profile> run(const ProfileIdentity& identity, const Profile* known) {
    start(identity, known);
    const std::vector<Task> tasks = all_tasks();
    deadline_ = processors_[0]->clock().now() + options_.time_limit;
    int done = 0;
    for (const Task& task : tasks) {
      if (options_.progress) {
        options_.progress("measuring " + describe(task), done, static_cast<int>(tasks.size()));
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
      HETERO_RETURN_IF_ERROR(status.with_prefix("profiling " + describe(task)));
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

  /// The most valuable first: decode and a usual prompt, then what working together costs and gains,
  /// then other lengths, then contexts, then narrower slices.
  std::vector<Task> all_tasks() const {
    std::vector<int64_t> lengths = options_.lengths;
    const auto value = [](int64_t length) {
      return length == 1 ? 0 : length == 256 ? 1 : length == 32 ? 2 : 3;
    };
    std::stable_sort(lengths.begin(), lengths.end(), [&](int64_t a, int64_t b) {
      return value(a) != value(b) ? value(a) < value(b) : a > b;
    });
    std::vector<Task> tasks;
    const size_t count = processors_.size();
    const auto each_processor = [&](const Task& task) {
      for (size_t p = 0; p < count; ++p) {
        tasks.push_back(task);
        tasks.back().processor = p;
      }
    };
    const auto body = [&](int64_t tokens, int64_t parts) {
      each_processor({Task::kBody, 0, 0, tokens, 0, parts, 0});
    };
    const size_t first = std::min<size_t>(2, lengths.size());
    for (size_t i = 0; i < first; ++i) {
      body(lengths[i], 1);
      if (i == 0) {
        each_processor({Task::kHead, 0, 0, 1, 0, 1, 0});
      }
    }
    if (count > 1) {
      for (size_t a = 0; a < count; ++a) {
        for (size_t b = 0; b < count; ++b) {
          if (a != b) {
            tasks.push_back({Task::kHandoff, a, b, 1, 0, 1, 0});
          }
        }
      }
      for (unsigned set = 1; set < 1u << count; ++set) {
        tasks.push_back({Task::kTogether, 0, 0, 1, 0, 1, set});
      }
    }
    for (size_t i = first; i < lengths.size(); ++i) {
      body(lengths[i], 1);
    }
    each_processor({Task::kAttention, 0, 0, 1, context_ - 1, 1, 0});
    for (const int64_t tokens : lengths) {
      if (tokens > 1 && kChunkPosition + tokens <= context_) {
        each_processor({Task::kAttention, 0, 0, tokens, kChunkPosition, 1, 0});
      }
    }
    for (const int64_t parts : {2, 4}) {
      for (size_t i = 0; count > 1 && i < lengths.size(); ++i) {
        body(lengths[i], parts);
        if (i == 0) {
          each_processor({Task::kHead, 0, 0, 1, 0, parts, 0});
        }
      }
    }
    for (const int64_t tokens : {8, 16}) {  // between one row and the kernels for many
      for (size_t p = 0; p < count; ++p) {
        if (!processors_[p]->traits().static_shapes && tokens < options_.lengths.back()) {
          tasks.push_back({Task::kBody, p, 0, tokens, 0, 1, 0});
        }
      }
    }
    each_processor({Task::kHead, 0, 0, head_rows(), 0, 1, 0});
    for (size_t p = 0; p < count; ++p) {
      if (has_two_orders(p)) {
        add_order_tasks(p, lengths, tasks);
      }
    }
    return tasks;
  }

  int64_t head_rows() const { return std::min<int64_t>(BenchPass::kHeadRows, options_.lengths.back()); }

  /// Whether both orders of operands are worth measuring.
  bool has_two_orders(size_t p) const {
    return processors_[p]->traits().orders != OperandOrders::kOne && !processors_[p]->info().stand_in;
  }

  /// The other order of all that was measured of linear operators, those with the largest weights first.
  void add_order_tasks(size_t p, std::span<const int64_t> lengths, std::vector<Task>& tasks) const {
    std::vector<int> ops;  // the first of each kind of work
    std::set<Work> seen;
    for (int op = 0; op < static_cast<int>(graph_.ops.size()); ++op) {
      if (graph_.op(op).is<Linear>() && seen.insert(work_of(graph_, op)).second) {
        ops.push_back(op);
      }
    }
    std::stable_sort(ops.begin(), ops.end(), [&](int a, int b) {
      return weight_bytes(graph_, a, 0, graph_.output_cols(a)) >
             weight_bytes(graph_, b, 0, graph_.output_cols(b));
    });
    const int64_t of_head[] = {1, head_rows()};
    for (const int op : ops) {
      for (const int64_t tokens : graph_.in_head(op) ? std::span<const int64_t>(of_head) : lengths) {
        for (const int64_t parts : {1, 2, 4}) {
          if (parts == 1 || (processors_.size() > 1 && (!graph_.in_head(op) || tokens == 1))) {
            tasks.push_back({Task::kOrder, p, 0, tokens, 0, parts, 0, op});
          }
        }
      }
    }
  }

  std::string describe(const Task& task) const {
    const std::string rows = fmt::format("{} {}", task.tokens, task.tokens == 1 ? "row" : "rows");
    switch (task.kind) {
      case Task::kBody:
        return fmt::format("{}, {}{}", id(task.processor), rows,
                           task.parts == 1 ? "" : fmt::format(", 1/{} of the columns", task.parts));
      case Task::kHead:
        return fmt::format("{}, the output head, {}", id(task.processor), rows);
      case Task::kAttention:
        return fmt::format("{}, attention, {} at {}", id(task.processor), rows, task.position);
      case Task::kOrder:
        return fmt::format("{}, {}, {} in the other order of operands", id(task.processor), rows,
                           to_string(work_of(graph_, task.op, 0, columns_of(task.op, task.parts))));
      case Task::kHandoff:
        return fmt::format("{} handing over to {}", id(task.processor), id(task.other));
      case Task::kTogether: {
        std::string names;
        for (const size_t p : members(task.set)) {
          names += (names.empty() ? "" : " and ") + id(p);
        }
        return names + (members(task.set).size() > 1 ? " together" : " alone");
      }
    }
    return "";
  }

  std::vector<size_t> members(unsigned set) const {
    std::vector<size_t> out;
    for (size_t p = 0; p < processors_.size(); ++p) {
      if ((set >> p & 1u) != 0) {
        out.push_back(p);
      }
    }
    return out;
  }

  /// The layers that a pass of so many rows measures.
  int layers_for(int64_t tokens) const {
    const int layers = std::max(1, graph_.shape.layers);
    if (tokens >= kLongPass) {
      return std::min(layers, kFewLayers);
    }
    Bytes bytes = 0;
    int layer = 0;
    for (int op = 0; op < graph_.head_begin; ++op) {
      if (graph_.op(op).layer > layer) {
        if (bytes >= kEnoughWeights && layer >= 2) {
          break;
        }
        layer = graph_.op(op).layer;
      }
      bytes += graph_.op(op).is<Linear>() ? weight_bytes(graph_, op, 0, graph_.output_cols(op)) : 0;
    }
    return std::min(layers, layer + 1);
  }

  /// The first 1/parts of an operator's columns, on the grid.
  int64_t columns_of(int op, int64_t parts) const {
    const int64_t cols = graph_.output_cols(op);
    return parts == 1 ? cols : cols / parts / options_.grid * options_.grid;
  }

  /// Columns of an operator in the order of operands that is usual for so many rows.
  OpSlice slice(size_t p, int op, int64_t begin, int64_t end, int64_t tokens) const {
    return {op, begin, end,
            graph_.op(op).is<Linear>() &&
                usually_exchanged(processors_[p]->traits().orders, tokens, end - begin)};
  }

  /// What a task runs on its processor.
  std::vector<OpSlice> slices_of(const Task& task) const {
    std::vector<OpSlice> out;
    const bool order = task.kind == Task::kOrder;
    const bool head = task.kind == Task::kHead || (order && graph_.in_head(task.op));
    const int begin = head ? graph_.head_begin : 0;
    const int end = head ? static_cast<int>(graph_.ops.size()) : graph_.head_begin;
    const int layers = layers_for(task.tokens);
    for (int op = begin; op < end; ++op) {
      const Op& o = graph_.op(op);
      const bool wanted = order                           ? work_of(graph_, op) == work_of(graph_, task.op)
                          : task.kind == Task::kAttention ? o.is<Attention>()
                          : task.parts > 1                ? o.is<Linear>()
                                                          : true;
      if (o.layer >= layers || !wanted) {
        continue;
      }
      OpSlice s = slice(task.processor, op, 0, columns_of(op, task.parts), task.tokens);
      s.exchanged = s.exchanged != order;
      if (s.end > 0 && processors_[task.processor]->supports(graph_, s).ok()) {
        out.push_back(s);
      }
    }
    return out;
  }

  int64_t context_of(int op, const Task& task) const {
    const auto* attention = graph_.op(op).as<Attention>();
    if (attention == nullptr) {
      return 0;
    }
    const int64_t context = task.position + task.tokens;
    return attention->window > 0 ? std::min(context, std::max(attention->window, task.tokens)) : context;
  }

  bool has_point(const ProfiledProcessor& p, const Work& work, int64_t tokens, int64_t context,
                 bool exchanged) const {
    return std::any_of(p.series.begin(), p.series.end(), [&](const Series& s) {
      return s.work == work && std::any_of(s.points.begin(), s.points.end(), [&](const Point& point) {
               return point.tokens == tokens && point.context == context && point.exchanged == exchanged;
             });
    });
  }

  bool is_done(const Task& task) {
    if (task.kind == Task::kHandoff) {
      return std::any_of(profile_.handoffs.begin(), profile_.handoffs.end(), [&](const Handoff& h) {
        return h.from == id(task.processor) && h.to == id(task.other);
      });
    }
    if (task.kind == Task::kTogether) {
      std::vector<std::string> ids;
      for (const size_t p : members(task.set)) {
        ids.push_back(id(p));
      }
      return profile_.share(ids[0], ids) != nullptr;
    }
    const std::vector<OpSlice> slices = slices_of(task);
    return std::all_of(slices.begin(), slices.end(), [&](const OpSlice& s) {
      return has_point(profiled(task.processor), work_of(graph_, s.op, s.begin, s.end), task.tokens,
                       context_of(s.op, task), s.exchanged);
    });
  }

  Status measure(const Task& task) {
    switch (task.kind) {
      case Task::kHandoff:
        return measure_handoff(task);
      case Task::kTogether:
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

  /// Runs the slices `rounds` times behind a first time that warms up, and sorts the times by work.
  using Samples = std::map<std::tuple<Work, int64_t, bool>, std::vector<Nanos>>;  // context, exchanged
  Result<Samples> run_rounds(BenchPass& bench, const Task& task, std::span<const OpSlice> slices) {
    Samples samples;
    for (int round = 0; round <= options_.rounds; ++round) {
      if (const Status status = stop_inside(); !status.ok()) {
        if (round > 1) {
          break;  // enough to go by
        }
        return status;
      }
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
        for (size_t i = 0; round > 0 && i < times.size(); ++i) {
          samples[{work_of(graph_, row[i].op, row[i].begin, row[i].end), context_of(row[i].op, task),
                   row[i].exchanged}]
              .push_back(times[i].time);
        }
      }
    }
    return samples;
  }

  Status measure_ops(const Task& task) {
    const std::vector<OpSlice> slices = slices_of(task);
    if (slices.empty()) {
      return {};
    }
    HETERO_TRY(BenchPass* const bench, pass(task.processor));
    HETERO_RETURN_IF_ERROR(prepare(*bench, slices, task.tokens));
    HETERO_TRY(const auto samples, run_rounds(*bench, task, slices));
    ProfiledProcessor& out = profiled(task.processor);
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
    out.submit = summary_of(bench->submit_times()).median;
    if (out.copy_gbps == 0.0) {
      HETERO_TRY(out.copy_gbps, bench->copy_gbps());
    }
    if (task.kind == Task::kOrder) {
      bench->compile_times().clear();  // those of the usual order stand for both
    }
    keep_compile_times(task.processor, *bench);
    forget(*bench);
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
  std::optional<std::pair<OpSlice, int64_t>> usual_op(size_t p) {
    std::optional<std::pair<OpSlice, int64_t>> best;
    double distance = 0.0;
    for (const OpSlice& s : slices_of({Task::kBody, p, 0, 1, 0, 1, 0})) {
      if (graph_.op(s.op).layer > 0 || graph_.op(s.op).is<Embed>()) {
        continue;
      }
      for (const int64_t tokens : {int64_t{1}, options_.lengths.back() >= 32 ? int64_t{32} : int64_t{1}}) {
        const auto t = time_of(profiled(p), work_of(graph_, s.op, s.begin, s.end), tokens, tokens);
        const double d = t ? std::abs(std::log(std::max(1.0, t->ns) / 2e5)) : 1e9;
        if (t && (!best || d < distance)) {
          best = {slice(p, s.op, s.begin, s.end, tokens), tokens};
          distance = d;
        }
      }
    }
    return best;
  }

  Status measure_handoff(const Task& task) {
    const auto a = usual_op(task.processor);
    const auto b = usual_op(task.other);
    if (!a || !b) {
      return {};  // one of them can run nothing of this model
    }
    HETERO_TRY(BenchPass* const from, pass(task.processor));
    HETERO_TRY(BenchPass* const to, pass(task.other));
    HETERO_RETURN_IF_ERROR(prepare(*from, std::span(&a->first, 1), a->second));
    HETERO_RETURN_IF_ERROR(prepare(*to, std::span(&b->first, 1), b->second));
    for (const SyncMode& mode : options_.sync) {
      std::vector<Nanos> between;
      std::vector<Nanos> to_host;
      for (int round = 0; round < kHandoffRounds; ++round) {
        HETERO_RETURN_IF_ERROR(from->submit(std::span(&a->first, 1), a->second, 0));
        HETERO_RETURN_IF_ERROR(mode.wait(from->processor(), from->last()));
        const Nanos seen = from->processor().clock().now();
        HETERO_RETURN_IF_ERROR(to->submit(std::span(&b->first, 1), b->second, 0));
        HETERO_RETURN_IF_ERROR(mode.wait(to->processor(), to->last()));
        HETERO_TRY(const std::vector<OpTime> first, from->collect());
        HETERO_TRY(const std::vector<OpTime> second, to->collect());
        if (round >= 5) {
          between.push_back(std::max(Nanos{}, second[0].interval.begin - first[0].interval.end));
          to_host.push_back(std::max(Nanos{}, seen - first[0].interval.end));
        }
      }
      const Summary summary = summary_of(between);
      profile_.handoffs.push_back(
          {id(task.processor), id(task.other), mode.name, summary.median, summary.spread});
      const bool host_known =
          std::any_of(profile_.handoffs.begin(), profile_.handoffs.end(), [&](const Handoff& h) {
            return h.from == id(task.processor) && h.to == kHost && h.sync == mode.name;
          });
      if (!host_known) {
        const Summary host = summary_of(to_host);
        profile_.handoffs.push_back({id(task.processor), kHost, mode.name, host.median, host.spread});
      }
    }
    return {};
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
      for (const OpSlice& s : slices_of({Task::kBody, set[j], 0, tokens, 0, 1, 0})) {
        const int64_t grids = s.end / options_.grid;
        const auto count = static_cast<int64_t>(set.size());
        const auto at = static_cast<int64_t>(j);
        const int64_t begin = grids * at / count * options_.grid;
        const int64_t end = at + 1 == count ? s.end : grids * (at + 1) / count * options_.grid;
        if (graph_.op(s.op).is<Linear>() && begin < end) {
          slices[set[j]].push_back(slice(set[j], s.op, begin, end, tokens));
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

  Status measure_together(const Task& task) {
    std::vector<size_t> set;
    for (const size_t p : members(task.set)) {
      if (!slices_of({Task::kBody, p, 0, 1, 0, 1, 0}).empty()) {
        set.push_back(p);
      }
    }
    const int64_t many =
        *std::min_element(options_.lengths.begin(), options_.lengths.end(),
                          [](int64_t a, int64_t b) { return std::abs(a - 128) < std::abs(b - 128); });
    Together together;
    const auto rate = [](const Load& l) {
      return l.time > Nanos{} ? static_cast<double>(l.bytes) / static_cast<double>(l.time.count()) : 0.0;
    };
    // Medians of several rounds, since whatever else the machine does meanwhile looks like contention.
    std::vector<std::vector<double>> gbps(set.size());
    std::vector<std::vector<double>> slower(set.size());
    for (int round = 0; round < kTogetherRounds; ++round) {
      HETERO_TRY(const std::vector<Load> one_row, load(set, set, 1));
      for (size_t j = 0; j < set.size(); ++j) {
        gbps[j].push_back(rate(one_row[j]));
      }
      if (set.size() == 1) {
        continue;
      }
      HETERO_TRY(const std::vector<Load> rows, load(set, set, many));
      for (size_t j = 0; j < set.size(); ++j) {
        HETERO_TRY(const std::vector<Load> alone, load({set[j]}, set, many));
        slower[j].push_back(rate(rows[j]) > 0.0 ? rate(alone[0]) / rate(rows[j]) : 1.0);
      }
    }
    for (size_t j = 0; j < set.size(); ++j) {
      const double slowdown = set.size() > 1 ? std::max(1.0, median(slower[j])) : 1.0;
      together.processors.push_back({id(set[j]), median(gbps[j]), slowdown});
    }
    for (const size_t p : set) {
      forget(*passes_[p]);
    }
    std::sort(together.processors.begin(), together.processors.end(),
              [](const Share& a, const Share& b) { return a.id < b.id; });
    profile_.together.push_back(std::move(together));
    return {};
  }

  const Graph& graph_;
  const std::span<Processor* const> processors_;
  ProfilerOptions options_;
  int64_t context_ = 0;
  Nanos deadline_{};
  bool one_done_ = false;  // of the pieces, in this call
  Profile profile_;
  std::vector<std::unique_ptr<BenchPass>> passes_;  // by processor; made when first needed
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
