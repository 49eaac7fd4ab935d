// What the readers of grammars (grammar_gbnf.cc, grammar_schema.cc) hand to the compiler.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace hetero::grammar {

/// Code points low..high.
struct Range {
  char32_t low = 0;
  char32_t high = 0;
};

struct Expr;
using ExprPtr = std::shared_ptr<const Expr>;

struct Expr {
  enum class Kind {
    kText,      // these bytes
    kClass,     // one code point of the ranges, in UTF-8
    kRule,      // what rule `rule` matches
    kSequence,  // the parts one after another; none: the empty text
    kChoice,    // one of the parts
    kRepeat,    // parts[0], min to max times; max -1: without end
  };
  Kind kind = Kind::kSequence;
  std::string text;
  std::vector<Range> ranges;
  int rule = -1;
  std::vector<ExprPtr> parts;
  int64_t min = 0;
  int64_t max = -1;
};

ExprPtr text(std::string bytes);
/// Of any order, overlapping or not; surrogates are left out.
ExprPtr one_of(std::vector<Range> ranges);
ExprPtr none_of(std::vector<Range> ranges);
ExprPtr rule(int index);
ExprPtr sequence(std::vector<ExprPtr> parts);
ExprPtr choice(std::vector<ExprPtr> parts);
ExprPtr repeat(ExprPtr part, int64_t min, int64_t max);
ExprPtr optional(ExprPtr part);

/// Sorted, joined where they touch, without surrogates.
std::vector<Range> normalized(std::vector<Range> ranges);
std::vector<Range> complement(std::vector<Range> ranges);

/// Rules by index; the root is rule 0. A body may be set after other rules refer to it.
struct Rules {
  std::vector<std::string> names;
  std::vector<ExprPtr> bodies;

  int add(std::string name) {
    names.push_back(std::move(name));
    bodies.push_back(nullptr);
    return static_cast<int>(names.size()) - 1;
  }
};

}  // namespace hetero::grammar
