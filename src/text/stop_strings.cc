#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

namespace hetero {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase(stops_, "");
}

std::string StopStrings::push(std::string_view text) {
  if (stopped_) {
    return {};
  }
  held_ += text;
  size_t found = std::string::npos;  // where the stop that is complete first begins
  size_t found_end = std::string::npos;
  size_t keep = 0;  // longest tail that could become one
  for (const std::string& stop : stops_) {
    if (const size_t at = held_.find(stop);
        at != std::string::npos &&
        (at + stop.size() < found_end || (at + stop.size() == found_end && at < found))) {
      found = at;
      found_end = at + stop.size();
    }
    const std::string_view view = held_;
    for (size_t n = std::min(stop.size() - 1, view.size()); n > keep; --n) {
      if (view.substr(view.size() - n) == std::string_view(stop).substr(0, n)) {
        keep = n;
        break;
      }
    }
  }
  if (found != std::string::npos) {
    stopped_ = true;
    std::string shown = held_.substr(0, found);
    held_.clear();
    return shown;
  }
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return shown;
}

std::string StopStrings::finish() {
  return stopped_ ? std::string() : std::exchange(held_, {});
}

}  // namespace hetero
