// A record of what ran where and when, in the Trace Event Format that chrome://tracing and
// Perfetto read ("X" events, one thread for each processor).
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "processor/processor.h"

namespace hetero {

class Trace {
 public:
  struct Event {
    std::string processor;
    std::string name;
    Interval interval;
    int64_t tokens;
    Nanos predicted;
  };

  /// `predicted`: how long it should have taken, by the plan or by what was seen before; zero: unknown.
  void add(const std::string& processor, const std::string& name, Interval interval, int64_t tokens,
           Nanos predicted);
  /// Writes what was recorded so far.
  Status write(const std::string& path) const;
  size_t size() const { return events_.size(); }
  const std::vector<Event>& events() const { return events_; }

 private:
  std::vector<Event> events_;
};

}  // namespace hetero
