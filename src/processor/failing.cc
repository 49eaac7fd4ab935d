#include "processor/failing.h"

#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace hetero {
namespace {

/// Of tickets up to the last one that reached the real processor, the real one; then the failure.
class FailingTimeline : public Timeline {
 public:
  explicit FailingTimeline(Timeline& real) : real_(real) {}

  void fail(uint64_t last_good, Status error) {
    error_ = std::move(error);
    last_good_ = last_good;
  }
  Status wait(uint64_t ticket) override { return ticket > last_good_ ? error_ : real_.wait(ticket); }
  bool done(uint64_t ticket) override { return ticket > last_good_ || real_.done(ticket); }
  bool wakes() const override { return real_.wakes(); }
  void wait_until(uint64_t ticket, Nanos time) override {
    if (ticket <= last_good_) {
      real_.wait_until(ticket, time);
    }
  }
  Interval interval(uint64_t ticket) override {
    return ticket > last_good_ ? Interval() : real_.interval(ticket);
  }

 private:
  Timeline& real_;
  Status error_;  // written before last_good_, read after it
  std::atomic<uint64_t> last_good_ = UINT64_MAX;
};

class FailingProcessor : public Processor {
 public:
  FailingProcessor(std::unique_ptr<Processor> real, uint64_t at)
      : real_(std::move(real)), timeline_(real_->timeline()), at_(at) {}

  const ProcessorInfo& info() const override { return real_->info(); }
  const Traits& traits() const override { return real_->traits(); }
  Status supports(const Graph& graph, const OpSlice& slice) const override {
    return real_->supports(graph, slice);
  }
  Result<std::unique_ptr<Buffer>> import(std::byte* host, Bytes size) override {
    return real_->import(host, size);
  }
  Result<std::unique_ptr<Executable>> compile(const Graph& graph, const OpSlice& slice,
                                              int64_t tokens) override {
    return real_->compile(graph, slice, tokens);
  }
  bool is_cached(const Graph& graph, const OpSlice& slice, int64_t tokens) override {
    return real_->is_cached(graph, slice, tokens);
  }
  Result<Fence> submit(const Executable& executable, const Launch& launch) override {
    if (++submitted_ >= at_) {
      Status error = device_lost(
          fmt::format("{}: lost at submission {}, as HETERO_FAIL demands", real_->info().id, at_));
      if (submitted_ == at_) {
        timeline_.fail(last_, error);
      }
      return error;
    }
    return ours(real_->submit(executable, launch));
  }
  void flush() override { real_->flush(); }
  void rouse() override { real_->rouse(); }
  Result<Fence> upload(Buffer& buffer, const Region& region) override {
    return ours(real_->upload(buffer, region));
  }
  Result<Fence> download(Buffer& buffer, const Region& region) override {
    return ours(real_->download(buffer, region));
  }
  Status finish() override { return real_->finish(); }
  Status remap(Buffer& buffer, Bytes offset, Bytes size) override {
    return real_->remap(buffer, offset, size);
  }
  Timeline& timeline() override { return timeline_; }
  Clock& clock() override { return real_->clock(); }
  Bytes device_bytes() const override { return real_->device_bytes(); }

 private:
  Result<Fence> ours(Result<Fence> fence) {
    if (fence.ok()) {
      last_ = fence->ticket;
      fence->timeline = &timeline_;
    }
    return fence;
  }

  std::unique_ptr<Processor> real_;
  FailingTimeline timeline_;
  const uint64_t at_;
  uint64_t submitted_ = 0;
  uint64_t last_ = 0;
};

}  // namespace

std::unique_ptr<Processor> make_failing(std::unique_ptr<Processor> real, uint64_t at) {
  return std::make_unique<FailingProcessor>(std::move(real), at);
}

Result<std::unique_ptr<Processor>> fail_if_asked(std::unique_ptr<Processor> processor) {
  const char* value = std::getenv("HETERO_FAIL");
  if (value == nullptr || *value == '\0') {
    return processor;
  }
  const std::string_view text = value;
  const size_t colon = text.find(':');
  uint64_t at = 0;
  const char* end = text.data() + text.size();
  if (colon == std::string_view::npos || std::from_chars(text.data() + colon + 1, end, at).ptr != end ||
      at == 0) {
    return invalid_argument(fmt::format("HETERO_FAIL={}: expected ID:NUMBER, for example npu0:100", text));
  }
  return text.substr(0, colon) == processor->info().id ? make_failing(std::move(processor), at)
                                                       : std::move(processor);
}

}  // namespace hetero
