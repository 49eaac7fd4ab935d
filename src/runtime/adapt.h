// When a processor has become slower, or faster again, than its plan assumes: throttled, or used by
// another program.
#pragma once

#include <optional>
#include <vector>

#include "base/clock.h"

namespace hetero {

/// Looks at what each pass took. Pure: time is given to it.
class Adaptation {
 public:
  /// A processor must differ from what was predicted by this factor, either way, ...
  static constexpr double kFactor = 1.2;
  /// ... and for this long.
  static constexpr Nanos kTime = std::chrono::seconds(1);

  struct Change {
    int processor = 0;
    double slower = 1.0;  // times the predicted duration
  };

  /// `processor` ran for `busy` in a pass that ended `now`, where `predicted` was expected.
  void saw(int processor, Nanos busy, Nanos predicted, Nanos now);

  /// A change that calls for a new plan, once. What is seen from here on is compared anew.
  std::optional<Change> take(Nanos now);

  /// Forgets everything: there is a new plan.
  void reset() { states_.clear(); }

 private:
  struct State {
    int direction = 0;  // -1: faster than predicted, 1: slower, 0: as predicted
    Nanos since{};
    Nanos busy{};  // since then
    Nanos predicted{};
  };
  std::vector<State> states_;  // by processor
};

}  // namespace hetero
