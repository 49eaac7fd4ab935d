// The compiled form of a grammar: one nondeterministic automaton over bytes for each rule, joined by
// calls.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "text/grammar.h"
#include "text/grammar_ast.h"

namespace hetero::grammar {

struct Automaton {
  struct ByteEdge {
    uint8_t low;
    uint8_t high;
    uint32_t target;
  };
  struct Call {
    uint32_t rule;
    uint32_t back;  // the state to go on at
  };
  struct State {
    std::vector<ByteEdge> bytes;
    std::vector<uint32_t> empty;  // targets of edges that read nothing
    std::vector<Call> calls;
    bool end = false;  // of its rule

    bool only_ends() const { return end && bytes.empty() && empty.empty() && calls.empty(); }
  };
  std::vector<State> states;
  std::vector<uint32_t> entries;  // first state of each rule; rule 0 is the root
  // Bytes that no edge tells apart share a class.
  std::array<uint8_t, 256> byte_class{};
  std::vector<uint8_t> class_example;  // one byte of each class
};

/// Fails on rules that are left-recursive or can never end, naming them, and on exceeded limits.
Result<std::shared_ptr<const Automaton>> compile(const Rules& rules, const GrammarLimits& limits);

}  // namespace hetero::grammar
