// Attention in OpenCL: which kernel for how many rows of queries.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "opencl/opencl_kernels.h"
#include "opencl/opencl_layers.h"
#include "opencl/opencl_ops.h"

namespace hetero {
namespace {

// Of attention_cpu.cl, and the most for attention_gpu.cl.
constexpr int64_t kCpuQueries = 12;
constexpr int64_t kGpuQueries = 16;
constexpr int64_t kGpuFewQueries = 4;  // with 32 keys, scores for all lanes
// Of attention_tile.cl.
constexpr int64_t kTileQueries = 32;
constexpr int64_t kTileLanes = 128;
// Of attention_split.cl.
constexpr int64_t kSplitTokens = 4;  // at most
constexpr int64_t kSplitStep = 32;   // STEP_KEYS
constexpr int64_t kMaxParts = 64;
// Joining parts takes about as long as these many steps.
constexpr int64_t kUncutSteps = 3;
constexpr int64_t kGroupsOfUnit = 4;  // work-groups that keep a compute unit busy

class AttentionExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  /// A kernel for blocks of so many query rows.
  struct Block {
    cl_kernel kernel = nullptr;
    int64_t queries = 1;
    int64_t lanes = 1;
  };
  std::vector<Block> blocks;  // ascending; the first that takes all rows is used, or the last
  // Faster ones, where they are (kernel is not nullptr) and rows of plain caches are aligned to 16 bytes.
  Block split;  // for few tokens, with the context cut into parts
  cl_kernel join = nullptr;
  Block tile;  // for more
  std::shared_ptr<OpenClBuffer> partial;
  Attention attention;
  int64_t units = 1;
  Bytes cache_element = 2;  // 0: in blocks

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    if (launch.tokens == 0) {
      return warm_up(queue, launch);
    }
    const bool aligned = is_aligned(launch);
    if (aligned && split.kernel != nullptr && launch.tokens <= kSplitTokens) {
      return run_split(queue, launch);
    }
    if (aligned && tile.kernel != nullptr) {
      return run(queue, launch, tile);
    }
    const int64_t rows = launch.tokens * (attention.heads / attention.kv_heads);
    const auto fits = [&](const Block& block) { return rows <= block.queries; };
    const auto first = std::find_if(blocks.begin(), blocks.end(), fits);
    return run(queue, launch, first == blocks.end() ? blocks.back() : *first);
  }

 private:
  Status warm_up(KernelQueue& queue, const Launch& launch) const {
    for (const Block& block : blocks) {
      HETERO_RETURN_IF_ERROR(run(queue, launch, block));
    }
    if (tile.kernel != nullptr) {
      HETERO_RETURN_IF_ERROR(run(queue, launch, tile));
    }
    return split.kernel != nullptr ? run_split(queue, launch) : Status();
  }

  bool is_aligned(const Launch& launch) const {
    const auto whole = [&](const Binding& b) {
      return b.offset * cache_element % 16 == 0 && b.stride * cache_element % 16 == 0;
    };
    return whole(launch.inputs[1]) && whole(launch.inputs[2]);
  }

  static KernelCall& operands(KernelCall& call, const Launch& launch) {
    for (int i = 0; i < 3; ++i) {
      call.binding(launch.inputs[static_cast<size_t>(i)]);
    }
    return call.binding(launch.outputs[0]);
  }

  KernelCall& numbers(KernelCall& call, const Launch& launch) const {
    call.number(attention.heads / attention.kv_heads).value(attention.scale).value(attention.cap);
    return call.number(attention.window).number(launch.position).number(launch.tokens);
  }

  Status run(KernelQueue& queue, const Launch& launch, const Block& block) const {
    const int64_t group = attention.heads / attention.kv_heads;
    KernelCall call(queue, block.kernel);
    numbers(operands(call, launch), launch);
    return call.run(attention.kv_heads, ceil_div(std::max<int64_t>(1, launch.tokens) * group, block.queries),
                    block.lanes);
  }

  Status run_split(KernelQueue& queue, const Launch& launch) const {
    const bool warm_up = launch.tokens == 0;
    const int64_t tokens = std::max<int64_t>(1, launch.tokens);
    const int64_t row_blocks = ceil_div(tokens * (attention.heads / attention.kv_heads), split.queries);
    // Each block of rows may begin elsewhere behind a window: the longest reach of any counts.
    const int64_t seen = launch.position + tokens;
    const int64_t reach = attention.window > 0 ? std::min(seen, attention.window + tokens) : seen;
    const int64_t steps = ceil_div(reach, kSplitStep);
    const int64_t room = std::max<int64_t>(1, kGroupsOfUnit * units / (attention.kv_heads * row_blocks));
    int64_t parts = steps <= kUncutSteps ? 1 : std::min({steps, room, kMaxParts});
    const int64_t span = ceil_div(steps, parts) * kSplitStep;
    parts = ceil_div(reach, span);
    KernelCall call(queue, split.kernel);
    operands(call, launch).memory(*partial).number(span).number(parts).number(attention.kv_heads);
    HETERO_RETURN_IF_ERROR(numbers(call, launch).run(attention.kv_heads, row_blocks * parts, split.lanes));
    if (parts == 1 && !warm_up) {
      return {};
    }
    KernelCall join_call(queue, join);
    join_call.memory(*partial).binding(launch.outputs[0]).number(parts).number(attention.heads);
    return join_call.number(launch.tokens).run(attention.heads, tokens, split.lanes);
  }
};

/// Rows of queries and keys in one tile of attention_gpu.cl, as far as the local memory goes.
struct AttentionTile {
  int64_t queries = 16;
  int64_t keys = 32;
};

std::optional<AttentionTile> attention_tile(const OpenClDevice& device, int64_t head_dim, int64_t queries) {
  AttentionTile tile{queries, 32};
  const auto bytes = [&] {
    return 4 * (tile.queries * head_dim + tile.keys * (head_dim + 1) + tile.queries * (tile.keys + 2));
  };
  while (bytes() > device.local_bytes) {
    if (tile.keys > 4) {
      tile.keys /= 2;
    } else if (tile.queries > 1) {
      tile.queries /= 2;
    } else {
      return std::nullopt;
    }
  }
  return tile;
}

/// Of attention_tile.cl.
Bytes tile_local_bytes(int64_t head_dim) {
  return 4 * (2 * 32 * (head_dim + 4) + 32 * 36 + 32 * 5);
}

}  // namespace

std::string attention_define(int64_t head_dim, DType cache) {
  return fmt::format("-DHEAD_DIM={}{}", head_dim,
                     cache == DType::kF16    ? " -DCACHE_F16"
                     : cache == DType::kQ8_0 ? " -DCACHE_Q8_0"
                                             : "");
}

bool attention_fits(const OpenClContext& context, int64_t head_dim) {
  return context.shape.cpu || attention_tile(context.device, head_dim, 1).has_value();
}

Result<std::unique_ptr<OpenClExecutable>> make_attention(OpenClContext& context, const Graph& graph,
                                                         const Op& op, int64_t tokens) {
  const Attention& attention = *op.as<Attention>();
  const KernelShape& shape = context.shape;
  auto made = std::make_unique<AttentionExecutable>(op.name, tokens);
  made->attention = attention;
  made->units = context.device.compute_units;
  const DType cache = graph.value(op.inputs[1]).dtype;
  const bool f16 = cache == DType::kF16;
  const bool blocks = cache == DType::kQ8_0;
  made->cache_element = blocks ? 0 : f16 ? 2 : 4;
  const auto program = [&](const std::string& name, std::string_view kernels, const std::string& defines) {
    return kernel_program(context, name, {opencl_kernels::cache, kernels},
                          attention_define(attention.head_dim, cache) + defines);
  };
  const auto block = [&](const std::string& name, std::string_view kernels, int64_t queries, int64_t lanes,
                         const std::string& defines) -> Result<AttentionExecutable::Block> {
    HETERO_TRY(OpenClProgram * built, program(name, kernels, defines));
    HETERO_TRY(cl_kernel kernel, built->kernel("attention"));
    return AttentionExecutable::Block{kernel, queries, lanes};
  };
  if (shape.cpu) {
    HETERO_TRY(const auto only, block("attention", opencl_kernels::attention_cpu, kCpuQueries, 1, ""));
    made->blocks.push_back(only);
    made->step = {StepCode::kAttention, {{}, attention.head_dim, cache}};
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  const auto group =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(attention.heads / attention.kv_heads)));
  if (attention.head_dim % 32 == 0 && shape.lanes >= kSplitStep) {
    const int64_t rows = std::min(group, shape.lanes / kSplitStep);
    HETERO_TRY(OpenClProgram * built,
               program("attention-split", opencl_kernels::attention_split, fmt::format(" -DROWS={}", rows)));
    HETERO_TRY(made->split.kernel, built->kernel("attention_part"));
    HETERO_TRY(made->join, built->kernel("attention_join"));
    made->split.queries = rows;
    made->split.lanes = shape.lanes;
    HETERO_TRY(made->partial, context.memory.scratch(std::min(tokens, kSplitTokens) * attention.heads *
                                                     kMaxParts * (attention.head_dim + 2) * 4));
  }
  if (attention.head_dim % 64 == 0 && shape.lanes >= kTileLanes &&
      tile_local_bytes(attention.head_dim) <= context.device.local_bytes) {
    HETERO_TRY(made->tile,
               block("attention-tile", opencl_kernels::attention_tile, kTileQueries, kTileLanes, ""));
  }
  if (context.layers != nullptr && f16 && attention.window == 0 && attention.cap == 0.0f &&
      only_reader(graph, op.outputs[0]) != nullptr) {
    HETERO_TRY(made->layer_part.kernel,
               context.layers->kernel(context, attention.head_dim, attention.heads / attention.kv_heads));
    made->layer_part.kind = LayerPart::Kind::kAttention;
    made->layer_part.attention = attention;
  }
  // For one token, a block of just its query heads; for many, as large as pays.
  const auto few = std::clamp(group, kGpuFewQueries, kGpuQueries);
  for (const int64_t queries : {few, kGpuQueries}) {
    const AttentionTile tile = *attention_tile(context.device, attention.head_dim, queries);
    const bool redundant = made->tile.kernel != nullptr && queries != kGpuQueries;
    if (!redundant && (made->blocks.empty() || tile.queries > made->blocks.back().queries)) {
      HETERO_TRY(const auto made_block,
                 block(fmt::format("attention-{}", tile.queries), opencl_kernels::attention_gpu, tile.queries,
                       shape.lanes, fmt::format(" -DQUERIES={} -DKEYS={}", tile.queries, tile.keys)));
      made->blocks.push_back(made_block);
    }
  }
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

}  // namespace hetero
