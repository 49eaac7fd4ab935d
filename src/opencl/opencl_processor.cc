#include "opencl/opencl_processor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "base/files.h"
#include "base/threads.h"
#include "opencl/opencl.h"
#include "opencl/opencl_kernels.h"

namespace hetero {
namespace {

constexpr Bytes kScratchBytes = 4096;
constexpr Nanos kStepPatience = std::chrono::milliseconds(1);

/// An environment variable with one of a few values; an empty string where it is not set.
Result<std::string> choice(const char* name, std::initializer_list<std::string_view> allowed) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') {
    return std::string();
  }
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
    return invalid_argument(fmt::format("{}={}: expected {}", name, value, fmt::join(allowed, ", ")));
  }
  return std::string(value);
}

}  // namespace

OpenClProcessor::OpenClProcessor(const OpenClApi& api, OpenClDevice device, OpenOptions options)
    : api_(api),
      device_(std::move(device)),
      options_(std::move(options)),
      timeline_(api, device_.info.name) {}

OpenClProcessor::~OpenClProcessor() {
  if (queue_) {
    if (steps_ != nullptr) {
      (void)steps_->leave(queue_.get());
    }
    (void)api_.Finish(queue_.get());
  }
}

Result<std::unique_ptr<Processor>> OpenClProcessor::open(const OpenClDevice& device,
                                                         const ProcessorInfo& info,
                                                         const OpenOptions& options) {
  OpenClDevice named = device;
  named.info = info;
  std::unique_ptr<OpenClProcessor> processor(new OpenClProcessor(*opencl_api(), std::move(named), options));
  HETERO_RETURN_IF_ERROR(processor->start());
  return std::unique_ptr<Processor>(std::move(processor));
}

Status OpenClProcessor::start() {
  // A kernel that polls keeps its core busy: others must have one too.
  const std::vector<int> all = available_cpus();
  const bool spare = std::any_of(all.begin(), all.end(), [&](int cpu) {
    return std::find(options_.cpus.begin(), options_.cpus.end(), cpu) == options_.cpus.end();
  });
  const Nanos step_patience = spare && !options_.cpus.empty() ? kStepPatience : Nanos{};
  // Threads that the driver starts from here on inherit the affinity; earlier ones are moved.
  const DriverThreads started(device_.platform);
  const ScopedAffinity affinity(device_.is_cpu ? options_.cpus : std::vector<int>());
  if (device_.is_cpu) {
    DriverThreads::move(device_.platform, options_.cpus);
  }
  const std::string& name = device_.info.name;
  const auto threads = static_cast<cl_uint>(std::max(0, options_.threads));
  if (threads > 0 && threads < device_.compute_units && device_.divisible) {
    const cl_device_partition_property by_counts[] = {CL_DEVICE_PARTITION_BY_COUNTS,
                                                      static_cast<cl_device_partition_property>(threads),
                                                      CL_DEVICE_PARTITION_BY_COUNTS_LIST_END, 0};
    cl_device_id part = nullptr;
    HETERO_RETURN_IF_ERROR(cl_status(api_.CreateSubDevices(device_.id, by_counts, 1, &part, nullptr),
                                     fmt::format("{}: clCreateSubDevices of {} units", name, threads)));
    sub_device_ = ClSubDevice(part);
    device_.id = part;
    device_.compute_units = threads;
  }
  const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM,
                                              reinterpret_cast<cl_context_properties>(device_.platform), 0};
  cl_int error = CL_SUCCESS;
  context_ = ClContext(api_.CreateContext(properties, 1, &device_.id, nullptr, nullptr, &error));
  HETERO_RETURN_IF_ERROR(cl_status(error, fmt::format("{}: clCreateContext", name)));
  queue_ = ClQueue(api_.CreateCommandQueue(context_.get(), device_.id, CL_QUEUE_PROFILING_ENABLE, &error));
  HETERO_RETURN_IF_ERROR(cl_status(error, fmt::format("{}: clCreateCommandQueue", name)));

  HETERO_TRY(const std::string intervals, choice("HETERO_OPENCL_INTERVALS", {"each", "batch"}));
  if (intervals.empty() ? !device_.is_cpu : intervals == "batch") {
    timeline_.mark_batches(queue_.get());
    may_wait_ = true;
  }
  timeline_.before_waiting([this] {
    if (!holds_) {
      return;
    }
    const std::lock_guard lock(mutex_);
    if (const Status status = enqueue_held(); !status.ok()) {
      (void)timeline_.poison(status);
    }
  });
  if (device_.is_cpu && (threads > 0 || !options_.cpus.empty())) {
    timeline_.wait_by_callback(queue_.get());
  }

  const std::string device_key =
      fmt::format("{} | {} | {} | {}", name, device_.info.driver, device_.version, device_.compute_units);
  programs_ =
      std::make_unique<ProgramCache>(api_, context_.get(), device_.id, device_key, options_.cache_dir);
  HETERO_TRY(const std::string tune, choice("HETERO_OPENCL_TUNE", {"on", "off"}));
  std::string tuned = device_key;
  for (const std::string_view source : {opencl_kernels::blocks, opencl_kernels::linear_gpu_wide,
                                        opencl_kernels::linear_gpu_tile, opencl_kernels::linear_gpu_matrix}) {
    tuned += source;
  }
  tuner_ = std::make_unique<KernelTuner>(
      options_.cache_dir.empty()
          ? std::string()
          : fmt::format("{}/opencl-tuned-{:016x}.txt", options_.cache_dir, text_hash(tuned)),
      tune.empty() ? !device_.is_cpu : tune == "on");
  HETERO_TRY(const std::string shape, choice("HETERO_OPENCL_KERNELS", {"cpu", "gpu"}));
  HETERO_TRY(const std::string memory, choice("HETERO_OPENCL_MEMORY", {"svm", "host", "copy"}));
  KernelShape kernel_shape = choose_kernel_shape(device_, shape.empty() ? device_.is_cpu : shape == "cpu");
  HETERO_TRY(const std::string arithmetic, choice("HETERO_OPENCL_ARITHMETIC", {"f32", "f16"}));
  if (arithmetic == "f16" && !device_.half) {
    return unsupported(
        fmt::format("{}: HETERO_OPENCL_ARITHMETIC=f16, but the device has no arithmetic in fp16", name));
  }
  kernel_shape.half_tiles =
      !kernel_shape.cpu && device_.half && (arithmetic.empty() ? !device_.is_cpu : arithmetic == "f16");
  HETERO_TRY(const std::string join,
             choice("HETERO_OPENCL_JOIN", {"none", "gated", "all", "layers", "steps"}));
  const bool in_steps = !may_wait_ && intervals != "each" && join != "none" && kernel_shape.cpu &&
                        device_.is_cpu && (device_.compute_units == 1 || join == "steps") &&
                        StepClock::exists();
  may_wait_ = may_wait_ && join != "none";
  kernel_shape.join_norms = join != "gated";
  traits_.joined = may_wait_ && !kernel_shape.cpu ? static_cast<int>(held_.size()) : 0;
  traits_.unit_roundoff = kernel_shape.half_tiles ? 0x1p-11 : 0x1p-24;
  HETERO_TRY(const std::string matrices, choice("HETERO_OPENCL_MATRICES", {"emulate", "off"}));
  if (matrices == "emulate") {
    kernel_shape.matrices = {"1,2,2"};
    kernel_shape.emulate_matrices = true;
  } else if (matrices == "off") {
    kernel_shape.matrices.clear();
  }
  const bool in_layers =
      may_wait_ && !kernel_shape.cpu &&
      (join == "layers" || (join.empty() && device_.bfloat16_matrices && matrices.empty()));
  MemoryMode mode = device_.svm_system                       ? MemoryMode::kSvm
                    : device_.host_unified || device_.is_cpu ? MemoryMode::kHost
                                                             : MemoryMode::kCopy;
  if (!memory.empty()) {
    mode = memory == "svm" ? MemoryMode::kSvm : memory == "host" ? MemoryMode::kHost : MemoryMode::kCopy;
  }
  if (mode == MemoryMode::kSvm && !device_.svm_system) {
    return unsupported(fmt::format("{}: HETERO_OPENCL_MEMORY=svm, but the device has no system SVM", name));
  }
  const auto use = [&](MemoryMode with) -> Status {
    kernels_.reset();
    layers_.reset();
    steps_.reset();
    memory_ = std::make_unique<KernelMemory>(api_, device_, context_.get(), queue_.get(), with);
    layers_ = in_layers && with == MemoryMode::kCopy
                  ? std::make_unique<LayerRunner>(api_, device_, queue_.get(), *memory_)
                  : nullptr;
    kernels_ = std::make_unique<OpenClContext>(OpenClContext{
        api_, device_, kernel_shape, queue_.get(), *memory_, *programs_, *tuner_, layers_.get(), nullptr});
    traits_.coherent = with != MemoryMode::kCopy;
    traits_.copies_weights = with == MemoryMode::kCopy;
    traits_.joined = traits_.coherent ? 0 : traits_.joined;  // no weights in planes
    HETERO_RETURN_IF_ERROR(probe());
    if (in_steps && same_addresses_) {
      steps_ = std::make_unique<StepRunner>(api_, *memory_, timeline_, step_patience, join == "steps");
      HETERO_RETURN_IF_ERROR(steps_->prepare());
      kernels_->steps = steps_.get();
      traits_.polls_on = step_patience > Nanos{} ? options_.cpus : std::vector<int>();
    }
    return {};
  };
  Status status = use(mode);
  if (!status.ok() && mode != MemoryMode::kCopy && memory.empty()) {
    status = use(MemoryMode::kCopy);  // the device claims more than it does
  }
  HETERO_RETURN_IF_ERROR(status);
  HETERO_TRY(const std::string done, choice("HETERO_OPENCL_DONE", {"flag", "event"}));
  if (steps_ == nullptr && memory_->mode() == MemoryMode::kSvm &&
      (done.empty() ? !device_.is_cpu : done == "flag")) {
    if (auto program = programs_->get("flag", opencl_kernels::flag, "-cl-std=CL2.0"); program.ok()) {
      if (auto kernel = (*program)->kernel("flag"); kernel.ok()) {
        timeline_.raise_flags(queue_.get(), *kernel);
      }
    }
  }
  HETERO_TRY(scratch_, PageMemory::allocate(kScratchBytes));
  HETERO_TRY(scratch_buffer_, memory_->import(scratch_.data(), kScratchBytes));
  return {};
}

Status OpenClProcessor::probe() {
  constexpr int kCount = 256;
  HETERO_TRY(cl_kernel kernel, row_kernel(*kernels_, "probe"));
  HETERO_TRY(const PageMemory page, PageMemory::allocate(2 * kScratchBytes));
  auto* x = reinterpret_cast<int32_t*>(page.data());
  auto* y = reinterpret_cast<int32_t*>(page.data() + kScratchBytes);
  HETERO_TRY(const auto x_buffer, memory_->import(page.data(), kScratchBytes));
  HETERO_TRY(const auto y_buffer, memory_->import(page.data() + kScratchBytes, kScratchBytes));
  Nanos offset = Nanos::max();
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < kCount; ++i) {
      x[i] = i * 3 + round;
    }
    KernelQueue queue{api_, queue_.get(), Events::kFirstAndLast, {}, {}};
    KernelCall call(queue, kernel);
    call.memory(*x_buffer).memory(*y_buffer).number(kCount).value<cl_ulong>(x_buffer->address());
    HETERO_RETURN_IF_ERROR(call.run(1, 1, kernels_->shape.lanes).with_prefix(device_.info.name));
    HETERO_RETURN_IF_ERROR(
        cl_status(api_.Finish(queue_.get()), fmt::format("{}: clFinish", device_.info.name)));
    const Nanos finished = now();
    cl_ulong end = 0;
    HETERO_RETURN_IF_ERROR(cl_status(
        api_.GetEventProfilingInfo(queue.last.get(), CL_PROFILING_COMMAND_END, sizeof(end), &end, nullptr),
        fmt::format("{}: clGetEventProfilingInfo", device_.info.name)));
    // The host always hears late, so the smallest difference is the closest to the truth.
    offset = std::min(offset, finished - Nanos(static_cast<int64_t>(end)));
    same_addresses_ = traits_.coherent && y[kCount] == 1;
    for (int i = 0; traits_.coherent && i < kCount; ++i) {
      if (y[i] != x[i] + 1) {
        return unsupported(fmt::format("{}: host and device do not see one memory", device_.info.name));
      }
    }
  }
  timeline_.set_clock_offset(offset);
  return {};
}

Status OpenClProcessor::supports(const Graph& graph, const OpSlice& slice) const {
  return opencl_supports(*kernels_, graph, slice);
}

Result<std::unique_ptr<Buffer>> OpenClProcessor::import(std::byte* host, Bytes size) {
  const std::lock_guard lock(mutex_);
  HETERO_RETURN_IF_ERROR(leave_steps());
  HETERO_TRY(std::unique_ptr<Buffer> buffer, memory_->import(host, size));
  return buffer;
}

Result<std::unique_ptr<Executable>> OpenClProcessor::compile(const Graph& graph, const OpSlice& slice,
                                                             int64_t tokens) {
  HETERO_RETURN_IF_ERROR(supports(graph, slice));
  const std::lock_guard lock(mutex_);
  const DriverThreads started(device_.platform);
  const ScopedAffinity affinity(device_.is_cpu ? options_.cpus : std::vector<int>());
  HETERO_RETURN_IF_ERROR(leave_steps());
  const size_t kernels_before = programs_->kernels();
  HETERO_TRY(auto executable, make_opencl_executable(*kernels_, graph, slice, tokens));
  if (steps_ != nullptr && steps_->always()) {
    HETERO_RETURN_IF_ERROR(steps_->prepare(*kernels_, graph, DType::kF32));
  }
  if (programs_->kernels() != kernels_before) {
    HETERO_RETURN_IF_ERROR(warm_up(*executable).with_prefix(executable->name()));
    programs_->store();
  }
  return std::unique_ptr<Executable>(std::move(executable));
}

Status OpenClProcessor::warm_up(const OpenClExecutable& executable) {
  // Enough bindings for any operator; none of them is touched when there are no tokens.
  const Binding scratch{scratch_buffer_.get(), 0, 0};
  const Binding bindings[] = {scratch, scratch, scratch, scratch};
  KernelQueue queue{api_, queue_.get(), Events::kFirstAndLast, {}, {}};
  HETERO_RETURN_IF_ERROR(executable.enqueue(queue, Launch{0, 0, bindings, bindings}));
  return cl_status(api_.Finish(queue_.get()), fmt::format("{}: clFinish", device_.info.name));
}

Result<Fence> OpenClProcessor::submit(const Executable& executable, const Launch& launch) {
  HETERO_RETURN_IF_ERROR(timeline_.status());
  const auto& ours = static_cast<const OpenClExecutable&>(executable);
  if (launch.tokens < 1 || launch.tokens > ours.max_tokens()) {
    return timeline_.poison(
        invalid_argument(fmt::format("{}: {}: {} tokens submitted, compiled for 1 to {}", device_.info.name,
                                     ours.name(), launch.tokens, ours.max_tokens())));
  }
  const std::lock_guard lock(mutex_);
  KernelQueue queue{api_, queue_.get(), timeline_.wanted_events(), {}, {}};
  const auto failed = [&](const Status& status) {
    return timeline_.poison(status.with_prefix(fmt::format("{}: {}", device_.info.name, ours.name())));
  };
  if (steps_ != nullptr) {
    if (takes_step(ours)) {
      const uint64_t ticket = timeline_.add_step(ours.name());
      const Status status = steps_->add(queue_.get(), ours, launch, ticket);
      holds_ = steps_->pending();
      return status.ok() ? Result<Fence>(Fence{&timeline_, ticket}) : failed(status);
    }
    Status status = leave_steps();
    ++enqueued_;
    status = status.ok() ? ours.enqueue(queue, launch) : status;
    if (!status.ok()) {
      return failed(status);
    }
  } else if (layers_ != nullptr) {
    Status status;
    bool taken = layers_->take(ours, launch);
    if (!taken && !layers_->empty()) {
      status = enqueue_layers(queue);
      taken = status.ok() && layers_->take(ours, launch);
    }
    if (taken) {
      status = enqueue_waiting(queue);
      holds_ = true;
      if (status.ok() && layers_->full()) {
        status = enqueue_layers(queue);
      }
    } else if (status.ok()) {
      status = enqueue(queue, ours, launch);
    }
    if (!status.ok()) {
      return failed(status);
    }
  } else if (const Status status = enqueue(queue, ours, launch); !status.ok()) {
    return failed(status);
  }
  return Fence{&timeline_, timeline_.add(std::move(queue.first), std::move(queue.last), ours.name())};
}

bool OpenClProcessor::takes_step(const OpenClExecutable& executable) {
  if (finished_ && timeline_.was_asked()) {
    finished_ = false;
  }
  return (!finished_ || steps_->always()) && steps_->takes(executable);
}

Status OpenClProcessor::leave_steps() {
  if (steps_ == nullptr) {
    return {};
  }
  holds_ = false;
  return steps_->leave(queue_.get()).with_prefix(device_.info.name);
}

Status OpenClProcessor::enqueue(KernelQueue& queue, const OpenClExecutable& executable,
                                const Launch& launch) {
  const std::span<const HeldLaunch> held(held_.data(), held_count_);
  const bool takes = held_count_ > 0 && executable.takes(held, launch);
  if (!takes) {
    HETERO_RETURN_IF_ERROR(enqueue_waiting(queue));
  }
  if (may_wait_ && held_count_ < held_.size() && executable.may_wait(launch)) {
    held_[held_count_++] = HeldLaunch(executable, launch);
    holds_ = true;
    return {};
  }
  ++enqueued_;
  const Status status = executable.enqueue_with(queue, takes ? held : std::span<const HeldLaunch>(), launch);
  held_count_ = 0;
  holds_ = false;
  return status;
}

Status OpenClProcessor::enqueue_layers(KernelQueue& queue) {
  const int64_t before = layers_->kernels();
  HETERO_TRY(const std::vector<HeldLaunch> rest, layers_->enqueue(queue));
  enqueued_ += layers_->kernels() - before;
  holds_ = false;
  for (const HeldLaunch& launch : rest) {
    HETERO_RETURN_IF_ERROR(enqueue(queue, *launch.executable, launch.launch()));
  }
  return {};
}

Status OpenClProcessor::enqueue_waiting(KernelQueue& queue) {
  if (held_count_ == 0) {
    return {};
  }
  ++enqueued_;
  const HeldLaunch& last = held_[held_count_ - 1];
  const Status status = last.executable->enqueue_with(queue, {held_.data(), held_count_ - 1}, last.launch());
  held_count_ = 0;
  holds_ = false;
  return status.with_prefix(last.executable->name());
}

Status OpenClProcessor::enqueue_held() {
  if (steps_ != nullptr) {
    holds_ = false;
    return steps_->serve(queue_.get()).with_prefix(device_.info.name);
  }
  KernelQueue queue{api_, queue_.get(), Events::kNone, {}, {}};
  Status status;
  if (layers_ != nullptr && !layers_->empty()) {
    status = enqueue_layers(queue);
  }
  if (status.ok()) {
    status = enqueue_waiting(queue);
  }
  return status.with_prefix(device_.info.name);
}

void OpenClProcessor::flush() {
  {
    const std::lock_guard lock(mutex_);
    if (const Status status = enqueue_held(); !status.ok()) {
      (void)timeline_.poison(status);
    }
  }
  timeline_.mark();
  if (steps_ != nullptr && flushed_ == enqueued()) {
    return;  // steps are seen as they are published
  }
  flushed_ = enqueued();
  const cl_int error = api_.Flush(queue_.get());
  if (error != CL_SUCCESS) {
    (void)timeline_.poison(cl_status(error, fmt::format("{}: clFlush", device_.info.name)));
  }
}

void OpenClProcessor::rouse() {
  if (steps_ == nullptr || finished_) {
    return;
  }
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    return;  // something is being compiled, which may take seconds
  }
  if (const Status status = steps_->rouse(queue_.get()); !status.ok()) {
    (void)timeline_.poison(status);
  }
}

Status OpenClProcessor::finish() {
  {
    const std::lock_guard lock(mutex_);
    Status status = enqueue_held();
    status = status.ok() ? leave_steps() : status;
    if (!status.ok()) {
      return timeline_.poison(status);
    }
    finished_ = true;
    (void)timeline_.was_asked();
  }
  // Drivers for CPUs may run kernels in the thread that waits: then where the device may run them.
  const ScopedAffinity affinity(device_.is_cpu ? options_.cpus : std::vector<int>());
  const cl_int error = api_.Finish(queue_.get());
  return error == CL_SUCCESS
             ? timeline_.status()
             : timeline_.poison(cl_status(error, fmt::format("{}: clFinish", device_.info.name)));
}

Status OpenClProcessor::remap(Buffer& buffer, Bytes offset, Bytes size) {
  auto& ours = static_cast<OpenClBuffer&>(buffer);
  if (memory_->mode() != MemoryMode::kHost) {
    return {};  // nothing is ever mapped
  }
  cl_int error = CL_SUCCESS;
  void* const mapped = api_.EnqueueMapBuffer(queue_.get(), ours.mem(), CL_TRUE, CL_MAP_READ | CL_MAP_WRITE,
                                             static_cast<size_t>(offset), static_cast<size_t>(size), 0,
                                             nullptr, nullptr, &error);
  if (error == CL_SUCCESS) {
    error = api_.EnqueueUnmapMemObject(queue_.get(), ours.mem(), mapped, 0, nullptr, nullptr);
  }
  return error == CL_SUCCESS
             ? Status()
             : timeline_.poison(cl_status(error, fmt::format("{}: mapping a buffer", device_.info.name)));
}

Result<Fence> OpenClProcessor::transfer(Buffer& buffer, const Region& region, bool upload) {
  const char* what = upload ? "upload" : "download";
  if (traits_.coherent) {
    return internal_error(fmt::format("{}: {} on a processor that shares memory", device_.info.name, what));
  }
  HETERO_RETURN_IF_ERROR(timeline_.status());
  auto& ours = static_cast<OpenClBuffer&>(buffer);
  const Bytes end = region.offset + (region.rows - 1) * region.stride + region.row_bytes;
  if (region.rows < 1 || region.row_bytes < 1 || region.offset < 0 || end > ours.size() ||
      (region.rows > 1 && region.stride < region.row_bytes)) {
    return timeline_.poison(invalid_argument(fmt::format(
        "{}: {} of {} rows of {} bytes, {} apart, at {} of a buffer of {} bytes", device_.info.name, what,
        region.rows, region.row_bytes, region.stride, region.offset, ours.size())));
  }
  const std::lock_guard lock(mutex_);
  if (upload && layers_ != nullptr && held_count_ == 0 && layers_->take_upload(ours, region)) {
    holds_ = true;
    return Fence{&timeline_, timeline_.add({}, {}, what)};
  }
  if (const Status status = enqueue_held(); !status.ok()) {
    return timeline_.poison(status);
  }
  const auto offset = static_cast<size_t>(region.offset);
  const auto row = static_cast<size_t>(region.row_bytes);
  const auto rows = static_cast<size_t>(region.rows);
  std::byte* host = ours.host() + region.offset;
  cl_event event = nullptr;
  cl_int error = CL_SUCCESS;
  if (rows == 1 || region.stride == region.row_bytes) {
    error = upload ? api_.EnqueueWriteBuffer(queue_.get(), ours.mem(), CL_FALSE, offset, row * rows, host, 0,
                                             nullptr, &event)
                   : api_.EnqueueReadBuffer(queue_.get(), ours.mem(), CL_FALSE, offset, row * rows, host, 0,
                                            nullptr, &event);
  } else {
    const auto pitch = static_cast<size_t>(region.stride);
    const size_t origin[3] = {offset % pitch, offset / pitch, 0};
    const size_t host_origin[3] = {0, 0, 0};
    const size_t extent[3] = {row, rows, 1};
    error = upload ? api_.EnqueueWriteBufferRect(queue_.get(), ours.mem(), CL_FALSE, origin, host_origin,
                                                 extent, pitch, 0, pitch, 0, host, 0, nullptr, &event)
                   : api_.EnqueueReadBufferRect(queue_.get(), ours.mem(), CL_FALSE, origin, host_origin,
                                                extent, pitch, 0, pitch, 0, host, 0, nullptr, &event);
  }
  if (error != CL_SUCCESS) {
    return timeline_.poison(cl_status(error, fmt::format("{}: {}", device_.info.name, what)));
  }
  return Fence{&timeline_, timeline_.add_transfer(ClEvent(event), what)};
}

void OpenClProcessor::expect_copies(Buffer& buffer) {
  const std::lock_guard lock(mutex_);
  memory_->pin(static_cast<OpenClBuffer&>(buffer));
}

Result<Fence> OpenClProcessor::upload(Buffer& buffer, const Region& region) {
  return transfer(buffer, region, true);
}

Result<Fence> OpenClProcessor::download(Buffer& buffer, const Region& region) {
  return transfer(buffer, region, false);
}

std::vector<FoundProcessor> find_opencl() {
  const OpenClApi* api = opencl_api();
  if (api == nullptr) {
    return {};
  }
  // Asked once: what a driver starts while it is asked belongs to it for good.
  static const std::vector<OpenClDevice> devices = discover_opencl(*api);
  std::vector<FoundProcessor> found;
  for (const OpenClDevice& device : devices) {
    found.push_back({device.info, [device](const ProcessorInfo& info, const OpenOptions& options) {
                       return OpenClProcessor::open(device, info, options);
                     }});
  }
  return found;
}

}  // namespace hetero
