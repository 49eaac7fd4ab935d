// Numbers in a range, as expressions over their decimal digits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/grammar_schema.h"

namespace hetero::grammar {
namespace {

constexpr int kDigits = 15;  // of integers: all of them are exact in a double
constexpr int64_t kMost = 999'999'999'999'999;
constexpr int kDecimals = 6;
constexpr int64_t kUnit = 1'000'000;  // 10^kDecimals

ExprPtr digit(int low, int high) {
  return one_of({{static_cast<char32_t>('0' + low), static_cast<char32_t>('0' + high)}});
}
ExprPtr any_digits(int min, int max) {
  return repeat(digit(0, 9), min, max);
}

/// Digit strings of equal length between low and high, from position i on.
ExprPtr same_length(const std::string& low, const std::string& high, size_t i, bool at_low, bool at_high) {
  if (i == low.size()) {
    return sequence({});
  }
  if (!at_low && !at_high) {
    const auto rest = static_cast<int>(low.size() - i);
    return any_digits(rest, rest);
  }
  const int a = at_low ? low[i] - '0' : 0;
  const int b = at_high ? high[i] - '0' : 9;
  if (a == b) {
    return sequence({digit(a, a), same_length(low, high, i + 1, at_low, at_high)});
  }
  std::vector<ExprPtr> ways;
  int first = a;
  int last = b;
  if (at_low) {
    ways.push_back(sequence({digit(a, a), same_length(low, high, i + 1, true, false)}));
    ++first;
  }
  if (at_high) {
    ways.push_back(sequence({digit(b, b), same_length(low, high, i + 1, false, true)}));
    --last;
  }
  if (first <= last) {
    ways.push_back(sequence({digit(first, last), same_length(low, high, i + 1, false, false)}));
  }
  return choice(std::move(ways));
}

/// 0 <= low <= high
ExprPtr natural(int64_t low, int64_t high) {
  std::vector<ExprPtr> ways;
  int64_t power = 10;
  for (int length = 1; length <= kDigits; ++length, power *= 10) {
    const int64_t a = std::max(low, length == 1 ? 0 : power / 10);
    const int64_t b = std::min(high, power - 1);
    if (a <= b) {
      ways.push_back(same_length(std::to_string(a), std::to_string(b), 0, true, true));
    }
  }
  return choice(std::move(ways));
}

/// What stands behind the integer part so that its millionths are between low and high: nothing, or a
/// point and up to six digits.
ExprPtr decimals_from(const std::string& low, const std::string& high, size_t i, bool at_low, bool at_high) {
  const auto rest = static_cast<int>(kDecimals - i);
  if (!at_low && !at_high) {
    return any_digits(i == 0 ? 1 : 0, rest);
  }
  std::vector<ExprPtr> ways;
  if (i > 0 && (!at_low || low.find_first_not_of('0', i) == std::string::npos)) {
    ways.push_back(sequence({}));  // the digits left out are zeros
  }
  if (rest > 0) {
    const int a = at_low ? low[i] - '0' : 0;
    const int b = at_high ? high[i] - '0' : 9;
    for (int d = a; d <= b; ++d) {
      const bool low_edge = at_low && d == a;
      const bool high_edge = at_high && d == b;
      if (low_edge || high_edge) {
        ways.push_back(sequence({digit(d, d), decimals_from(low, high, i + 1, low_edge, high_edge)}));
      }
    }
    const int first = a + (at_low ? 1 : 0);
    const int last = b - (at_high ? 1 : 0);
    if (first <= last) {
      ways.push_back(sequence({digit(first, last), decimals_from(low, high, i + 1, false, false)}));
    }
  }
  return choice(std::move(ways));
}

ExprPtr decimals(int64_t low, int64_t high) {
  const std::string a = fmt::format("{:06}", low);
  const std::string b = fmt::format("{:06}", high);
  ExprPtr point = sequence({text("."), decimals_from(a, b, 0, low > 0, high < kUnit - 1)});
  return low > 0 ? point : optional(std::move(point));
}

/// A number that is not negative, as whole part and millionths.
struct Fixed {
  int64_t whole = 0;
  int64_t millionths = 0;
  bool operator<=(const Fixed& o) const {
    return whole != o.whole ? whole < o.whole : millionths <= o.millionths;
  }
};

ExprPtr fixed_between(const Fixed& low, const Fixed& high) {
  if (low.whole == high.whole) {
    return sequence({natural(low.whole, low.whole), decimals(low.millionths, high.millionths)});
  }
  std::vector<ExprPtr> ways = {sequence({natural(low.whole, low.whole), decimals(low.millionths, kUnit - 1)}),
                               sequence({natural(high.whole, high.whole), decimals(0, high.millionths)})};
  if (low.whole + 1 < high.whole) {
    ways.push_back(sequence({natural(low.whole + 1, high.whole - 1), decimals(0, kUnit - 1)}));
  }
  return choice(std::move(ways));
}

Status empty_range(const NumberBounds& b) {
  return malformed(fmt::format("no number is {} {} and {} {}", b.low_open ? "above" : "at least",
                               b.low.value_or(-INFINITY), b.high_open ? "below" : "at most",
                               b.high.value_or(INFINITY)));
}

/// A bound in millionths.
Result<int64_t> in_millionths(double bound) {
  const double scaled = std::round(bound * static_cast<double>(kUnit));
  if (!(std::abs(bound) <= 1e9) ||
      std::abs(scaled / static_cast<double>(kUnit) - bound) > std::abs(bound) * 1e-15) {
    return unsupported(
        fmt::format("the bound {} is above 1e9 or has more than {} decimals", bound, kDecimals));
  }
  return static_cast<int64_t>(scaled);
}

}  // namespace

Result<ExprPtr> json_integer(const NumberBounds& b) {
  int64_t low = -kMost;
  int64_t high = kMost;
  if (b.low) {
    const double least = b.low_open ? std::floor(*b.low) + 1 : std::ceil(*b.low);
    if (!(least <= static_cast<double>(kMost))) {
      return unsupported(fmt::format("the bound {} has more than {} digits", *b.low, kDigits));
    }
    low = std::max(low, static_cast<int64_t>(std::max(least, -1e18)));
  }
  if (b.high) {
    const double most = b.high_open ? std::ceil(*b.high) - 1 : std::floor(*b.high);
    if (!(most >= -static_cast<double>(kMost))) {
      return unsupported(fmt::format("the bound {} has more than {} digits", *b.high, kDigits));
    }
    high = std::min(high, static_cast<int64_t>(std::min(most, 1e18)));
  }
  if (low > high) {
    return empty_range(b);
  }
  std::vector<ExprPtr> ways;
  if (high >= 0) {
    ways.push_back(natural(std::max<int64_t>(low, 0), high));
  }
  if (low < 0) {
    ways.push_back(sequence({text("-"), natural(high < 0 ? -high : 1, -low)}));
  }
  return choice(std::move(ways));
}

Result<ExprPtr> json_number(const NumberBounds& b) {
  if (!b.low && !b.high) {
    return sequence({optional(text("-")), natural(0, kMost),
                     optional(sequence({text("."), any_digits(1, kDigits)})),
                     optional(sequence({one_of({{'e', 'e'}, {'E', 'E'}}),
                                        optional(one_of({{'+', '+'}, {'-', '-'}})), any_digits(1, 2)}))});
  }
  // Bounds in millionths; a side without one ends where integers do.
  std::optional<int64_t> low, high;
  if (b.low) {
    HETERO_TRY(low, in_millionths(*b.low));
    *low += b.low_open ? 1 : 0;
  }
  if (b.high) {
    HETERO_TRY(high, in_millionths(*b.high));
    *high -= b.high_open ? 1 : 0;
  }
  if (low && high && *low > *high) {
    return empty_range(b);
  }
  const Fixed farthest{kMost, kUnit - 1};
  const auto fixed = [](int64_t millionths) { return Fixed{millionths / kUnit, millionths % kUnit}; };
  std::vector<ExprPtr> ways;
  if (!high || *high >= 0) {
    ways.push_back(fixed_between(low && *low > 0 ? fixed(*low) : Fixed{}, high ? fixed(*high) : farthest));
  }
  if (!low || *low < 0) {
    ways.push_back(sequence({text("-"), fixed_between(high && *high < 0 ? fixed(-*high) : Fixed{0, 1},
                                                      low ? fixed(-*low) : farthest)}));
  }
  return choice(std::move(ways));
}

}  // namespace hetero::grammar
