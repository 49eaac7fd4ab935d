#include "text/grammar_ast.h"

#include <algorithm>
#include <utility>

namespace hetero::grammar {
namespace {

constexpr char32_t kLast = 0x10FFFF;

ExprPtr with_parts(Expr::Kind kind, std::vector<ExprPtr> parts) {
  auto e = std::make_shared<Expr>();
  e->kind = kind;
  e->parts = std::move(parts);
  return e;
}

}  // namespace

ExprPtr text(std::string bytes) {
  auto e = std::make_shared<Expr>();
  e->kind = Expr::Kind::kText;
  e->text = std::move(bytes);
  return e;
}

ExprPtr one_of(std::vector<Range> ranges) {
  auto e = std::make_shared<Expr>();
  e->kind = Expr::Kind::kClass;
  e->ranges = normalized(std::move(ranges));
  return e;
}

ExprPtr none_of(std::vector<Range> ranges) {
  return one_of(complement(std::move(ranges)));
}

ExprPtr rule(int index) {
  auto e = std::make_shared<Expr>();
  e->kind = Expr::Kind::kRule;
  e->rule = index;
  return e;
}

ExprPtr sequence(std::vector<ExprPtr> parts) {
  return with_parts(Expr::Kind::kSequence, std::move(parts));
}

ExprPtr choice(std::vector<ExprPtr> parts) {
  return parts.size() == 1 ? parts[0] : with_parts(Expr::Kind::kChoice, std::move(parts));
}

ExprPtr repeat(ExprPtr part, int64_t min, int64_t max) {
  auto e = std::make_shared<Expr>();
  e->kind = Expr::Kind::kRepeat;
  e->parts = {std::move(part)};
  e->min = min;
  e->max = max;
  return e;
}

ExprPtr optional(ExprPtr part) {
  return repeat(std::move(part), 0, 1);
}

std::vector<Range> normalized(std::vector<Range> ranges) {
  std::vector<Range> cut;
  for (const Range& r : ranges) {  // around the surrogates, which UTF-8 cannot write
    if (r.low < 0xD800) {
      cut.push_back({r.low, std::min<char32_t>(r.high, 0xD7FF)});
    }
    if (r.high > 0xDFFF) {
      cut.push_back({std::max<char32_t>(r.low, 0xE000), std::min(r.high, kLast)});
    }
  }
  std::sort(cut.begin(), cut.end(), [](const Range& a, const Range& b) { return a.low < b.low; });
  std::vector<Range> joined;
  for (const Range& r : cut) {
    if (!joined.empty() && r.low <= joined.back().high + 1) {
      joined.back().high = std::max(joined.back().high, r.high);
    } else {
      joined.push_back(r);
    }
  }
  return joined;
}

std::vector<Range> complement(std::vector<Range> ranges) {
  std::vector<Range> gaps;
  char32_t next = 0;
  for (const Range& r : normalized(std::move(ranges))) {
    if (r.low > next) {
      gaps.push_back({next, r.low - 1});
    }
    next = r.high + 1;
  }
  if (next <= kLast) {
    gaps.push_back({next, kLast});
  }
  return normalized(std::move(gaps));
}

}  // namespace hetero::grammar
