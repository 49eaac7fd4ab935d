#include "text/grammar_automaton.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/unicode.h"

namespace hetero::grammar {
namespace {

/// Thompson's construction. Nothing that build() adds leads into `from` or out of `to`, so that parts
/// can share them.
class Builder {
 public:
  Builder(const Rules& rules, const GrammarLimits& limits) : rules_(rules), limits_(limits) {}

  Result<std::shared_ptr<const Automaton>> run() {
    for (size_t i = 0; i < rules_.bodies.size(); ++i) {
      a_->entries.push_back(add());
      const uint32_t end = add();
      a_->states[end].end = true;
      build(*rules_.bodies[i], a_->entries[i], end);
      if (full_) {
        return resource_exhausted(
            fmt::format("the grammar needs more than {} states, at rule {} (repetitions of large "
                        "parts multiply)",
                        limits_.states, rules_.names[i]));
      }
    }
    HETERO_RETURN_IF_ERROR(check_rules_end());
    HETERO_RETURN_IF_ERROR(check_left_recursion());
    remove_dead_ends();
    find_byte_classes();
    return std::shared_ptr<const Automaton>(std::move(a_));
  }

 private:
  uint32_t add() {
    full_ |= a_->states.size() >= limits_.states;
    if (full_) {
      return 0;  // what is built from now on is thrown away
    }
    a_->states.emplace_back();
    return static_cast<uint32_t>(a_->states.size()) - 1;
  }
  void byte_edge(uint32_t from, uint8_t low, uint8_t high, uint32_t to) {
    a_->states[from].bytes.push_back({low, high, to});
  }
  void empty_edge(uint32_t from, uint32_t to) { a_->states[from].empty.push_back(to); }

  void build(const Expr& e, uint32_t from, uint32_t to) {
    if (full_) {
      return;
    }
    switch (e.kind) {
      case Expr::Kind::kText: {
        if (e.text.empty()) {
          empty_edge(from, to);
          return;
        }
        uint32_t at = from;
        for (size_t i = 0; i < e.text.size(); ++i) {
          const uint32_t next = i + 1 == e.text.size() ? to : add();
          const auto byte = static_cast<uint8_t>(e.text[i]);
          byte_edge(at, byte, byte, next);
          at = next;
        }
        return;
      }
      case Expr::Kind::kClass:
        for (const Range& r : e.ranges) {
          code_points(r, from, to);
        }
        return;
      case Expr::Kind::kRule:
        a_->states[from].calls.push_back({static_cast<uint32_t>(e.rule), to});
        return;
      case Expr::Kind::kSequence: {
        uint32_t at = from;
        for (size_t i = 0; i < e.parts.size(); ++i) {
          const uint32_t next = i + 1 == e.parts.size() ? to : add();
          build(*e.parts[i], at, next);
          at = next;
        }
        if (e.parts.empty()) {
          empty_edge(from, to);
        }
        return;
      }
      case Expr::Kind::kChoice:
        for (const ExprPtr& part : e.parts) {
          const uint32_t begin = add();
          empty_edge(from, begin);
          build(*part, begin, to);
        }
        return;
      case Expr::Kind::kRepeat:
        repetition(e, from, to);
        return;
    }
  }

  void repetition(const Expr& e, uint32_t from, uint32_t to) {
    uint32_t at = from;
    for (int64_t i = 0; i < e.min && !full_; ++i) {
      const uint32_t next = add();
      build(*e.parts[0], at, next);
      at = next;
    }
    const uint32_t again = add();  // a state of its own: it may be led into
    empty_edge(at, again);
    at = again;
    if (e.max < 0) {
      build(*e.parts[0], at, at);
      empty_edge(at, to);
      return;
    }
    for (int64_t i = e.min; i < e.max && !full_; ++i) {
      const uint32_t next = add();
      empty_edge(at, to);
      build(*e.parts[0], at, next);
      at = next;
    }
    empty_edge(at, to);
  }

  /// UTF-8 of a range of code points of one length: split where a continuation byte would not run
  /// through all its values.
  void code_points(const Range& r, uint32_t from, uint32_t to) {
    constexpr char32_t kEndOfLength[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
    char32_t low = r.low;
    for (const char32_t last : kEndOfLength) {
      if (low <= last && low <= r.high) {
        same_length(low, std::min(r.high, last), from, to);
        low = last + 1;
      }
    }
  }

  void same_length(char32_t low, char32_t high, uint32_t from, uint32_t to) {
    std::string first, last;
    append_utf8(first, low);
    append_utf8(last, high);
    bytes_between(first, last, 0, from, to);
  }

  void bytes_between(const std::string& low, const std::string& high, size_t i, uint32_t from, uint32_t to) {
    const auto a = static_cast<uint8_t>(low[i]);
    const auto b = static_cast<uint8_t>(high[i]);
    if (i + 1 == low.size()) {
      byte_edge(from, a, b, to);
      return;
    }
    if (a == b) {
      const uint32_t next = add();
      byte_edge(from, a, a, next);
      bytes_between(low, high, i + 1, next, to);
      return;
    }
    const std::string lowest = low.substr(0, i + 1) + std::string(low.size() - i - 1, '\x80');
    const std::string highest = high.substr(0, i + 1) + std::string(high.size() - i - 1, '\xBF');
    const bool cut_low = low != lowest;
    const bool cut_high = high != highest;
    if (cut_low) {
      bytes_between(low, low.substr(0, i + 1) + std::string(low.size() - i - 1, '\xBF'), i, from, to);
    }
    if (cut_high) {
      bytes_between(high.substr(0, i + 1) + std::string(high.size() - i - 1, '\x80'), high, i, from, to);
    }
    const int middle_low = a + (cut_low ? 1 : 0);
    const int middle_high = b - (cut_high ? 1 : 0);
    if (middle_low > middle_high) {
      return;
    }
    uint32_t at = add();
    byte_edge(from, static_cast<uint8_t>(middle_low), static_cast<uint8_t>(middle_high), at);
    for (size_t j = i + 1; j < low.size(); ++j) {
      const uint32_t next = j + 1 == low.size() ? to : add();
      byte_edge(at, 0x80, 0xBF, next);
      at = next;
    }
  }

  /// Rules from whose first state the end can be reached, where `readable` says whether bytes may be
  /// read on the way (a rule can end) or not (a rule may be empty).
  std::vector<bool> ending_rules(bool readable) const {
    std::vector<bool> ends(a_->entries.size(), false);
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t r = a_->entries.size(); r-- > 0;) {  // rules mostly call later ones
        if (!ends[r] && reaches_end(a_->entries[r], ends, readable)) {
          ends[r] = true;
          changed = true;
        }
      }
    }
    return ends;
  }

  bool reaches_end(uint32_t from, const std::vector<bool>& ends, bool readable) const {
    std::vector<uint32_t> work = {from};
    std::vector<bool>& seen = scratch(work);
    while (!work.empty()) {
      const uint32_t at = work.back();
      work.pop_back();
      const Automaton::State& s = a_->states[at];
      if (s.end) {
        return true;
      }
      const auto go = [&](uint32_t next) {
        if (!seen[next]) {
          seen[next] = true;
          visited_.push_back(next);
          work.push_back(next);
        }
      };
      for (const uint32_t next : s.empty) {
        go(next);
      }
      for (const auto& edge : s.bytes) {
        if (readable) {
          go(edge.target);
        }
      }
      for (const auto& call : s.calls) {
        if (ends[call.rule]) {
          go(call.back);
        }
      }
    }
    return false;
  }

  /// Marks of visited states, cleared by what was visited rather than by size.
  std::vector<bool>& scratch(const std::vector<uint32_t>& first) const {
    seen_.resize(a_->states.size(), false);
    for (const uint32_t state : visited_) {
      seen_[state] = false;
    }
    visited_ = first;
    for (const uint32_t state : first) {
      seen_[state] = true;
    }
    return seen_;
  }

  Status check_rules_end() const {
    const std::vector<bool> ends = ending_rules(true);
    const auto bad = std::find(ends.begin(), ends.end(), false);
    if (bad == ends.end()) {
      return {};
    }
    return malformed(
        fmt::format("rule {} can never end: every way through it needs itself again, or a character of an "
                    "empty class",
                    rules_.names[static_cast<size_t>(bad - ends.begin())]));
  }

  Status check_left_recursion() const {
    const std::vector<bool> empty = ending_rules(false);
    // Rules that a rule can call before it has read a byte.
    std::vector<std::vector<uint32_t>> first_calls(a_->entries.size());
    for (size_t r = 0; r < a_->entries.size(); ++r) {
      std::vector<uint32_t> work = {a_->entries[r]};
      std::vector<bool>& seen = scratch(work);
      const auto go = [&](uint32_t next) {
        if (!seen[next]) {
          seen[next] = true;
          visited_.push_back(next);
          work.push_back(next);
        }
      };
      while (!work.empty()) {
        const uint32_t at = work.back();
        work.pop_back();
        for (const uint32_t next : a_->states[at].empty) {
          go(next);
        }
        for (const auto& call : a_->states[at].calls) {
          first_calls[r].push_back(call.rule);
          if (empty[call.rule]) {
            go(call.back);
          }
        }
      }
    }
    // A cycle among them: depth first, without recursion.
    enum class Mark : uint8_t { kNew, kOpen, kDone };
    std::vector<Mark> marks(first_calls.size(), Mark::kNew);
    for (uint32_t root = 0; root < first_calls.size(); ++root) {
      std::vector<std::pair<uint32_t, size_t>> path = {{root, 0}};
      while (!path.empty()) {
        auto& [r, i] = path.back();
        if (marks[r] == Mark::kDone) {
          path.pop_back();
          continue;
        }
        marks[r] = Mark::kOpen;
        if (i == first_calls[r].size()) {
          marks[r] = Mark::kDone;
          path.pop_back();
          continue;
        }
        const uint32_t next = first_calls[r][i++];
        if (marks[next] == Mark::kOpen) {
          return malformed(
              fmt::format("rule {} is left-recursive: it can begin with itself; write it with * or +, or "
                          "with the recursion at its end",
                          rules_.names[next]));
        }
        if (marks[next] == Mark::kNew) {
          path.emplace_back(next, 0);
        }
      }
    }
    return {};
  }

  /// Drops edges into states from which their rule cannot end (behind an empty class), so that no text
  /// is led there.
  void remove_dead_ends() {
    std::vector<std::vector<uint32_t>> before(a_->states.size());
    std::vector<uint32_t> work;
    for (uint32_t i = 0; i < a_->states.size(); ++i) {
      const Automaton::State& s = a_->states[i];
      for (const auto& edge : s.bytes) {
        before[edge.target].push_back(i);
      }
      for (const uint32_t next : s.empty) {
        before[next].push_back(i);
      }
      for (const auto& call : s.calls) {
        before[call.back].push_back(i);
      }
      if (s.end) {
        work.push_back(i);
      }
    }
    std::vector<bool>& ends = scratch(work);
    while (!work.empty()) {
      const uint32_t at = work.back();
      work.pop_back();
      for (const uint32_t from : before[at]) {
        if (!ends[from]) {
          ends[from] = true;
          work.push_back(from);
        }
      }
    }
    for (Automaton::State& s : a_->states) {
      std::erase_if(s.bytes, [&](const auto& edge) { return !ends[edge.target]; });
      std::erase_if(s.empty, [&](const uint32_t next) { return !ends[next]; });
      std::erase_if(s.calls, [&](const auto& call) { return !ends[call.back]; });
    }
  }

  void find_byte_classes() {
    std::array<bool, 257> cut{};
    for (const Automaton::State& s : a_->states) {
      for (const auto& edge : s.bytes) {
        cut[edge.low] = true;
        cut[edge.high + 1] = true;
      }
    }
    for (int byte = 0; byte < 256; ++byte) {
      if (byte == 0 || cut[static_cast<size_t>(byte)]) {
        a_->class_example.push_back(static_cast<uint8_t>(byte));
      }
      a_->byte_class[static_cast<size_t>(byte)] = static_cast<uint8_t>(a_->class_example.size() - 1);
    }
  }

  const Rules& rules_;
  const GrammarLimits& limits_;
  std::shared_ptr<Automaton> a_ = std::make_shared<Automaton>();
  bool full_ = false;
  mutable std::vector<bool> seen_;
  mutable std::vector<uint32_t> visited_;
};

}  // namespace

Result<std::shared_ptr<const Automaton>> compile(const Rules& rules, const GrammarLimits& limits) {
  return Builder(rules, limits).run();
}

}  // namespace hetero::grammar
