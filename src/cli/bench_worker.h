// One configuration of `hetero bench`, measured in a process of its own. Drivers keep threads,
// confinement to cores and memory for a whole process, so engines that share one would disturb each
// other and nobody could say how much memory each of them takes.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "base/status.h"
#include "cli/commands.h"
#include "engine/speed.h"

namespace hetero {

/// Where a worker's process stands: (what, done, total), total 0 where it is unknown.
using WorkerProgress = std::function<void(const std::string&, int, int)>;

/// The parent's end. Owns the process and ends it when destroyed. Calls block until the answer is
/// there; Ctrl-C makes them return Code::kCancelled. One thread.
class BenchWorker {
 public:
  /// Forks. Must be called before this process has threads or loads a driver. `seed` is that of the
  /// tokens which it draws.
  static Result<std::unique_ptr<BenchWorker>> start(const ModelOptions& options, uint64_t seed);
  ~BenchWorker();
  BenchWorker(const BenchWorker&) = delete;
  BenchWorker& operator=(const BenchWorker&) = delete;

  /// Opens the engine. The answer describes it; see describe() in the source.
  Result<nlohmann::ordered_json> open(const WorkerProgress& progress);
  Status warm_up(const SpeedTest& test, const WorkerProgress& progress);
  /// Tokens per second of one run.
  Result<double> sample(const SpeedTest& test);
  /// {resident_bytes, device_bytes}: at its highest so far.
  Result<nlohmann::ordered_json> memory();

 private:
  BenchWorker(pid_t pid, int commands, int answers) : pid_(pid), commands_(commands), answers_(answers) {}
  Result<nlohmann::ordered_json> ask(const nlohmann::ordered_json& command, const WorkerProgress& progress);
  Result<std::string> read_line();

  pid_t pid_;
  int commands_;
  int answers_;
  std::string pending_;  // read, but not yet a whole line
};

}  // namespace hetero
