#include "cpu/cpu.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>

#include "base/threads.h"
#include "cpu/levels.h"
#include "cpu/ops.h"
#include "processor/host_timeline.h"

namespace hetero {
namespace {

using cpu::CpuExecutable;
using cpu::Work;

/// One owner thread runs the queue in order and is worker 0 of the pool.
class CpuProcessor : public Processor {
 public:
  CpuProcessor(ProcessorInfo info, const cpu::Kernels& kernels, int threads, const OpenOptions& options)
      : info_(std::move(info)),
        kernels_(kernels),
        int8_(options.int8_activations),
        cpus_(options.cpus),
        pool_(threads, cpus_) {
    owner_ = std::thread([this] { own(); });
  }
  ~CpuProcessor() override {
    bell_.post();
    owner_.join();
  }

  const ProcessorInfo& info() const override { return info_; }
  const Traits& traits() const override { return traits_; }
  Timeline& timeline() override { return timeline_; }
  Bytes device_bytes() const override {
    const std::lock_guard lock(compile_mutex_);
    return packed_.bytes();
  }

  Status supports(const Graph& graph, const OpSlice& slice) const override {
    return cpu::supports(graph, slice).with_prefix(info_.id);
  }

  Result<std::unique_ptr<Buffer>> import(std::byte* host, Bytes size) override {
    return std::unique_ptr<Buffer>(std::make_unique<HostBuffer>(host, size));
  }

  Result<std::unique_ptr<Executable>> compile(const Graph& graph, const OpSlice& slice,
                                              int64_t tokens) override {
    HETERO_RETURN_IF_ERROR(supports(graph, slice));
    if (tokens < 1) {
      return invalid_argument(
          fmt::format("{}: {} compiled for {} tokens", info_.id, graph.op(slice.op).name, tokens));
    }
    const std::lock_guard compiling(compile_mutex_);
    auto executable = cpu::prepare(graph, slice, tokens, kernels_, pool_.size(), int8_ ? &packed_ : nullptr);
    HETERO_RETURN_IF_ERROR(pack(executable->packed).with_prefix(info_.id));
    const Bytes needed = executable->scratch_floats * static_cast<Bytes>(sizeof(float));
    const std::lock_guard lock(mutex_);
    if (needed > 0 && (scratch_ == nullptr || scratch_->size() < needed)) {
      // Work in the queue keeps the memory that it was submitted with.
      HETERO_TRY(PageMemory memory, PageMemory::allocate(needed));
      scratch_ = std::make_shared<PageMemory>(std::move(memory));
    }
    return std::unique_ptr<Executable>(std::move(executable));
  }

  Result<Fence> submit(const Executable& executable, const Launch& launch) override {
    HETERO_RETURN_IF_ERROR(timeline_.status());
    const auto& e = static_cast<const CpuExecutable&>(executable);
    const Op& op = e.op();
    if (launch.tokens < 1 || launch.tokens > e.tokens || launch.position < 0) {
      return internal_error(fmt::format("{}: {} tokens at position {} submitted to {}, compiled for up to {}",
                                        info_.id, launch.tokens, launch.position, op.name, e.tokens));
    }
    Work work;
    work.executable = &e;
    work.tokens = launch.tokens;
    work.position = launch.position;
    HETERO_RETURN_IF_ERROR(bind(e, launch, op.inputs, launch.inputs, false, work.in));
    HETERO_RETURN_IF_ERROR(bind(e, launch, op.outputs, launch.outputs, true, work.out));

    uint64_t ticket = 0;
    {
      const std::lock_guard lock(mutex_);
      ticket = timeline_.next_ticket();
      work.scratch = scratch_;
      queue_.push_back(std::move(work));
    }
    bell_.post();
    return Fence{&timeline_, ticket};
  }

  void rouse() override { bell_.rouse(); }

 private:
  /// Weights to pack, between two pieces of work of the queue: packing needs the pool's threads.
  struct Packing {
    const std::vector<cpu::PackedSegment>* segments = nullptr;
    Status status;
    bool done = false;
  };

  Status pack(const std::vector<cpu::PackedSegment>& segments) {
    if (segments.empty()) {
      return {};
    }
    Packing packing;
    packing.segments = &segments;
    std::unique_lock lock(mutex_);
    packings_.push_back(&packing);
    bell_.post();
    packed_some_.wait(lock, [&] { return packing.done; });
    return packing.status;
  }

  /// Resolves bindings to addresses, and refuses those that reach outside of their buffers.
  Status bind(const CpuExecutable& e, const Launch& launch, const std::vector<ValueId>& values,
              std::span<const Binding> bindings, bool output, std::array<cpu::View, 3>& views) const {
    if (bindings.size() != values.size() || values.size() > views.size()) {
      return internal_error(fmt::format("{}: {} {} bound to {} of {}", info_.id, bindings.size(),
                                        output ? "outputs" : "inputs", values.size(), e.op().name));
    }
    for (size_t i = 0; i < values.size(); ++i) {
      const Value& value = e.graph->value(values[i]);
      const Binding& b = bindings[i];
      const int block = hetero::traits(value.dtype).block_elements;
      const int64_t rows = value.rows == Rows::kContext ? launch.position + launch.tokens : launch.tokens;
      const int64_t cols = output && e.op().is<Linear>() ? e.slice.end - e.slice.begin : value.cols;
      const auto* buffer = static_cast<const HostBuffer*>(b.buffer);
      if (buffer == nullptr || b.offset < 0 || b.stride < 0 || b.offset % block != 0 ||
          b.stride % block != 0 ||
          row_bytes(value.dtype, b.offset + (rows - 1) * b.stride + cols) > buffer->size()) {
        return internal_error(fmt::format(
            "{}: {}: value {} [{}, {}] at offset {} with stride {} does not fit its buffer of {} bytes",
            info_.id, e.op().name, value.name, rows, cols, b.offset, b.stride,
            buffer == nullptr ? 0 : buffer->size()));
      }
      views[i] = {buffer->data() + row_bytes(value.dtype, b.offset), b.stride};
    }
    return {};
  }

  void own() {
    // Pinned like the pool's workers, so that worker 0 does not land on a neighbour's CPU.
    const ScopedAffinity affinity(cpus_.empty() ? cpus_ : std::vector<int>{cpus_[0]});
    for (;;) {
      bell_.wait();
      std::array<Work, cpu::kMostTogether> memory;
      std::span<Work> works;
      {
        std::unique_lock lock(mutex_);
        if (!packings_.empty()) {
          Packing& packing = *packings_.front();
          packings_.pop_front();
          lock.unlock();
          for (const cpu::PackedSegment& segment : *packing.segments) {
            if (packing.status.ok()) {
              packing.status = cpu::pack(*segment.rows, *kernels_.int8, pool_);
            }
          }
          lock.lock();
          packing.done = true;
          packed_some_.notify_all();
          continue;
        }
        if (head_ == queue_.size()) {
          return;
        }
        works = std::span(memory).first(cpu::together(std::span(queue_).subspan(head_), kernels_));
        for (Work& work : works) {
          work = std::move(queue_[head_++]);
        }
        if (head_ == queue_.size()) {
          queue_.clear();
          head_ = 0;
        }
      }
      const Nanos begin = now();
      Status status = timeline_.status();
      if (status.ok() && works.size() > 1) {
        cpu::run_together(works, kernels_, pool_);
      } else if (status.ok()) {
        status = cpu::run(works[0], kernels_, pool_).with_prefix(info_.id);
      }
      const Nanos end = now();
      for (const Work& work : works) {
        timeline_.finish({&work == works.data() ? begin : end, end}, status);
      }
      for (size_t i = 1; i < works.size(); ++i) {
        bell_.wait();  // was posted for each of them
      }
    }
  }

  const ProcessorInfo info_;
  const Traits traits_;
  const cpu::Kernels& kernels_;
  const bool int8_;
  mutable std::mutex compile_mutex_;
  cpu::PackedWeights packed_;  // under compile_mutex_
  const std::vector<int> cpus_;
  ThreadPool pool_;
  HostTimeline timeline_;

  std::mutex mutex_;
  std::shared_ptr<PageMemory> scratch_;  // the largest any executable needs
  std::condition_variable packed_some_;
  std::vector<Work> queue_;  // from head_ on; emptied when all was taken, so that it stops growing soon
  size_t head_ = 0;
  std::deque<Packing*> packings_;
  WorkBell bell_;      // one post for each piece of work, each packing, and the end
  std::thread owner_;  // last: starts when everything else is there
};

Result<std::unique_ptr<Processor>> open_cpu(const ProcessorInfo& info, const OpenOptions& options) {
  HETERO_TRY(const cpu::Kernels* const kernels,
             cpu::choose_kernels(cpu::kernels_for(cpu::describe_cpu().flags), std::getenv("HETERO_CPU")));
  const std::vector<int> available = available_cpus();
  for (const int cpu : options.cpus) {
    if (std::find(available.begin(), available.end(), cpu) == available.end()) {
      return invalid_argument(fmt::format("cpus: CPU {} is not one of the {} that this process may run on",
                                          cpu, available.size()));
    }
  }
  constexpr int kMostThreads = 1024;
  if (options.threads < 0 || options.threads > kMostThreads) {
    return invalid_argument(
        fmt::format("threads: expected 0 to {}, found {}", kMostThreads, options.threads));
  }
  const size_t all = options.cpus.empty() ? available.size() : options.cpus.size();
  const int threads = options.threads > 0 ? options.threads : static_cast<int>(all);
  try {
    return std::unique_ptr<Processor>(std::make_unique<CpuProcessor>(info, *kernels, threads, options));
  } catch (const std::system_error& error) {
    return resource_exhausted(fmt::format("threads: {} could not be started: {}", threads, error.what()));
  }
}

}  // namespace

std::vector<std::string> cpu_levels() {
  std::vector<std::string> levels;
  for (const cpu::Kernels* k : cpu::kernels_for(cpu::describe_cpu().flags)) {
    levels.emplace_back(k->level);
  }
  return levels;
}

FoundProcessor find_cpu() {
  const cpu::CpuDescription description = cpu::describe_cpu();
  FoundProcessor found;
  found.info.kind = "cpu";
  found.info.name = description.name;
  found.info.provider = "native";
  found.info.memory_bytes = Bytes{sysconf(_SC_PHYS_PAGES)} * Bytes{sysconf(_SC_PAGESIZE)};
  found.info.unified_memory = true;
  // Extensions that kernels use or may use.
  static constexpr const char* kReported[] = {
      "avx2",        "fma",         "f16c",        "avx_vnni", "avx512f",  "avx512bw", "avx512vl",
      "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd",
      "asimdhp",     "asimddp",     "i8mm",        "bf16",     "sve",      "sve2"};
  for (const char* flag : kReported) {
    if (std::find(description.flags.begin(), description.flags.end(), flag) != description.flags.end()) {
      found.info.features.emplace_back(flag);
    }
  }
  found.open = open_cpu;
  return found;
}

}  // namespace hetero
