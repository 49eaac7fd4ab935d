// Which variant of a kernel is the fastest on a device, found by trying, and kept.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"

namespace hetero {

/// Not thread-safe. Choices are kept in a text file, a line for each: the key, the choice, and after
/// them all times for whoever wants to read them. A file that is unreadable is as good as none.
class KernelTuner {
 public:
  /// `path`: the file, empty for none. Without `trying`, the first variant is taken unless the file
  /// or the environment says otherwise.
  KernelTuner(std::string path, bool trying);

  /// One of `variants`, not empty. `time` gives nanoseconds; a variant that it fails for is not
  /// taken. `kind` names what is chosen: HETERO_OPENCL_<KIND>, where set, is taken untried.
  Result<std::string> choose(const std::string& key, const std::string& kind,
                             const std::vector<std::string>& variants,
                             const std::function<Result<double>(const std::string&)>& time);

 private:
  void load();
  void store() const;

  struct Choice {
    std::string variant;
    std::string times;
  };

  std::string path_;
  bool trying_;
  std::map<std::string, Choice> choices_;
};

}  // namespace hetero
