// A processor on top of any provider: queue, timeline, and graphs shared between lengths.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/threads.h"
#include "npu/provider.h"
#include "processor/host_timeline.h"
#include "processor/processor.h"

namespace hetero {

/// Runs Linear operators, each for exactly the number of tokens that it was compiled for. One
/// thread owns the device's runs and takes submissions in order.
class NpuProcessor : public Processor {
 public:
  NpuProcessor(ProcessorInfo info, double unit_roundoff, std::unique_ptr<NpuDevice> device,
               std::vector<int> cpus);
  /// Finishes what was submitted.
  ~NpuProcessor() override;

  const ProcessorInfo& info() const override { return info_; }
  const Traits& traits() const override { return traits_; }
  Status supports(const Graph& graph, const OpSlice& slice) const override;
  Result<std::unique_ptr<Buffer>> import(std::byte* host, Bytes size) override;
  Result<std::unique_ptr<Executable>> compile(const Graph& graph, const OpSlice& slice,
                                              int64_t tokens) override;
  bool is_cached(const Graph& graph, const OpSlice& slice, int64_t tokens) override;
  Result<Fence> submit(const Executable& executable, const Launch& launch) override;
  void rouse() override { bell_.rouse(); }
  Timeline& timeline() override { return timeline_; }
  Bytes device_bytes() const override { return device_->bytes(); }

 private:
  struct Linked;  // an executable: a graph, for a number of tokens
  struct Job {
    const Linked* linked = nullptr;
    NpuRun run;
    Status refused;  // why it cannot run at all
  };

  NpuLinear describe(const Graph& graph, const OpSlice& slice, int64_t tokens) const;
  Fence enqueue(Job job);
  void work();

  ProcessorInfo info_;
  Traits traits_;
  std::vector<int> cpus_;
  std::unique_ptr<NpuDevice> device_;
  std::mutex compile_mutex_;
  // Under compile_mutex_. A graph lives as long as some executable uses it, and so do the weights that name
  // it here.
  std::map<NpuLinear, std::weak_ptr<NpuGraph>> graphs_;

  HostTimeline timeline_;
  std::mutex mutex_;
  std::deque<Job> queue_;
  WorkBell bell_;  // one post for each job, and the end
  std::thread worker_;
};

}  // namespace hetero
