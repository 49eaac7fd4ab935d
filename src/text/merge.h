// The merging loop that BPE and SPM share: neighbours join, best pair first, until no pair is left.
// O(n log n): a heap of candidate pairs over a linked list of symbols, where outdated candidates
// are recognised and skipped when they come up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace hetero {

/// A run of bytes of the text that is being merged. length 0: joined to its left neighbour.
struct Symbol {
  uint32_t begin = 0;
  uint32_t length = 0;
  int32_t id = -1;
  int32_t prev = -1;
  int32_t next = -1;
};

/// What a pair would become. Lower priority values are merged first, ties from the left.
struct Merge {
  double priority = 0;
  int32_t id = -1;
};

class Merger {
 public:
  std::vector<Symbol>& symbols() { return symbols_; }

  /// Appends a symbol to the list.
  void add(uint32_t begin, uint32_t length, int32_t id) {
    const auto index = static_cast<int32_t>(symbols_.size());
    if (index > 0) {
      symbols_.back().next = index;
    }
    symbols_.push_back({begin, length, id, index - 1, -1});
  }

  /// `lookup(const Symbol& left, const Symbol& right)` gives an optional<Merge>.
  template <class Lookup>
  void run(const Lookup& lookup) {
    heap_.clear();
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols_.size()); ++i) {
      propose(i, lookup);
    }
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), later);
      const Candidate c = heap_.back();
      heap_.pop_back();
      Symbol& left = symbols_[static_cast<size_t>(c.left)];
      // A symbol only ever grows to the right, so the pair is unchanged exactly if its length is.
      if (left.length == 0 || left.next < 0) {
        continue;
      }
      Symbol& right = symbols_[static_cast<size_t>(left.next)];
      if (left.length + right.length != c.length) {
        continue;
      }
      left.length = c.length;
      left.id = c.id;
      left.next = right.next;
      right.length = 0;
      if (left.next >= 0) {
        symbols_[static_cast<size_t>(left.next)].prev = c.left;
        propose(c.left, lookup);
      }
      if (left.prev >= 0) {
        propose(left.prev, lookup);
      }
    }
  }

 private:
  struct Candidate {
    double priority;
    int32_t left;
    uint32_t length;
    int32_t id;
  };

  static bool later(const Candidate& a, const Candidate& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.left > b.left;
  }

  template <class Lookup>
  void propose(int32_t i, const Lookup& lookup) {
    const Symbol& left = symbols_[static_cast<size_t>(i)];
    const Symbol& right = symbols_[static_cast<size_t>(left.next)];
    if (const std::optional<Merge> merge = lookup(left, right)) {
      heap_.push_back({merge->priority, i, left.length + right.length, merge->id});
      std::push_heap(heap_.begin(), heap_.end(), later);
    }
  }

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace hetero
