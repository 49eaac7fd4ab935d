#include "sim/sim_processor.h"

#include <fmt/format.h>

#include <set>
#include <tuple>

namespace hetero {
namespace {

struct SimBuffer : Buffer {
  std::unique_ptr<Buffer> values;  // of the processor that computes; nullptr: dry
};

struct SimExecutable : Executable {
  const Graph* graph = nullptr;
  OpSlice slice;
  int64_t tokens = 0;
  std::unique_ptr<Executable> values;
};

Nanos micros(double us) {
  return Nanos(static_cast<int64_t>(us * 1e3));
}

class SimTimeline : public Timeline {
 public:
  SimTimeline(World& world, size_t index) : world_(world), index_(index) {}

  /// The driver's way: sleeps until the work is done and the driver has noticed.
  Status wait(uint64_t ticket) override {
    if (ticket <= seen_) {
      return world_.status(index_);
    }
    const Status status = world_.run_until_done(index_, ticket);
    world_.block(micros(world_.soc().processors[index_].finish_us));
    seen_ = std::max(seen_, ticket);
    return status;
  }

  bool done(uint64_t ticket) override {
    if (world_.done(index_, ticket)) {
      seen_ = std::max(seen_, ticket);
      return true;
    }
    return false;
  }

  Interval interval(uint64_t ticket) override { return world_.interval(index_, ticket); }

  void saw(uint64_t ticket) { seen_ = std::max(seen_, ticket); }

 private:
  World& world_;
  const size_t index_;
  uint64_t seen_ = 0;  // known to be done: nobody has to ask the driver
};

class SimProcessor : public Processor {
 public:
  SimProcessor(std::shared_ptr<World> world, size_t index, ProcessorInfo info,
               std::shared_ptr<Processor> values)
      : world_(std::move(world)),
        index_(index),
        info_(std::move(info)),
        values_(std::move(values)),
        timeline_(*world_, index) {
    traits_.static_shapes = model().static_shapes;
    if (model().model == SocModel::kSystolic) {
      traits_.orders = OperandOrders::kSmallerStays;
    }
    if (values_ != nullptr) {
      traits_.unit_roundoff = values_->traits().unit_roundoff;
    }
  }

  ~SimProcessor() override {
    // Work that nobody waited for ends before its memory goes.
    (void)world_->run_until_done(index_, issued_);
  }

  const ProcessorInfo& info() const override { return info_; }
  const Traits& traits() const override { return traits_; }
  Timeline& timeline() override { return timeline_; }
  Clock& clock() override { return *world_; }

  Status supports(const Graph& graph, const OpSlice& slice) const override {
    if (model().model == SocModel::kSystolic && !graph.op(slice.op).is<Linear>()) {
      return unsupported(fmt::format("{} (simulated) runs linear operators only, not {}", info_.id,
                                     kind_name(graph.op(slice.op))));
    }
    return values_ != nullptr && !dry(graph) ? values_->supports(graph, slice) : Status();
  }

  Result<std::unique_ptr<Buffer>> import(std::byte* host, Bytes size) override {
    auto buffer = std::make_unique<SimBuffer>();
    if (values_ != nullptr) {
      HETERO_TRY(buffer->values, values_->import(host, size));
    }
    return std::unique_ptr<Buffer>(std::move(buffer));
  }

  Result<std::unique_ptr<Executable>> compile(const Graph& graph, const OpSlice& slice,
                                              int64_t tokens) override {
    HETERO_RETURN_IF_ERROR(supports(graph, slice));
    auto executable = std::make_unique<SimExecutable>();
    executable->graph = &graph;
    executable->slice = slice;
    executable->tokens = tokens;
    if (values_ != nullptr && !dry(graph)) {
      HETERO_TRY(executable->values, values_->compile(graph, slice, tokens));
    }
    const Op& op = graph.op(slice.op);
    if (traits_.static_shapes && op.is<Linear>()) {
      // Weights are an input of the graph, so that layers share it.
      const int64_t n = slice.end - slice.begin;
      const int64_t k = graph.weight(op.weights[0]).cols;
      if (compiled_.insert({n, k, tokens, slice.exchanged}).second) {
        world_->work(Nanos(static_cast<int64_t>(compile_ns(model(), n, k, tokens))));
      }
    }
    return std::unique_ptr<Executable>(std::move(executable));
  }

  /// clFinish and the like: costs what it costs, whatever was already known.
  Status finish() override {
    const Status status = world_->run_until_done(index_, issued_);
    world_->block(micros(model().finish_us));
    timeline_.saw(issued_);
    return status;
  }

  /// What others read is copied to where they see it (clEnqueueWriteBuffer and the like), or, with
  /// nothing to copy, mapped and unmapped by two calls into the driver.
  Status remap(Buffer&, Bytes, Bytes) override {
    if (model().copy_us > 0.0) {
      world_->block(micros(model().copy_us));
    } else {
      world_->work(micros(2.0 * model().submit_us));
    }
    return {};
  }

  Result<Fence> submit(const Executable& executable, const Launch& launch) override {
    const auto& e = static_cast<const SimExecutable&>(executable);
    if (traits_.static_shapes ? launch.tokens != e.tokens : launch.tokens > e.tokens) {
      return internal_error(
          fmt::format("{}: {} tokens submitted to an executable for {}", info_.id, launch.tokens, e.tokens));
    }
    HETERO_RETURN_IF_ERROR(world_->status(index_));
    const bool wakes = model().idle_submit_us > 0.0 && world_->idle(index_);
    world_->work(micros(wakes ? model().idle_submit_us : model().submit_us));
    std::function<Status()> finish;
    if (e.values != nullptr) {
      finish = [this, &e, tokens = launch.tokens, position = launch.position,
                inputs = std::vector(launch.inputs.begin(), launch.inputs.end()),
                outputs = std::vector(launch.outputs.begin(), launch.outputs.end())]() mutable -> Status {
        for (auto* bindings : {&inputs, &outputs}) {
          for (Binding& b : *bindings) {
            b.buffer = static_cast<SimBuffer*>(b.buffer)->values.get();
          }
        }
        HETERO_TRY(const Fence fence, values_->submit(*e.values, {tokens, position, inputs, outputs}));
        values_->flush();
        return fence.wait();
      };
    }
    const Cost cost = cost_of(world_->soc(), model(), *e.graph, e.slice, launch.tokens, launch.position);
    issued_ = world_->enqueue(index_, cost, std::move(finish));
    return Fence{&timeline_, issued_};
  }

 private:
  const SocProcessor& model() const { return world_->soc().processors[index_]; }

  /// Of a named shape: no weight has data, and no operator anything to compute with.
  static bool dry(const Graph& graph) { return !graph.weights.empty() && graph.weights[0].data == nullptr; }

  std::shared_ptr<World> world_;
  const size_t index_;
  ProcessorInfo info_;
  std::shared_ptr<Processor> values_;
  Traits traits_;
  SimTimeline timeline_;
  std::set<std::tuple<int64_t, int64_t, int64_t, bool>> compiled_;
  uint64_t issued_ = 0;
};

}  // namespace

std::unique_ptr<Processor> make_sim_processor(std::shared_ptr<World> world, size_t index,
                                              const ProcessorInfo& info, std::shared_ptr<Processor> values) {
  return std::make_unique<SimProcessor>(std::move(world), index, info, std::move(values));
}

ProcessorInfo sim_info(const Soc& soc, size_t index) {
  const SocProcessor& p = soc.processors[index];
  ProcessorInfo info;
  info.id = p.id;
  info.kind = p.kind;
  info.name = p.name + " (simulated)";
  info.provider = "sim";
  info.driver = soc.name;
  info.unified_memory = true;
  info.features = {"simulated"};
  return info;
}

}  // namespace hetero
