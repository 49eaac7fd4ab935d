#include "plan/search.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>

namespace hetero {
namespace {

double ns(Nanos t) {
  return static_cast<double>(t.count());
}

/// What an operator reads of an earlier one in the list.
struct Read {
  size_t from = 0;     // index into the list
  bool cache = false;  // the KV cache: all rows up to those that are computed
  ValueId value = -1;
};

/// An operator whose results are still read, and when each part of them was done.
struct Live {
  size_t index = 0;  // into the list
  int choice = -1;   // -1: done for so long that nobody has to wait
  std::vector<double> finish;
};

struct Label {
  QueueTimes times;
  double joules = 0.0;
  std::vector<Live> live;
  int parent = -1;  // into the labels of the operator before
  int choice = -1;
};

/// Which choices the future can still feel.
std::vector<int> signature(const Label& label) {
  std::vector<int> key;
  for (const Live& live : label.live) {
    key.push_back(live.choice);
  }
  return key;
}

/// Whether `a` is at least as good as `b` in every respect. Equal signatures.
bool dominates(const Label& a, const Label& b) {
  if (a.times.control > b.times.control || a.joules > b.joules) {
    return false;
  }
  for (size_t p = 0; p < a.times.free.size(); ++p) {
    if (a.times.free[p] > b.times.free[p]) {
      return false;
    }
  }
  for (size_t i = 0; i < a.live.size(); ++i) {
    for (size_t k = 0; k < a.live[i].finish.size(); ++k) {
      if (a.live[i].finish[k] > b.live[i].finish[k]) {
        return false;
      }
    }
  }
  return true;
}

class Search {
 public:
  Search(const Graph& graph, const Profile& profile, const Members& members, const std::vector<int>& ops,
         const std::vector<std::vector<Candidate>>& candidates, const SolveOptions& options, size_t width)
      : graph_(graph),
        profile_(profile),
        members_(members),
        ops_(ops),
        candidates_(candidates),
        options_(options),
        width_(width),
        lane_(lanes(profile, members.processors)) {
    const size_t count = members.processors.size();
    handoffs_.assign(count, std::vector<double>(count));
    for (size_t a = 0; a < count; ++a) {
      for (size_t b = 0; b < count; ++b) {
        handoffs_[a][b] =
            ns(profile.handoff(members.processors[a]->id, members.processors[b]->id, options.predict.sync));
        longest_handoff_ = std::max(longest_handoff_, handoffs_[a][b]);
      }
      to_host_.push_back(ns(profile.handoff(members.processors[a]->id, kHost, options.predict.sync)));
      if (members.processors[a]->copy_gbps > 0.0) {
        copies_ = true;
      }
    }
    find_reads();
  }

  SearchResult run() {
    std::vector<std::vector<Label>> stages(1);
    stages[0].emplace_back();
    stages[0][0].times.blocking = options_.predict.sync == "driver";
    stages[0][0].times.free.assign(*std::max_element(lane_.begin(), lane_.end()) + 1, 0.0);
    for (size_t i = 0; i < ops_.size(); ++i) {
      std::map<std::vector<int>, std::vector<Label>> buckets;
      for (size_t l = 0; l < stages[i].size(); ++l) {
        for (size_t c = 0; c < candidates_[i].size(); ++c) {
          auto extended = extend(stages[i][l], i, static_cast<int>(c));
          if (!extended) {
            continue;
          }
          Label& next = *extended;
          next.parent = static_cast<int>(l);
          std::vector<Label>& bucket = buckets[signature(next)];
          if (std::none_of(bucket.begin(), bucket.end(),
                           [&](const Label& b) { return dominates(b, next); })) {
            std::erase_if(bucket, [&](const Label& b) { return dominates(next, b); });
            bucket.push_back(std::move(next));
          }
        }
      }
      stages.emplace_back();
      for (auto& [key, bucket] : buckets) {
        std::move(bucket.begin(), bucket.end(), std::back_inserter(stages.back()));
      }
      if (stages.back().size() > width_) {
        std::stable_sort(stages.back().begin(), stages.back().end(),
                         [&](const Label& a, const Label& b) { return rank(a) < rank(b); });
        stages.back().resize(width_);
      }
    }
    const auto best =
        std::min_element(stages.back().begin(), stages.back().end(),
                         [&](const Label& a, const Label& b) { return result_rank(a) < result_rank(b); });
    SearchResult result;
    result.ns = total(*best);
    result.joules = best->joules;
    result.choices.assign(ops_.size(), 0);
    const Label* label = &*best;
    for (size_t i = ops_.size(); i-- > 0;) {
      result.choices[i] = label->choice;
      label = &stages[i][static_cast<size_t>(label->parent)];
    }
    return result;
  }

 private:
  void find_reads() {
    std::map<ValueId, size_t> writer;
    reads_.resize(ops_.size());
    last_read_.assign(ops_.size(), 0);
    for (size_t i = 0; i < ops_.size(); ++i) {
      const Op& op = graph_.op(ops_[i]);
      for (const ValueId input : op.inputs) {
        const auto found = writer.find(input);
        if (found != writer.end()) {
          reads_[i].push_back({found->second, graph_.value(input).rows == Rows::kContext, input});
          last_read_[found->second] = i;
        }
      }
      for (const ValueId output : op.outputs) {
        writer[output] = i;
      }
    }
  }

  /// nullopt: the choice reads a KV cache that is out of its reach.
  std::optional<Label> extend(const Label& from, size_t i, int choice) const {
    const Candidate& candidate = candidates_[i][static_cast<size_t>(choice)];
    Label next;
    next.times = from.times;
    next.joules = from.joules;
    next.choice = choice;
    Live made{i, choice, {}};
    std::vector<QueueTimes::Wait> waits;
    for (const Part& part : candidate.parts) {
      const auto p = static_cast<size_t>(part.processor);
      const ProfiledProcessor& processor = *members_.processors[p];
      waits.clear();
      for (const Read& read : reads_[i]) {
        const auto live = std::find_if(from.live.begin(), from.live.end(),
                                       [&](const Live& l) { return l.index == read.from; });
        if (live == from.live.end() || live->choice < 0) {
          continue;
        }
        const auto& written = candidates_[read.from][static_cast<size_t>(live->choice)].parts;
        for (size_t k = 0; k < written.size(); ++k) {
          const bool rows = written[k].token_begin < part.token_end &&
                            (read.cache || part.token_begin < written[k].token_end);
          if (written[k].processor != part.processor && rows) {
            const double handoff = handoff_of(read, written[k], part);
            if (handoff < 0.0) {
              return std::nullopt;
            }
            waits.push_back({live->finish[k], handoff});
          }
        }
      }
      const double begin = next.times.submit(lane_[p], ns(processor.submit), part.ns, waits);
      made.finish.push_back(begin + part.ns);
      next.joules += part.ns * 1e-9 * processor.watts.value_or(0.0);
    }
    for (const Live& live : from.live) {
      if (last_read_[live.index] > i) {
        next.live.push_back(live);
      }
    }
    if (last_read_[i] > i) {
      next.live.push_back(std::move(made));
    }
    // Before this nothing can be submitted any more, to whichever queue.
    const double horizon =
        std::max(next.times.control, *std::min_element(next.times.free.begin(), next.times.free.end()));
    for (Live& live : next.live) {
      const bool old = !copies_ && std::all_of(live.finish.begin(), live.finish.end(),
                                               [&](double f) { return f + longest_handoff_ <= horizon; });
      if (old) {
        live.choice = -1;
        live.finish.clear();
      }
    }
    return next;
  }

  double handoff_of(const Read& read, const Part& from, const Part& to) const {
    const auto a = static_cast<size_t>(from.processor);
    const auto b = static_cast<size_t>(to.processor);
    if (!copies_) {
      return handoffs_[a][b];
    }
    const Value& value = graph_.value(read.value);
    const int64_t cols = graph_.op(ops_[read.from]).is<Linear>() ? from.out_end - from.out_begin : value.cols;
    return handoff_ns(profile_, *members_.processors[a], *members_.processors[b], options_.predict.sync,
                      (from.token_end - from.token_begin) * row_bytes(value.dtype, cols), read.cache);
  }

  double total(const Label& label) const {
    double total = label.times.control;
    for (size_t p = 0; p < to_host_.size(); ++p) {
      if (label.times.free[lane_[p]] > 0.0) {
        total = std::max(total, label.times.free[lane_[p]] + to_host_[p]);
      }
    }
    return total;
  }
  /// Of a partial plan: when the last of its work is done.
  std::pair<double, double> rank(const Label& label) const {
    const double end =
        std::max(label.times.control, *std::max_element(label.times.free.begin(), label.times.free.end()));
    return ordered(end, label.joules);
  }
  std::pair<double, double> result_rank(const Label& label) const {
    return ordered(total(label), label.joules);
  }
  std::pair<double, double> ordered(double time, double joules) const {
    return options_.objective == Objective::kEnergy ? std::pair(joules, time) : std::pair(time, joules);
  }

  const Graph& graph_;
  const Profile& profile_;
  const Members& members_;
  const std::vector<int>& ops_;
  const std::vector<std::vector<Candidate>>& candidates_;
  const SolveOptions& options_;
  const size_t width_;
  const std::vector<size_t> lane_;             // by processor
  std::vector<std::vector<double>> handoffs_;  // from, to
  std::vector<double> to_host_;
  double longest_handoff_ = 0.0;
  bool copies_ = false;  // a processor has memory of its own
  std::vector<std::vector<Read>> reads_;
  std::vector<size_t> last_read_;  // by operator of the list; 0: nobody reads it
};

}  // namespace

SearchResult search(const Graph& graph, const Profile& profile, const Members& members,
                    const std::vector<int>& ops, const std::vector<std::vector<Candidate>>& candidates,
                    const SolveOptions& options, size_t width) {
  return Search(graph, profile, members, ops, candidates, options, width).run();
}

}  // namespace hetero
