#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "text/grammar.h"
#include "text/grammar_automaton.h"

namespace hetero {
namespace {

constexpr uint32_t kBottom = 0;  // of the stack: the root's end is the text's end
constexpr uint32_t kDead = 0;    // the empty set of positions
constexpr size_t kMostStates = 20'000;
constexpr size_t kMostMasks = 256;

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer) {
  const auto count = static_cast<size_t>(tokenizer.size());
  pieces_.resize(count);
  ends_.resize(count);
  std::vector<TokenId> order;
  for (size_t i = 0; i < count; ++i) {
    const auto id = static_cast<TokenId>(i);
    pieces_[i] = tokenizer.piece(id, false);
    ends_[i] = tokenizer.is_end(id);
    if (!pieces_[i].empty() && pieces_[i].size() < 0xFFFF && !ends_[i]) {
      order.push_back(id);
    }
  }
  std::sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return piece(a) < piece(b); });
  std::vector<uint32_t> open;  // nodes from the root to the last one, by depth
  const auto close = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) {
      nodes_[open.back()].end = static_cast<uint32_t>(nodes_.size());
    }
  };
  std::string_view before;
  for (const TokenId id : order) {
    const std::string_view text = piece(id);
    const auto same = static_cast<size_t>(
        std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first - text.begin());
    // A token with the bytes of another one gets a node of its own beside the other's.
    const size_t shared = same == text.size() ? same - 1 : same;
    close(shared);
    for (size_t d = shared; d < text.size(); ++d) {
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back(
          {0, d + 1 == text.size() ? id : -1, static_cast<uint16_t>(d), static_cast<uint8_t>(text[d])});
    }
    depth_ = std::max(depth_, text.size());
    before = text;
  }
  close(0);
}

size_t GrammarMatcher::Hash::operator()(const std::vector<Configuration>& set) const {
  uint64_t h = set.size();
  for (const Configuration& c : set) {
    h = (h ^ (uint64_t{c.state} << 32 | c.stack)) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
  }
  return static_cast<size_t>(h);
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::move(grammar)), trie_(std::move(trie)) {
  stack_.push_back({0, 0, 0});
  states_.emplace_back();
  transitions_.assign(grammar_->automaton().class_example.size(), 0);
  current_ = close({{grammar_->automaton().entries[0], kBottom}});
}

uint32_t GrammarMatcher::push(uint32_t state, uint32_t below) {
  // A rule called at the very end of another one returns straight to that one's caller, so lists
  // written by recursion at their end need no more stack with every element.
  if (grammar_->automaton().states[state].only_ends()) {
    return below;
  }
  const auto [it, added] =
      stack_index_.emplace(uint64_t{state} << 32 | below, static_cast<uint32_t>(stack_.size()));
  if (added) {
    stack_.push_back({state, below, stack_[below].depth + 1});
  }
  return it->second;
}

uint32_t GrammarMatcher::close(std::vector<Configuration> work) {
  const grammar::Automaton& a = grammar_->automaton();
  std::vector<Configuration> seen = work;
  std::unordered_map<uint64_t, bool> known;  // used once the list gets long
  const auto add = [&](uint32_t state, uint32_t stack) {
    const Configuration c{state, stack};
    if (known.empty() && seen.size() >= 16) {
      for (const Configuration& s : seen) {
        known.emplace(uint64_t{s.state} << 32 | s.stack, true);
      }
    }
    if (seen.size() < 16 ? std::find(seen.begin(), seen.end(), c) != seen.end()
                         : !known.emplace(uint64_t{state} << 32 | stack, true).second) {
      return;
    }
    seen.push_back(c);
    work.push_back(c);
  };
  SetOfPositions set;
  while (!work.empty()) {
    const Configuration c = work.back();
    work.pop_back();
    const grammar::Automaton::State& s = a.states[c.state];
    if (!s.bytes.empty()) {
      set.configurations.push_back(c);
    }
    if (s.end && c.stack == kBottom) {
      set.may_end = true;
    } else if (s.end) {
      const StackNode top = stack_[c.stack];
      add(top.state, top.below);
    }
    for (const uint32_t next : s.empty) {
      add(next, c.stack);
    }
    for (const auto& call : s.calls) {
      if (stack_[c.stack].depth < grammar_->limits().stack) {
        add(a.entries[call.rule], push(call.back, c.stack));
      }
    }
    if (seen.size() > grammar_->limits().threads) {
      too_ambiguous_ = true;
      return kDead;
    }
  }
  if (set.configurations.empty() && !set.may_end) {
    return kDead;
  }
  std::sort(set.configurations.begin(), set.configurations.end(),
            [](const Configuration& x, const Configuration& y) {
              return x.state != y.state ? x.state < y.state : x.stack < y.stack;
            });
  set.configurations.erase(std::unique(set.configurations.begin(), set.configurations.end()),
                           set.configurations.end());
  auto& index = set.may_end ? ending_ : going_on_;
  const auto [it, added] = index.emplace(set.configurations, static_cast<uint32_t>(states_.size()));
  if (added) {
    states_.push_back(std::move(set));
    transitions_.resize(transitions_.size() + a.class_example.size(), -1);
  }
  return it->second;
}

uint32_t GrammarMatcher::step(uint32_t set, uint8_t byte) {
  const grammar::Automaton& a = grammar_->automaton();
  const uint8_t byte_class = a.byte_class[byte];
  const size_t slot = set * a.class_example.size() + byte_class;
  if (transitions_[slot] >= 0) {
    return static_cast<uint32_t>(transitions_[slot]);
  }
  const uint8_t example = a.class_example[byte_class];
  std::vector<Configuration> next;
  for (const Configuration& c : states_[set].configurations) {
    for (const auto& edge : a.states[c.state].bytes) {
      if (example >= edge.low && example <= edge.high) {
        next.push_back({edge.target, c.stack});
      }
    }
  }
  const uint32_t target = next.empty() ? kDead : close(std::move(next));
  transitions_[slot] = static_cast<int32_t>(target);
  return target;
}

uint32_t GrammarMatcher::walk(uint32_t set, std::string_view bytes) {
  for (const char byte : bytes) {
    set = step(set, static_cast<uint8_t>(byte));
    if (set == kDead) {
      break;
    }
  }
  return set;
}

bool GrammarMatcher::allows(TokenId id) {
  if (id < 0 || id >= trie_->vocabulary()) {
    return false;
  }
  if (trie_->is_end(id)) {
    return may_end();
  }
  const std::string& piece = trie_->piece(id);
  return !piece.empty() && walk(current_, piece) != kDead;
}

bool GrammarMatcher::allows_text(std::string_view bytes) {
  return walk(current_, bytes) != kDead;
}

const std::vector<bool>& GrammarMatcher::allowed() {
  if (const auto known = masks_.find(current_); known != masks_.end()) {
    return known->second;
  }
  if (masks_.size() >= kMostMasks) {
    masks_.clear();
  }
  std::vector<bool>& mask = masks_[current_];
  mask.assign(static_cast<size_t>(trie_->vocabulary()), false);
  const std::span<const TokenTrie::Node> nodes = trie_->nodes();
  path_.assign(trie_->depth() + 1, kDead);
  path_[0] = current_;
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& n = nodes[i];
    const uint32_t set = step(path_[n.depth], n.byte);
    if (set == kDead) {
      i = n.end;
      continue;
    }
    path_[n.depth + 1u] = set;
    if (n.token >= 0) {
      mask[static_cast<size_t>(n.token)] = true;
    }
    ++i;
  }
  if (may_end()) {
    for (int64_t id = 0; id < trie_->vocabulary(); ++id) {
      if (trie_->is_end(static_cast<TokenId>(id))) {
        mask[static_cast<size_t>(id)] = true;
      }
    }
  }
  return mask;
}

Status GrammarMatcher::accept(TokenId id) {
  const uint32_t next = id >= 0 && id < trie_->vocabulary() && !trie_->piece(id).empty()
                            ? walk(current_, trie_->piece(id))
                            : kDead;
  if (next == kDead) {
    return too_ambiguous_ ? resource_exhausted(fmt::format(
                                "the grammar is too ambiguous: the text can be read in more than {} ways",
                                grammar_->limits().threads))
                          : internal_error(fmt::format("token {} does not follow the grammar", id));
  }
  current_ = next;
  if (states_.size() > kMostStates) {
    forget();
  }
  return {};
}

/// Starts the table anew with the present set of positions and the stacks that it needs.
void GrammarMatcher::forget() {
  std::vector<Configuration> present = states_[current_].configurations;
  const bool ends = states_[current_].may_end;
  const std::vector<StackNode> old = std::move(stack_);
  stack_.clear();
  stack_.push_back({0, 0, 0});
  stack_index_.clear();
  states_.assign(1, {});
  ending_.clear();
  going_on_.clear();
  masks_.clear();
  transitions_.assign(grammar_->automaton().class_example.size(), 0);
  std::vector<uint32_t> chain;
  for (Configuration& c : present) {
    chain.clear();
    for (uint32_t at = c.stack; at != kBottom; at = old[at].below) {
      chain.push_back(old[at].state);
    }
    c.stack = std::accumulate(chain.rbegin(), chain.rend(), kBottom,
                              [&](uint32_t below, uint32_t state) { return push(state, below); });
  }
  std::sort(present.begin(), present.end(), [](const Configuration& x, const Configuration& y) {
    return x.state != y.state ? x.state < y.state : x.stack < y.stack;
  });
  current_ = 1;
  (ends ? ending_ : going_on_).emplace(present, current_);
  states_.push_back({std::move(present), ends});
  transitions_.resize(transitions_.size() + grammar_->automaton().class_example.size(), -1);
}

}  // namespace hetero
