#include "plan/candidates.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>

namespace hetero {
namespace {

constexpr int64_t kFewCuts = 8;      // so many places to cut are all tried
constexpr int64_t kRowGrid = 32;     // rows between places to cut what has no columns to cut
constexpr double kWorthMore = 1.05;  // what each further submission to the same processors must gain

double ns(Nanos t) {
  return static_cast<double>(t.count());
}

/// Rows that one execution computes.
struct Piece {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t padded = 0;
};
using Cover = std::vector<Piece>;

class Generator {
 public:
  Generator(const Graph& graph, const Profile& profile, const Members& members, int op, int64_t tokens,
            const SolveOptions& options)
      : graph_(graph),
        profile_(profile),
        members_(members),
        op_(op),
        tokens_(tokens),
        options_(options),
        cols_(graph.output_cols(op)),
        linear_(graph.op(op).is<Linear>()),
        bytes_per_col_(static_cast<double>(weight_bytes(graph, op, 0, cols_)) / static_cast<double>(cols_)) {
    const Work work = work_of(graph, op);
    for (size_t p = 0; p < members.processors.size(); ++p) {
      const ProfiledProcessor& processor = *members.processors[p];
      lengths_.emplace_back();
      for (const int64_t length : processor.lengths) {
        if (processor.static_shapes && !WidthCurve::of(processor, work, length, length).empty()) {
          lengths_.back().push_back(length);
        }
      }
      // A graph for one row is for passes of one row.
      const bool many = !lengths_.back().empty() && (tokens == 1 || lengths_.back().back() > 1);
      const bool able = !options.can_run || options.can_run(processor.id, op);
      const bool timed = processor.static_shapes ? many && (linear_ || exact(p))
                                                 : step_time(p, {0, tokens, tokens}, 0, cols_, {}) >= 0.0;
      if (able && timed) {
        able_.push_back(static_cast<int>(p));
      }
    }
  }

  std::vector<Candidate> all() {
    if (is_unmeasured(graph_, profile_, op_)) {
      return {{{{members_.home, 0, tokens_, 0, cols_, tokens_, 0.0}}}};
    }
    for (const int p : able_) {
      for (const Cover& cover : covers(p)) {
        if (allowed(p, 0, cols_)) {
          Candidate c;
          add(c, p, cover, 0, cols_);
          keep(std::move(c));
        }
      }
    }
    if (linear_) {
      cut_columns();
      cut_rows();
      drop_complicated();
    } else if (options_.beyond_paper && tokens_ >= 2 * kRowGrid) {
      share_rows();
    }
    return std::move(out_);
  }

 private:
  bool is_static(int p) const { return members_.processors[static_cast<size_t>(p)]->static_shapes; }
  const std::vector<int64_t>& lengths(int p) const { return lengths_[static_cast<size_t>(p)]; }
  const std::string& id(int p) const { return members_.processors[static_cast<size_t>(p)]->id; }
  bool exact(size_t p) const {
    return std::find(lengths_[p].begin(), lengths_[p].end(), tokens_) != lengths_[p].end();
  }

  /// By the profile; negative: unknown.
  double step_time(size_t p, const Piece& piece, int64_t begin, int64_t end,
                   std::span<const std::string> set) const {
    Step step;
    step.op = op_;
    step.token_begin = piece.begin;
    step.token_end = piece.end;
    step.padded = piece.padded;
    step.out_begin = begin;
    step.out_end = end;
    return fastest_step_ns(graph_, profile_, *members_.processors[p], set, step, options_.predict.position)
        .value_or(-1.0);
  }

  /// Ways for a processor to compute all rows: as they are; static shapes padded to one length
  /// (rows beyond the longest: as many of that as it takes), or as a row of lengths from the longest
  /// down with the last one padded, or, where that is fastest, with an earlier one padded: 350 rows as 256
  /// and 128.
  std::vector<Cover> covers(int p) const {
    if (!is_static(p)) {
      return {{{0, tokens_, tokens_}}};
    }
    // The rows from `done` on, padded to one length.
    const auto rest = [&](int64_t done) -> Piece {
      return {done, tokens_, *std::lower_bound(lengths(p).begin(), lengths(p).end(), tokens_ - done)};
    };
    Cover padded;
    const int64_t longest = lengths(p).back();
    int64_t t = 0;
    for (; tokens_ - t > longest; t += longest) {
      padded.push_back({t, t + longest, longest});
    }
    padded.push_back(rest(t));
    Cover pipe = pieces(p, tokens_);
    if (const int64_t done = pipe.empty() ? 0 : pipe.back().end; done < tokens_) {
      pipe.push_back(rest(done));
    }
    const bool same = pipe.size() == padded.size() && pipe.back().padded == padded.back().padded;
    if (same) {
      return {padded};
    }
    const auto time = [&](const Cover& cover) {
      double sum = 0.0;
      for (const Piece& piece : cover) {
        sum += step_time(static_cast<size_t>(p), piece, 0, cols_, {});
      }
      return sum;
    };
    double least = std::min(time(padded), time(pipe));
    std::vector<Cover> out = {padded, pipe};
    Cover begun(pipe.begin(), pipe.begin() + static_cast<int64_t>(padded.size()) - 1);
    for (size_t i = padded.size(); i < pipe.size(); ++i) {
      begun.push_back(pipe[i - 1]);
      Cover shorter = begun;
      shorter.push_back(rest(begun.back().end));
      if (time(shorter) < least) {
        least = time(shorter);
        out.resize(2);
        out.push_back(std::move(shorter));
      }
    }
    return out;
  }

  /// Whole standard lengths from the longest down, as far as they go into `rows`; a length of one is
  /// for passes of one token.
  Cover pieces(int p, int64_t rows) const {
    Cover out;
    int64_t t = 0;
    for (auto length = lengths(p).rbegin(); length != lengths(p).rend(); ++length) {
      while (rows - t >= *length && (*length > 1 || rows == 1)) {
        out.push_back({t, t + *length, *length});
        t += *length;
      }
    }
    return out;
  }

  /// Whether a graph for these columns may be used.
  bool allowed(int p, int64_t begin, int64_t end) const {
    const auto ranges = compiled(p);
    return !ranges ||
           std::find(ranges->begin(), ranges->end(), SolveOptions::Columns{begin, end}) != ranges->end();
  }
  std::optional<std::vector<SolveOptions::Columns>> compiled(int p) const {
    return options_.compiled ? options_.compiled(id(p), op_) : std::nullopt;
  }

  void add(Candidate& c, int p, const Cover& cover, int64_t begin, int64_t end) const {
    for (const Piece& piece : cover) {
      if (begin < end && piece.begin < piece.end) {
        c.parts.push_back({p, piece.begin, piece.end, begin, end, piece.padded, 0.0});
      }
    }
  }

  /// Fills the parts' times and keeps the candidate, unless it is there already or cannot be timed.
  void keep(Candidate c) {
    std::vector<std::string> set;
    std::vector<int64_t> key;
    for (const Part& part : c.parts) {
      if (std::find(set.begin(), set.end(), id(part.processor)) == set.end()) {
        set.push_back(id(part.processor));
      }
      key.insert(key.end(), {part.processor, part.token_begin, part.token_end, part.out_begin, part.out_end,
                             part.padded});
    }
    if (c.parts.empty() || !seen_.insert(key).second || (options_.twice_limit == 0 && reads_copied(c))) {
      return;
    }
    for (Part& part : c.parts) {
      part.ns = step_time(static_cast<size_t>(part.processor),
                          {part.token_begin, part.token_end, part.padded}, part.out_begin, part.out_end, set);
      if (part.ns < 0.0) {
        return;
      }
    }
    out_.push_back(std::move(c));
  }

  /// Whether a processor computes columns of which another one has a copy.
  bool reads_copied(const Candidate& c) const {
    return std::any_of(c.parts.begin(), c.parts.end(), [&](const Part& part) {
      return twice_bytes(graph_, members_, options_, id(part.processor), op_, part.out_begin, part.out_end) >
             0;
    });
  }

  /// More submissions to the same processors must promise more than predictions are off by.
  void drop_complicated() {
    const auto who = [](const Candidate& c) {
      std::set<int> set;
      for (const Part& part : c.parts) {
        set.insert(part.processor);
      }
      return set;
    };
    std::vector<bool> dropped(out_.size(), false);
    for (size_t i = 0; i < out_.size(); ++i) {
      const double t = operator_ns(profile_, members_, out_[i], options_.predict.sync);
      dropped[i] = std::any_of(out_.begin(), out_.end(), [&](const Candidate& other) {
        return other.parts.size() < out_[i].parts.size() && who(other) == who(out_[i]) &&
               operator_ns(profile_, members_, other, options_.predict.sync) <= t * kWorthMore;
      });
    }
    for (size_t i = out_.size(); i-- > 0;) {
      if (dropped[i]) {
        out_.erase(out_.begin() + static_cast<int64_t>(i));
      }
    }
  }

  /// One of several that share the columns.
  struct Sharer {
    int processor = 0;
    Cover cover;                          // of the shared columns
    Cover own;                            // rows that it computes alone, all columns of them
    double extra_ns = 0.0;                // hand-offs, and its own rows
    std::vector<WidthCurve> curves = {};  // of each piece of the cover
  };

  double shared_ns(const Sharer& s, int64_t n, std::span<const std::string> set) const {
    double sum = s.extra_ns;
    for (const WidthCurve& curve : s.curves) {
      const auto t = curve.at(n);
      sum += t ? contended_ns(profile_, id(s.processor), set, t->ns,
                              static_cast<Bytes>(bytes_per_col_ * static_cast<double>(n)))
               : std::numeric_limits<double>::infinity();
    }
    return n == 0 ? s.extra_ns : sum;
  }

  /// Columns between two places where all sharers may be cut.
  int64_t unit(std::span<const Sharer> sharers) const {
    int64_t unit = 1;
    for (const Sharer& s : sharers) {
      unit = std::min(cols_, std::lcm(unit, members_.processors[static_cast<size_t>(s.processor)]->grid));
    }
    return unit;
  }

  /// 1:1, 1:2, ... up to `most`, as units.
  std::vector<std::vector<int64_t>> ratios(size_t count, int most, int64_t units) const {
    std::vector<std::vector<int64_t>> out;
    std::vector<int64_t> ratio(count, 1);
    for (;;) {
      const int64_t sum = std::accumulate(ratio.begin(), ratio.end(), int64_t{0});
      std::vector<int64_t> cut;
      int64_t before = 0;
      for (int64_t done = 0, i = 0; i < static_cast<int64_t>(count); ++i) {
        done += ratio[static_cast<size_t>(i)];
        const int64_t end = (units * done + sum / 2) / sum;
        cut.push_back(end - before);
        before = end;
      }
      if (std::all_of(cut.begin(), cut.end(), [](int64_t n) { return n > 0; })) {
        out.push_back(std::move(cut));
      }
      size_t i = 0;
      while (i < count && ++ratio[i] > most) {
        ratio[i++] = 1;
      }
      if (i == count) {
        return out;
      }
    }
  }

  /// Cuts of all columns among the sharers, in units, so that they end together; and the neighbours.
  std::vector<std::vector<int64_t>> balances(std::span<const Sharer> sharers, int64_t unit) const {
    const int64_t units = (cols_ + unit - 1) / unit;
    const size_t count = sharers.size();
    std::vector<std::vector<int64_t>> out;
    if (units < static_cast<int64_t>(count)) {
      return out;
    }
    int most = 0;
    for (const Sharer& s : sharers) {
      const int own = members_.processors[static_cast<size_t>(s.processor)]->ratios;
      most = own > 0 && (most == 0 || own < most) ? own : most;
    }
    if (most > 0) {
      return ratios(count, most, units);
    }
    if (count == 2 && units <= kFewCuts) {
      for (int64_t n = 1; n < units; ++n) {
        out.push_back({n, units - n});
      }
      return out;
    }
    std::vector<std::string> set;
    for (const Sharer& s : sharers) {
      set.push_back(id(s.processor));
    }
    const auto within = [&](const Sharer& s, double limit) {  // the most units that end in time
      int64_t lo = 0;
      int64_t hi = units;
      while (lo < hi) {
        const int64_t mid = (lo + hi + 1) / 2;
        if (shared_ns(s, std::min(cols_, mid * unit), set) <= limit) {
          lo = mid;
        } else {
          hi = mid - 1;
        }
      }
      return lo;
    };
    double low = 0.0;
    double high = std::numeric_limits<double>::infinity();
    for (const Sharer& s : sharers) {
      high = std::min(high, shared_ns(s, cols_, set));
    }
    if (high == std::numeric_limits<double>::infinity()) {
      return out;
    }
    for (int i = 0; i < 40 && high - low > 1.0; ++i) {
      const double middle = (low + high) / 2;
      int64_t sum = 0;
      for (const Sharer& s : sharers) {
        sum += within(s, middle);
      }
      (sum >= units ? high : low) = middle;
    }
    std::vector<int64_t> balanced;
    int64_t left = units;
    for (size_t i = 0; i < count; ++i) {
      balanced.push_back(i + 1 == count ? left : std::min(left, within(sharers[i], high)));
      left -= balanced.back();
    }
    out.push_back(balanced);
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < count; ++j) {
        if (i != j) {
          out.push_back(balanced);
          out.back()[i] += 1;
          out.back()[j] -= 1;
        }
      }
    }
    std::erase_if(out, [](const std::vector<int64_t>& b) {
      return std::any_of(b.begin(), b.end(), [](int64_t n) { return n < 1; });
    });
    return out;
  }

  /// What it costs a processor other than home to get its input and to give its result back.
  double round_trip(int p) const {
    const std::string& home = id(members_.home);
    const std::string& sync = options_.predict.sync;
    return ns(profile_.handoff(home, id(p), sync)) + ns(profile_.handoff(id(p), home, sync));
  }

  void share(std::vector<Sharer> sharers) {
    // Static shapes first: they lead, and the rest is the others'.
    std::stable_sort(sharers.begin(), sharers.end(), [&](const Sharer& a, const Sharer& b) {
      return is_static(a.processor) && !is_static(b.processor);
    });
    for (const Sharer& s : sharers) {
      if (const auto ranges = compiled(s.processor)) {
        return share_compiled(sharers, s, *ranges);
      }
    }
    const Work work = work_of(graph_, op_);
    for (Sharer& s : sharers) {
      for (const Piece& piece : s.cover) {
        s.curves.push_back(
            WidthCurve::of(*members_.processors[static_cast<size_t>(s.processor)], work, piece.padded, 0));
      }
    }
    const int64_t step = unit(sharers);
    for (const bool handoffs : {false, true}) {
      if (handoffs) {
        for (Sharer& s : sharers) {
          s.extra_ns += round_trip(s.processor);
        }
      }
      for (const std::vector<int64_t>& units : balances(sharers, step)) {
        Candidate c;
        int64_t begin = 0;
        for (size_t i = 0; i < sharers.size(); ++i) {
          const int64_t end = i + 1 == sharers.size() ? cols_ : std::min(cols_, begin + units[i] * step);
          add(c, sharers[i].processor, sharers[i].cover, begin, end);
          begin = end;
        }
        for (const Sharer& s : sharers) {
          add(c, s.processor, s.own, 0, cols_);
        }
        keep(std::move(c));
      }
    }
  }

  /// Two sharers, of which one has graphs for certain columns only.
  void share_compiled(std::span<const Sharer> sharers, const Sharer& bound,
                      std::span<const SolveOptions::Columns> ranges) {
    for (const SolveOptions::Columns& range : ranges) {
      if (sharers.size() != 2 || (range.begin == 0 && range.end == cols_)) {
        continue;
      }
      Candidate c;
      const Sharer& other = &sharers[0] == &bound ? sharers[1] : sharers[0];
      if (compiled(other.processor)) {
        continue;
      }
      add(c, bound.processor, bound.cover, range.begin, range.end);
      add(c, other.processor, other.cover, 0, range.begin);
      add(c, other.processor, other.cover, range.end, cols_);
      add(c, bound.processor, bound.own, 0, cols_);
      add(c, other.processor, other.own, 0, cols_);
      keep(std::move(c));
    }
  }

  /// Weight-centric; hybrid where static shapes are padded.
  void cut_columns() {
    for (unsigned mask = 1; mask < 1u << able_.size(); ++mask) {
      std::vector<int> set;
      for (size_t i = 0; i < able_.size(); ++i) {
        if ((mask >> i & 1u) != 0) {
          set.push_back(able_[i]);
        }
      }
      if (set.size() < 2) {
        continue;
      }
      size_t variants = 1;
      for (const int p : set) {
        variants = std::max(variants, covers(p).size());
      }
      for (size_t v = 0; v < variants; ++v) {
        std::vector<Sharer> sharers;
        for (const int p : set) {
          auto all = covers(p);
          sharers.push_back({p, std::move(all[std::min(v, all.size() - 1)]), {}, 0.0});
        }
        share(std::move(sharers));
      }
    }
  }

  /// Activation-centric: standard lengths to one, the remaining rows to another at the same time; and
  /// with the columns of the standard lengths cut as well.
  void cut_rows() {
    for (const int p : able_) {
      if (!is_static(p)) {
        continue;
      }
      std::set<int64_t> prefixes;  // rows of the standard lengths
      for (const Piece& piece : pieces(p, tokens_)) {
        prefixes.insert(piece.end);
      }
      for (const int64_t length : lengths(p)) {
        prefixes.insert(length);
      }
      for (const int d : able_) {
        for (const int64_t rows : prefixes) {
          if (is_static(d) || rows >= tokens_ || rows < 2) {
            continue;
          }
          const Cover front = pieces(p, rows);
          if (front.empty() || front.back().end != rows) {
            continue;
          }
          const Cover rest = {{rows, tokens_, tokens_ - rows}};
          if (allowed(p, 0, cols_)) {
            Candidate c;
            add(c, p, front, 0, cols_);
            add(c, d, rest, 0, cols_);
            keep(std::move(c));
          }
          const double rest_ns = step_time(static_cast<size_t>(d), rest[0], 0, cols_, {});
          share({{p, front, {}, 0.0}, {d, {{0, rows, rows}}, rest, std::max(0.0, rest_ns)}});
        }
      }
    }
  }

  /// What has no columns to cut: the first rows to one, the others to another, so that both end together.
  /// Of the two ways round the faster one (of attention, the first rows see less).
  void share_rows() {
    for (size_t i = 0; i < able_.size(); ++i) {
      for (size_t j = i + 1; j < able_.size(); ++j) {
        if (is_static(able_[i]) || is_static(able_[j])) {
          continue;
        }
        std::optional<std::pair<double, Candidate>> best;
        for (const auto& [a, b] : {std::pair(able_[i], able_[j]), std::pair(able_[j], able_[i])}) {
          const std::vector<std::string> set = {id(a), id(b)};
          const auto ends = [&, a = a, b = b](int64_t rows) {
            return std::pair(
                step_time(static_cast<size_t>(a), {0, rows, rows}, 0, cols_, set),
                step_time(static_cast<size_t>(b), {rows, tokens_, tokens_ - rows}, 0, cols_, set));
          };
          int64_t low = 1;  // in grids; the most that the first one does before the second one ends
          for (int64_t high = (tokens_ - 1) / kRowGrid; low < high;) {
            const int64_t middle = (low + high + 1) / 2;
            const auto [first, second] = ends(middle * kRowGrid);
            (first <= second ? low : high) = first <= second ? middle : middle - 1;
          }
          const auto [first, second] = ends(low * kRowGrid);
          if (first >= 0.0 && second >= 0.0 && (!best || std::max(first, second) < best->first)) {
            Candidate c;
            add(c, a, {{0, low * kRowGrid, low * kRowGrid}}, 0, cols_);
            add(c, b, {{low * kRowGrid, tokens_, tokens_ - low * kRowGrid}}, 0, cols_);
            best = {std::max(first, second), std::move(c)};
          }
        }
        if (best) {
          keep(std::move(best->second));
        }
      }
    }
  }

  const Graph& graph_;
  const Profile& profile_;
  const Members& members_;
  const int op_;
  const int64_t tokens_;
  const SolveOptions& options_;
  const int64_t cols_;
  const bool linear_;
  const double bytes_per_col_;
  std::vector<std::vector<int64_t>> lengths_;  // by processor: standard lengths with a time
  std::vector<int> able_;
  std::set<std::vector<int64_t>> seen_;
  std::vector<Candidate> out_;
};

bool named(const std::vector<std::string>& list, const ProfiledProcessor& p) {
  return std::any_of(list.begin(), list.end(),
                     [&](const std::string& name) { return name == p.id || name == p.kind; });
}

}  // namespace

Bytes twice_bytes(const Graph& graph, const Members& members, const SolveOptions& options,
                  const std::string& id, int op, int64_t out_begin, int64_t out_end) {
  Bytes bytes = 0;
  for (const ProfiledProcessor* p : members.processors) {
    const auto ranges = options.compiled && p->id != id ? options.compiled(p->id, op) : std::nullopt;
    for (const SolveOptions::Columns& r : ranges.value_or(std::vector<SolveOptions::Columns>())) {
      const int64_t begin = std::max(r.begin, out_begin);
      const int64_t end = std::min(r.end, out_end);
      bytes += begin < end ? weight_bytes(graph, op, begin, end) : 0;
    }
  }
  return bytes;
}

Members taking_part(const Profile& profile, const SolveOptions& options) {
  Members members;
  for (const ProfiledProcessor& p : profile.processors) {
    if ((options.processors.empty() || named(options.processors, p)) && !named(options.reserve, p)) {
      members.processors.push_back(&p);
    }
  }
  const auto first = [&](const char* kind) {
    for (size_t i = 0; i < members.processors.size(); ++i) {
      if (members.processors[i]->kind == kind) {
        return static_cast<int>(i);
      }
    }
    return -1;
  };
  members.home = std::max(0, first("gpu") >= 0 ? first("gpu") : first("cpu"));
  return members;
}

std::string classify(const Members& members, std::span<const Part> parts, int64_t tokens, int64_t cols) {
  bool one = true;
  bool cut_columns = false;
  bool cut_rows = false;
  bool padded = false;
  for (const Part& part : parts) {
    one = one && part.processor == parts[0].processor;
    cut_columns = cut_columns || part.out_begin > 0 || part.out_end < cols;
    cut_rows = cut_rows || part.token_begin > 0 || part.token_end < tokens;
    padded = padded || part.padded > part.token_end - part.token_begin;
  }
  if (one) {
    const ProfiledProcessor& p = *members.processors[static_cast<size_t>(parts[0].processor)];
    // Other processors have parts of rows for other reasons (row_parts.h).
    return cut_rows && p.static_shapes ? "pipe" : padded ? "padding" : p.kind;
  }
  if (!cut_columns) {
    return "activation-centric";
  }
  return cut_rows || padded ? "hybrid" : "weight-centric";
}

double operator_ns(const Profile& profile, const Members& members, const Candidate& candidate,
                   const std::string& sync) {
  std::map<int, double> sums;
  for (const Part& part : candidate.parts) {
    sums[part.processor] += part.ns;
  }
  const std::string& home = members.processors[static_cast<size_t>(members.home)]->id;
  double slowest = 0.0;
  double handoff = 0.0;
  for (const auto& [p, sum] : sums) {
    slowest = std::max(slowest, sum);
    handoff =
        std::max(handoff, ns(profile.handoff(members.processors[static_cast<size_t>(p)]->id, home, sync)));
  }
  return slowest + handoff;
}

std::vector<Candidate> candidates(const Graph& graph, const Profile& profile, const Members& members, int op,
                                  int64_t tokens, const SolveOptions& options) {
  return Generator(graph, profile, members, op, tokens, options).all();
}

const std::vector<Candidate>& CandidateLists::of(int op) {
  auto key = keys_.find(op);
  if (key == keys_.end()) {
    key = keys_.emplace(op, key_of(op)).first;
  }
  auto list = lists_.find(key->second);
  if (list == lists_.end()) {
    list =
        lists_.emplace(key->second, candidates(*graph_, *profile_, *members_, op, tokens_, options_)).first;
  }
  return list->second;
}

void CandidateLists::drop(int op, const std::function<bool(const Candidate&)>& unwanted) {
  (void)of(op);
  std::erase_if(lists_.at(keys_.at(op)), unwanted);
}

CandidateLists::Key CandidateLists::key_of(int op) const {
  const auto* attention = graph_->op(op).as<Attention>();
  Key key{work_of(*graph_, op), attention == nullptr ? 0 : attention->window, {}, {}};
  auto& [work, window, able, columns] = key;
  for (const ProfiledProcessor* p : members_->processors) {
    const auto ranges = options_.compiled ? options_.compiled(p->id, op) : std::nullopt;
    able.push_back(!options_.can_run || options_.can_run(p->id, op));
    able.push_back(ranges.has_value());
    if (ranges) {
      columns.insert(columns.end(), ranges->begin(), ranges->end());
    }
    columns.emplace_back();  // the end of this processor's
  }
  return key;
}

}  // namespace hetero
