#include "runtime/trace.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace hetero {

void Trace::add(const std::string& processor, const std::string& name, Interval interval, int64_t tokens,
                Nanos predicted) {
  events_.push_back({processor, name, interval, tokens, predicted});
}

Status Trace::write(const std::string& path) const {
  std::map<std::string, int> threads;
  auto list = nlohmann::json::array();
  Nanos start = events_.empty() ? Nanos{} : events_.front().interval.begin;
  for (const Event& e : events_) {
    start = std::min(start, e.interval.begin);
  }
  const auto micros = [](Nanos t) { return static_cast<double>(t.count()) / 1000.0; };
  for (const Event& e : events_) {
    const auto [thread, added] = threads.try_emplace(e.processor, static_cast<int>(threads.size()));
    if (added) {
      list.push_back({{"name", "thread_name"},
                      {"ph", "M"},
                      {"pid", 0},
                      {"tid", thread->second},
                      {"args", {{"name", e.processor}}}});
    }
    nlohmann::json args = {{"tokens", e.tokens}, {"measured_us", micros(e.interval.end - e.interval.begin)}};
    if (e.predicted > Nanos{}) {
      args["predicted_us"] = micros(e.predicted);
    }
    list.push_back({{"name", e.name},
                    {"ph", "X"},
                    {"pid", 0},
                    {"tid", thread->second},
                    {"ts", micros(e.interval.begin - start)},
                    {"dur", micros(e.interval.end - e.interval.begin)},
                    {"args", std::move(args)}});
  }
  std::ofstream file(path);
  file << nlohmann::json{{"traceEvents", std::move(list)}, {"displayTimeUnit", "ms"}}.dump() << '\n';
  file.close();
  if (!file) {
    return io_error("cannot write the trace to " + path);
  }
  return {};
}

}  // namespace hetero
