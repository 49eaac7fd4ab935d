// A processor for tests: computes by the reference, with scripted delays and failures. Plays a
// GPU, an NPU with static shapes, or a device with memory of its own.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/threads.h"
#include "graph/reference.h"
#include "processor/host_timeline.h"
#include "processor/processor.h"

namespace hetero {

struct FakeScript {
  Traits traits;
  std::vector<std::string> refuses;  // kinds of operators that supports() turns down
  Nanos delay{};                     // before each submission's work
  uint64_t fail_at = 0;              // this submission fails with kDeviceLost; 0: none
  bool fail_compile = false;
  Nanos compile_delay{};  // of each compilation; with one, nothing counts as cached
  float error = 0.0f;     // relative error of every result
};

class FakeProcessor : public Processor {
 public:
  FakeProcessor(std::string id, std::string kind, FakeScript script = {});
  ~FakeProcessor() override;

  const ProcessorInfo& info() const override { return info_; }
  const Traits& traits() const override { return script_.traits; }
  Status supports(const Graph& graph, const OpSlice& slice) const override;
  Result<std::unique_ptr<Buffer>> import(std::byte* host, Bytes size) override;
  Result<std::unique_ptr<Executable>> compile(const Graph& graph, const OpSlice& slice,
                                              int64_t tokens) override;
  bool is_cached(const Graph& graph, const OpSlice& slice, int64_t tokens) override;
  Result<Fence> submit(const Executable& executable, const Launch& launch) override;
  Result<Fence> upload(Buffer& buffer, const Region& region) override;
  Result<Fence> download(Buffer& buffer, const Region& region) override;
  void expect_copies(Buffer& buffer) override { expected_.insert(&buffer); }
  Status finish() override;
  Status remap(Buffer& buffer, Bytes offset, Bytes size) override;
  void rouse() override { ++roused_; }
  Timeline& timeline() override { return timeline_; }

  /// FakeScript::delay, from now on.
  void set_delay(Nanos delay) { delay_ = delay; }

  // What happened, for tests.
  int compiled() const { return compiled_; }
  int exchanged() const { return exchanged_; }  // of them, with OpSlice::exchanged
  int submitted() const { return submitted_; }
  int transfers() const { return transfers_; }
  int unexpected_transfers() const { return unexpected_transfers_; }  // without expect_copies()
  int finishes() const { return finishes_; }
  int remaps() const { return remaps_; }
  int roused() const { return roused_; }
  /// The most submissions that were waiting or running at once.
  uint64_t most_in_flight() const { return most_in_flight_; }

 private:
  Result<Fence> enqueue(std::function<Status()> work);
  void work();

  ProcessorInfo info_;
  FakeScript script_;
  std::atomic<Nanos> delay_;
  HostTimeline timeline_;
  std::atomic<int> compiled_ = 0;
  std::atomic<int> exchanged_ = 0;
  int submitted_ = 0;
  int transfers_ = 0;
  int unexpected_transfers_ = 0;
  std::set<const Buffer*> expected_;
  int finishes_ = 0;
  int remaps_ = 0;
  int roused_ = 0;
  uint64_t most_in_flight_ = 0;
  uint64_t done_ = 0;  // submissions that are known to be done

  std::mutex mutex_;
  std::deque<std::function<Status()>> queue_;
  WorkBell bell_;       // one post for each job, and the end
  std::thread thread_;  // last: it uses the members above
};

}  // namespace hetero
