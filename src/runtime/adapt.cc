#include "runtime/adapt.h"

namespace hetero {

void Adaptation::saw(int processor, Nanos busy, Nanos predicted, Nanos now) {
  if (predicted <= Nanos{} || busy <= Nanos{}) {
    return;
  }
  const auto p = static_cast<size_t>(processor);
  if (states_.size() <= p) {
    states_.resize(p + 1);
  }
  State& s = states_[p];
  const double ratio = static_cast<double>(busy.count()) / static_cast<double>(predicted.count());
  const int direction = ratio > kFactor ? 1 : ratio < 1.0 / kFactor ? -1 : 0;
  if (direction != s.direction) {
    s = {direction, now, {}, {}};
  }
  s.busy += busy;
  s.predicted += predicted;
}

std::optional<Adaptation::Change> Adaptation::take(Nanos now) {
  for (size_t p = 0; p < states_.size(); ++p) {
    State& s = states_[p];
    if (s.direction != 0 && now - s.since > kTime) {
      const Change change{static_cast<int>(p),
                          static_cast<double>(s.busy.count()) / static_cast<double>(s.predicted.count())};
      states_.clear();
      return change;
    }
  }
  return std::nullopt;
}

}  // namespace hetero
