// What was compiled, and a thread that compiles ahead.
#pragma once

#include <compare>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "processor/processor.h"

namespace hetero {

/// One call of Processor::compile.
struct Compilation {
  Processor* processor = nullptr;
  int op = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t tokens = 0;
  bool exchanged = false;

  OpSlice slice() const { return {op, begin, end, exchanged}; }
  auto operator<=>(const Compilation&) const = default;
};

/// Executables of one graph, by what they are compiled from. Thread-safe. The graph and the
/// processors outlive it.
class Executables {
 public:
  explicit Executables(const Graph& graph) : graph_(graph) {}

  const Graph& graph() const { return graph_; }
  bool has(const Compilation& what) const;
  /// Compiles it, unless that was done before.
  Result<std::shared_ptr<const Executable>> get(const Compilation& what);
  /// Frees those that nobody else holds.
  void drop_unused();
  size_t size() const;

 private:
  const Graph& graph_;
  mutable std::mutex mutex_;
  std::map<Compilation, std::shared_ptr<const Executable>> map_;
};

/// Compiles in a thread of its own, in the order in which it was asked. All calls from the control
/// thread.
class CompileThread {
 public:
  explicit CompileThread(std::shared_ptr<Executables> executables);
  /// Waits for the compilation that runs, and leaves the others.
  ~CompileThread();
  CompileThread(const CompileThread&) = delete;
  CompileThread& operator=(const CompileThread&) = delete;

  void add(const std::vector<Compilation>& what);
  /// Forgets what has not begun.
  void clear();
  bool idle() const;
  int done() const;
  int total() const;
  /// The first error since the last call, and whose it is (nullptr: none).
  struct Failure {
    Processor* processor = nullptr;
    Status status;
  };
  Failure take_failure();

 private:
  void work();

  std::shared_ptr<Executables> executables_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Compilation> queue_;
  std::vector<std::shared_ptr<const Executable>> kept_;  // until someone takes them
  Failure failure_;
  int added_ = 0;
  int done_ = 0;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace hetero
