#include "opencl/opencl_layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "opencl/opencl_kernels.h"

namespace hetero {
namespace {

using Kind = LayerPart::Kind;

/// The submissions of one layer, in order.
enum Step : size_t { kNorm, kQkv, kRope, kAttend, kO, kMiddle, kGateUp, kGated, kDown, kSteps };
constexpr std::array<Kind, kSteps> kKinds = {Kind::kNorm,      Kind::kProduct, Kind::kRope,
                                             Kind::kAttention, Kind::kProduct, Kind::kNorm,
                                             Kind::kProduct,   Kind::kGated,   Kind::kProduct};

// Of layers_gpu.cl.
// The first kernel of a pass is short, so that the device begins while the host goes on with the rest.
constexpr int64_t kFirstLayers = 2;
constexpr int64_t kMostLayers = 127;  // and the head
// Three bfloat16 are as exact as float. With two, 16 bits of x, a token is 0.2% faster.
constexpr int64_t kXParts = 3;
constexpr size_t kMostTables = 64;
constexpr int64_t kMatrixLanes = 512;
constexpr int64_t kEmulatedLanes = 128;
constexpr Bytes kSyncBytes = 4096;
constexpr size_t kSyncLost = 32;
constexpr int64_t kBarriers = 5;  // of a layer
constexpr int64_t kTriedBarriers = 256;
constexpr int64_t kTry = 2;  // as `tokens`

// Keys of one part of attention, at least, and how many parts there may be.
constexpr int64_t kPartKeys = 64;
constexpr int64_t kMaxParts = 64;

bool same(const Binding& a, const Binding& b) {
  return a.buffer == b.buffer && a.offset == b.offset;
}

const LayerPart& part(const HeldLaunch& launch) {
  return launch.executable->layer_part;
}

}  // namespace

bool LayerRunner::follows(const HeldLaunch* layer, size_t step, const HeldLaunch& next) const {
  const HeldLaunch* before = layer == held_.data() ? nullptr : layer - kSteps;
  const auto reads = [&](size_t input, size_t of, size_t output) {
    return same(next.inputs[input], layer[of].outputs[output]);
  };
  const LayerPart& p = part(next);
  switch (step) {
    case kNorm:
      if (before == nullptr) {
        return !start_.embed || (!p.residual && same(next.inputs[0], start_.embed->outputs[0]) &&
                                 p.cols == part(*start_.embed).cols);
      }
      return p.residual && p.eps == part(before[kNorm]).eps && p.cols == part(before[kNorm]).cols &&
             same(next.inputs[0], before[kMiddle].outputs[1]) &&
             same(next.inputs[1], before[kDown].outputs[0]);
    case kQkv:
      return reads(0, kNorm, 0) && p.cols == part(layer[kNorm]).cols;
    case kRope: {
      const int64_t rows = (p.rope.heads + 2 * p.rope.kv_heads) * p.rope.head_dim;
      const bool of_table =
          before != nullptr || !start_.table ||
          (same(next.inputs[1], start_.table->outputs[0]) && next.position == start_.table->position &&
           p.rope.rotary_dims == part(*start_.table).cols);
      return of_table && p.rope.rotary_dims >= 2 && reads(0, kQkv, 0) && part(layer[kQkv]).rows == rows;
    }
    case kAttend: {
      const Binding& k = next.inputs[1];
      const Binding& v = next.inputs[2];
      const auto aligned = [](const Binding& b) { return b.offset % 8 == 0 && b.stride % 8 == 0; };
      return p.kernel != nullptr && reads(0, kRope, 0) && reads(1, kRope, 1) && reads(2, kRope, 2) &&
             p.attention.heads == part(layer[kRope]).rope.heads && next.position == layer[kRope].position &&
             aligned(k) && aligned(v) && k.stride == v.stride &&
             (before == nullptr ||
              (p.kernel == part(before[kAttend]).kernel &&
               p.attention.scale == part(before[kAttend]).attention.scale &&
               p.attention.kv_heads == part(before[kAttend]).attention.kv_heads &&
               k.stride == before[kAttend].inputs[1].stride && next.position == before[kAttend].position &&
               same(layer[kRope].inputs[1], before[kRope].inputs[1])));
    }
    case kO:
      return reads(0, kAttend, 0) && p.rows == part(layer[kNorm]).cols &&
             p.cols == part(layer[kAttend]).attention.heads * part(layer[kAttend]).attention.head_dim;
    case kMiddle: {
      const bool residual = part(layer[kNorm]).residual;
      const Binding& sum = residual ? layer[kNorm].outputs[1] : layer[kNorm].inputs[0];
      return p.residual && same(next.inputs[0], sum) && reads(1, kO, 0) &&
             p.cols == part(layer[kNorm]).cols && (before == nullptr || p.eps == part(before[kMiddle]).eps);
    }
    case kGateUp:
      return reads(0, kMiddle, 0) && p.cols == part(layer[kMiddle]).cols && p.rows % 32 == 0 &&
             (before == nullptr || p.rows == part(before[kGateUp]).rows);
    case kGated:
      return reads(0, kGateUp, 0) && 2 * p.cols == part(layer[kGateUp]).rows &&
             (before == nullptr || p.gelu == part(before[kGated]).gelu);
    default:
      return reads(0, kGated, 0) && p.cols == part(layer[kGated]).cols && p.rows == part(layer[kNorm]).cols;
  }
}

bool LayerRunner::take_upload(OpenClBuffer& buffer, const Region& region) {
  if (!empty() || region.rows != 1 || region.row_bytes != sizeof(int32_t)) {
    return false;
  }
  start_.ids = &buffer;
  start_.ids_at = region.offset;
  return true;
}

bool LayerRunner::take_start(const OpenClExecutable& executable, const Launch& launch) {
  const Kind kind = executable.layer_part.kind;
  if (kind == Kind::kEmbed && start_.ids != nullptr && !start_.embed && !start_.table &&
      launch.inputs[0].buffer == start_.ids &&
      launch.inputs[0].offset * static_cast<Bytes>(sizeof(int32_t)) == start_.ids_at) {
    start_.embed = HeldLaunch(executable, launch);
    return true;
  }
  if (kind == Kind::kRopeTable && !start_.table && (start_.ids == nullptr || start_.embed)) {
    start_.table = HeldLaunch(executable, launch);
    return true;
  }
  return false;
}

bool LayerRunner::take(const OpenClExecutable& executable, const Launch& launch) {
  const size_t step = held_.size() % kSteps;
  if (launch.tokens != 1 || full()) {
    return false;
  }
  if (held_.empty() && take_start(executable, launch)) {
    return true;
  }
  const bool is_head = executable.layer_part.kind == Kind::kHead && step == kQkv && held_.size() > kSteps;
  if ((executable.layer_part.kind != kKinds[step] && !is_head) || (start_.ids != nullptr && !start_.embed)) {
    return false;
  }
  held_.emplace_back(executable, launch);
  if (!follows(held_.data() + (held_.size() - 1 - step), step, held_.back())) {
    held_.pop_back();
    return false;
  }
  has_head_ = is_head;
  return true;
}

bool LayerRunner::full() const {
  return has_head_ || held_.size() == static_cast<size_t>(begun_ ? kMostLayers : kFirstLayers) * kSteps;
}

Result<std::vector<HeldLaunch>> LayerRunner::enqueue(KernelQueue& queue) {
  const size_t layers = held_.size() / kSteps;
  begun_ = full() && !has_head_;
  std::vector<HeldLaunch> rest;
  if (!has_head_) {
    rest.assign(held_.begin() + static_cast<std::ptrdiff_t>(layers * kSteps), held_.end());
  }
  const Status status =
      layers == 0 ? enqueue_start(queue) : enqueue_layers(queue, static_cast<int64_t>(layers));
  held_.clear();
  start_ = {};
  has_head_ = false;
  HETERO_RETURN_IF_ERROR(status);
  return rest;
}

Status LayerRunner::enqueue_start(KernelQueue& queue) {
  if (start_.ids != nullptr) {
    const std::byte* from = start_.ids->host() + start_.ids_at;
    const cl_int error =
        api_.EnqueueWriteBuffer(queue_, start_.ids->mem(), CL_FALSE, static_cast<size_t>(start_.ids_at),
                                sizeof(int32_t), from, 0, nullptr, nullptr);
    HETERO_RETURN_IF_ERROR(cl_status(error, "clEnqueueWriteBuffer"));
  }
  for (const std::optional<HeldLaunch>& launch : {start_.embed, start_.table}) {
    if (launch) {
      ++kernels_;
      HETERO_RETURN_IF_ERROR(launch->executable->enqueue(queue, launch->launch()));
    }
  }
  return {};
}

Status LayerRunner::enqueue_layers(KernelQueue& queue, int64_t layers) {
  const Attention& attention = part(held_[kAttend]).attention;
  const int64_t width = part(held_[kNorm]).cols;
  const int64_t ffn = part(held_[kGated]).cols;
  const int64_t q_width = attention.heads * attention.head_dim;
  const int64_t qkv_width = part(held_[kQkv]).rows;
  // As the kernel divides it: qkv, sums, three x in X_PARTS bfloat16, parts of attention.
  const Bytes bytes = 4 * (qkv_width + width) + 2 * kXParts * (width + q_width + ffn) +
                      kMaxParts * attention.heads * (attention.head_dim + 2) * 4;
  if (room_ == nullptr || room_->size() < bytes) {
    HETERO_TRY(room_, memory_.allocate(bytes));
  }
  HETERO_TRY(const OpenClBuffer* const table, table_of(layers));
  HETERO_RETURN_IF_ERROR(run(queue, part(held_[kAttend]).kernel, table, layers));
  layers_run_ += layers;
  ++kernels_;
  return {};
}

Result<uint64_t> LayerRunner::address(OpenClBuffer& buffer) {
  if (buffer.device_address() == 0) {
    KernelQueue queue{api_, queue_, Events::kNone, {}, {}};
    KernelCall call(queue, address_of_);
    call.memory(buffer).memory(*answer_);
    HETERO_RETURN_IF_ERROR(call.run(1, 1, 1));
    std::vector<float> words(2);
    HETERO_RETURN_IF_ERROR(memory_.read(*answer_, words));
    uint64_t address = 0;
    std::memcpy(&address, words.data(), sizeof(address));
    buffer.set_device_address(address);
  }
  return buffer.device_address();
}

/// In the order of layers_gpu.cl. Most passes have the layers of the one before.
Result<const OpenClBuffer*> LayerRunner::table_of(int64_t layers) {
  addresses_.clear();
  const auto weight = [&](const HeldLaunch* layer, Step step) -> Status {
    HETERO_TRY(const uint64_t at, address(*part(layer[step]).weight));
    addresses_.push_back(at + static_cast<uint64_t>(part(layer[step]).weight_at));
    return {};
  };
  for (int64_t i = 0; i < layers; ++i) {
    const HeldLaunch* layer = held_.data() + i * static_cast<int64_t>(kSteps);
    const auto cache = [&](size_t input) -> Status {
      const Binding& b = layer[kAttend].inputs[input];
      HETERO_TRY(const uint64_t at, address(*static_cast<OpenClBuffer*>(b.buffer)));
      addresses_.push_back(at + static_cast<uint64_t>(b.offset) * sizeof(cl_half));
      return {};
    };
    HETERO_RETURN_IF_ERROR(weight(layer, kNorm));
    HETERO_RETURN_IF_ERROR(weight(layer, kQkv));
    HETERO_RETURN_IF_ERROR(cache(1));
    HETERO_RETURN_IF_ERROR(cache(2));
    HETERO_RETURN_IF_ERROR(weight(layer, kO));
    HETERO_RETURN_IF_ERROR(weight(layer, kMiddle));
    HETERO_RETURN_IF_ERROR(weight(layer, kGateUp));
    HETERO_RETURN_IF_ERROR(weight(layer, kDown));
  }
  if (has_head_) {
    const HeldLaunch* head = held_.data() + layers * static_cast<int64_t>(kSteps);
    HETERO_RETURN_IF_ERROR(weight(head, kNorm));
    HETERO_RETURN_IF_ERROR(weight(head, kQkv));
  }
  const auto same_addresses = [&](const Table& table) { return table.addresses == addresses_; };
  auto found = std::find_if(tables_.begin(), tables_.end(), same_addresses);
  if (found == tables_.end()) {
    if (tables_.size() == kMostTables) {
      tables_.pop_back();
    }
    std::vector<float> words(2 * addresses_.size());
    std::memcpy(words.data(), addresses_.data(), 8 * addresses_.size());
    HETERO_TRY(auto buffer, memory_.constants(std::move(words), "addresses"));
    tables_.insert(tables_.begin(), {addresses_, std::move(buffer)});
    found = tables_.begin();
  }
  return found->buffer.get();
}

Status LayerRunner::run(KernelQueue& queue, cl_kernel kernel, const OpenClBuffer* table, int64_t layers) {
  KernelCall call(queue, kernel, &kept_[kernel]);
  const bool trial = table == nullptr;
  const HeldLaunch* held = held_.data();
  const auto bind = [&](const Binding& b) {
    call.memory(*static_cast<const OpenClBuffer*>(b.buffer)).offset(b.offset);
  };
  const Binding nothing{sync_.get(), 0, 0};
  const HeldLaunch* end = trial ? nullptr : held + (layers - 1) * static_cast<int64_t>(kSteps);
  const bool residual = !trial && part(held[kNorm]).residual;
  bind(trial ? nothing : held[kNorm].inputs[0]);
  bind(trial ? nothing : held[kNorm].inputs[residual ? 1 : 0]);
  call.number(residual ? 1 : 0);
  bind(trial ? nothing : held[kRope].inputs[1]);
  bind(trial ? nothing : end[kMiddle].outputs[1]);
  bind(trial ? nothing : end[kDown].outputs[0]);
  call.memory(trial ? *sync_ : *table);
  call.memory(trial ? *sync_ : *room_).memory(*sync_).value(arrived_).number(layers);
  const Rope rope = trial ? Rope() : part(held[kRope]).rope;
  const Attention attention = trial ? Attention() : part(held[kAttend]).attention;
  const int64_t position = trial ? 0 : held[kAttend].position;
  const int64_t seen = position + 1;
  const int64_t room = std::max<int64_t>(2, groups_ / std::max(1, attention.kv_heads));
  int64_t parts = std::min({ceil_div(seen, kPartKeys), room, kMaxParts});
  const int64_t span = ceil_div(ceil_div(seen, parts), 8) * 8;
  parts = ceil_div(seen, span);
  call.number(trial ? 0 : part(held[kNorm]).cols).number(trial ? 0 : part(held[kGated]).cols);
  call.number(attention.kv_heads).number(trial ? 0 : held[kAttend].inputs[1].stride);
  call.number(span).number(parts).value(attention.scale).number(rope.rotary_dims);
  call.number(rope.pairs == RopePairs::kHalves ? 1 : 0);
  call.value(trial ? 0.0f : part(held[kNorm]).eps).value(trial ? 0.0f : part(held[kMiddle]).eps);
  call.number(!trial && part(held[kGated]).gelu ? 1 : 0).number(position).number(trial ? kTry : 1);
  int64_t token = -1;
  if (start_.embed) {
    int32_t id = 0;
    std::memcpy(&id, start_.ids->host() + start_.ids_at, sizeof(id));
    token = std::clamp<int64_t>(id, 0, part(*start_.embed).rows - 1);
  }
  const auto source = [&](const std::optional<HeldLaunch>& launch) -> const OpenClBuffer& {
    return launch ? *part(*launch).weight : *sync_;
  };
  const auto scale = [&](const std::optional<HeldLaunch>& launch) {
    return launch ? part(*launch).scale : 1.0f;
  };
  call.number(token).memory(source(start_.embed)).offset(start_.embed ? part(*start_.embed).weight_at : 0);
  call.value(scale(start_.embed)).number(start_.table ? 1 : 0);
  call.memory(source(start_.table)).value(scale(start_.table));
  const HeldLaunch* head = has_head_ ? &held_.back() : nullptr;
  call.number(head != nullptr ? part(*head).rows : 0);
  bind(head != nullptr ? head->outputs[0] : nothing);
  const int64_t lanes = device_.bfloat16_matrices && !emulated_ ? kMatrixLanes : kEmulatedLanes;
  HETERO_RETURN_IF_ERROR(call.run(groups_, 1, lanes));
  arrived_ += static_cast<uint32_t>(groups_ * (trial ? layers : kBarriers * layers - (has_head_ ? 0 : 1)));
  return {};
}

Result<cl_kernel> LayerRunner::kernel(OpenClContext& context, int64_t head_dim, int64_t queries) {
  emulated_ = !device_.bfloat16_matrices || context.shape.emulate_matrices;
  const int64_t lanes = emulated_ ? kEmulatedLanes : kMatrixLanes;
  const bool fits = (head_dim == 64 || head_dim == 128) &&
                    std::has_single_bit(static_cast<uint64_t>(queries)) && queries <= 8 &&
                    static_cast<int64_t>(device_.max_work_group) >= lanes;
  if (!fits) {
    return nullptr;
  }
  const auto program = kernel_program(
      context, fmt::format("layers-{}-{}", head_dim, queries),
      {opencl_kernels::blocks, opencl_kernels::angles, opencl_kernels::layers_gpu},
      fmt::format("-DWEIGHT_Q4_0 -DPLANES -DVECTOR_LANES={} -DLAYER_LANES={} -DMOST_LAYERS={} -DHEAD_DIM={} "
                  "-DQUERIES={} -DX_PARTS={} -DEMULATE={}",
                  context.shape.lanes, lanes, kMostLayers + 1, head_dim, queries, kXParts,
                  emulated_ ? 1 : 0));
  if (!program.ok()) {
    return nullptr;  // a compiler that does not take its PTX
  }
  HETERO_TRY(cl_kernel kernel, (*program)->kernel("layers_of_token"));
  HETERO_TRY(address_of_, (*program)->kernel("address_of"));
  for (const auto& [tried, together] : tried_) {
    if (tried == kernel) {
      return together ? kernel : nullptr;
    }
  }
  bool together = false;
  HETERO_RETURN_IF_ERROR(try_groups(kernel, &together));
  tried_.emplace_back(kernel, together);
  return together ? kernel : nullptr;
}

Status LayerRunner::try_groups(cl_kernel kernel, bool* together) {
  // Devices of type CPU run work-groups one after the other.
  groups_ = device_.is_cpu ? 1 : static_cast<int64_t>(device_.compute_units);
  if (sync_ == nullptr) {
    HETERO_TRY(sync_, memory_.allocate(kSyncBytes));
    HETERO_TRY(answer_, memory_.allocate(sizeof(uint64_t)));
    HETERO_RETURN_IF_ERROR(memory_.write(*sync_, std::vector<float>(kSyncBytes / 4, 0.0f)));
  }
  KernelQueue queue{api_, queue_, Events::kNone, {}, {}};
  HETERO_RETURN_IF_ERROR(run(queue, kernel, nullptr, kTriedBarriers));
  std::vector<float> words(kSyncBytes / 4);
  HETERO_RETURN_IF_ERROR(memory_.read(*sync_, words));
  *together = std::bit_cast<uint32_t>(words[0]) == arrived_ && std::bit_cast<uint32_t>(words[kSyncLost]) == 0;
  if (!*together) {
    arrived_ = 0;
    return memory_.write(*sync_, std::vector<float>(kSyncBytes / 4, 0.0f));
  }
  return {};
}

}  // namespace hetero
