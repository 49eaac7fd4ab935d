#include "cpu/ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cpu/experts.h"
#include "cpu/loops.h"

namespace hetero::cpu {
namespace {

// Rows of activations packed at once: at 256 elements of depth, 384 rows are the 384 KiB that a
// second-level cache keeps while panels pass.
constexpr int64_t kChunkRows = 384;
// Depth of a panel: with 16 columns, 16 KiB, half of a first-level cache.
constexpr int64_t kDepth = 256;
// Panels whose sums wait in the second-level cache, beside the activations, for the next depth.
constexpr int64_t kPanelGroup = 8;
// Short passes look at the cache in parts of this many rows, at most kMaxParts, so that one token
// keeps all threads busy.
constexpr int64_t kSplitTokens = 4;
constexpr int64_t kPartRows = 256;
constexpr int64_t kMaxParts = 64;

Status check_weight(const Graph& graph, const Op& op, WeightId id) {
  const Weight& weight = graph.weight(id);
  if (weight.dtype == DType::kI32) {
    return unsupported(fmt::format("{}: weight {} is I32, expected a floating-point or quantized type",
                                   op.name, weight.name));
  }
  if (weight.cols % traits(weight.dtype).block_elements != 0) {
    return unsupported(fmt::format(
        "{}: weight {} has {} columns, not a multiple of the {} that a block of {} holds", op.name,
        weight.name, weight.cols, traits(weight.dtype).block_elements, traits(weight.dtype).name));
  }
  return {};
}

Status check_cache(const Graph& graph, const Op& op, ValueId k, ValueId v, int head_dim) {
  const DType dtype = graph.value(k).dtype;
  if (dtype != graph.value(v).dtype ||
      (dtype != DType::kF16 && dtype != DType::kF32 && dtype != DType::kQ8_0)) {
    return unsupported(fmt::format("{}: KV cache of {} and {}; the CPU takes both F16, F32 or Q8_0", op.name,
                                   traits(dtype).name, traits(graph.value(v).dtype).name));
  }
  if (head_dim % traits(dtype).block_elements != 0) {
    return unsupported(fmt::format("{}: KV cache of {} with heads of {}, not a multiple of {}", op.name,
                                   traits(dtype).name, head_dim, traits(dtype).block_elements));
  }
  return {};
}

int64_t depth_of(int64_t k) {
  return round_up(ceil_div(k, ceil_div(k, kDepth)), kBlock);
}

}  // namespace

Status supports(const Graph& graph, const OpSlice& slice) {
  const Op& op = graph.op(slice.op);
  const int64_t cols = graph.output_cols(slice.op);
  const bool whole = slice.begin == 0 && slice.end == cols;
  if (slice.begin < 0 || slice.end > cols || slice.begin >= slice.end || (!whole && !op.is<Linear>())) {
    return unsupported(fmt::format("{}: columns [{}, {}) of {} {} cannot be a slice", op.name, slice.begin,
                                   slice.end, cols, kind_name(op)));
  }
  for (const WeightId id : op.weights) {
    HETERO_RETURN_IF_ERROR(check_weight(graph, op, id));
  }
  for (const WeightId id : op.biases) {
    if (id >= 0) {
      HETERO_RETURN_IF_ERROR(check_weight(graph, op, id));
    }
  }
  if (const auto* rope = op.as<Rope>()) {
    return check_cache(graph, op, op.outputs[1], op.outputs[2], rope->head_dim);
  }
  if (const auto* attention = op.as<Attention>()) {
    return check_cache(graph, op, op.inputs[1], op.inputs[2], attention->head_dim);
  }
  return {};
}

std::unique_ptr<CpuExecutable> prepare(const Graph& graph, const OpSlice& slice, int64_t tokens,
                                       const Kernels& kernels, int threads, PackedWeights* packed) {
  auto executable = std::make_unique<CpuExecutable>();
  executable->graph = &graph;
  executable->slice = slice;
  executable->tokens = tokens;
  const Op& op = graph.op(slice.op);
  const Op* const reader = only_reader(graph, op.outputs[0]);
  executable->only_reader = reader == nullptr ? -1 : static_cast<int>(reader - graph.ops.data());
  if (op.is<Linear>()) {
    const int64_t k = graph.value(op.inputs[0]).cols;
    for (const LinearSegment& s : linear_segments(graph, slice.op, slice.begin, slice.end)) {
      if (s.bias != nullptr) {
        executable->vector.resize(static_cast<size_t>(slice.end - slice.begin));
        std::vector<float> all(static_cast<size_t>(s.bias->cols));
        kernels.decode(s.bias->dtype, s.bias->data, s.bias->cols, 1.0f, all.data());
        std::copy_n(all.begin() + s.row_begin, s.rows, executable->vector.begin() + s.out_begin);
      }
      if (auto rows = packed == nullptr ? nullptr : packed->find(s, k, *kernels.int8); rows != nullptr) {
        executable->packed.push_back({std::move(rows), s.out_begin});
        continue;
      }
      executable->segments.push_back(s);
      const int64_t bytes = row_bytes(s.weight->dtype, k);
      for (int64_t r = 0; r < s.rows; r += kernels.tile_cols) {
        const std::byte* data = s.weight->data + (s.row_begin + r) * bytes;
        executable->panels.push_back(
            {{s.weight->dtype, data, bytes, std::min(kernels.tile_cols, s.rows - r)}, s.out_begin + r});
      }
    }
    if (!executable->packed.empty()) {
      executable->scratch_floats = packed_scratch(tokens, k, *kernels.int8);
      if (reader != nullptr && reader->is<Gated>() && gates_tokens(*kernels.int8, tokens)) {
        executable->scratch_floats +=
            packed_scratch(tokens, graph.value(reader->outputs[0]).cols, *kernels.int8);
      }
    }
    if (tokens > kernels.gemv_rows && !executable->segments.empty()) {
      const int64_t rows = round_up(std::min(tokens, kChunkRows), kernels.tile_rows);
      const int64_t floats = rows * k + threads * (depth_of(k) + kPanelGroup * rows) * kernels.tile_cols;
      executable->scratch_floats = std::max(executable->scratch_floats, floats);
    }
  } else if (op.is<RmsNorm>()) {
    const Weight& w = graph.weight(op.weights[0]);
    executable->vector.resize(static_cast<size_t>(w.cols));
    kernels.decode(w.dtype, w.data, w.cols, 1.0f, executable->vector.data());
  } else if (const auto* rope = op.as<Rope>()) {
    for (const WeightId id : op.weights) {
      const Weight& w = graph.weight(id);
      executable->vector.resize(executable->vector.size() + static_cast<size_t>(w.cols));
      kernels.decode(w.dtype, w.data, w.cols, 1.0f,
                     executable->vector.data() + executable->vector.size() - w.cols);
    }
    executable->scratch_floats = threads * 2 * round_up(rope->head_dim, 16);
  } else if (op.is<ExpertLinear>()) {
    executable->scratch_floats = expert_scratch(graph, op, tokens, kernels, threads);
  } else if (const auto* a = op.as<Attention>()) {
    executable->scratch_floats = threads * attend_scratch(a->head_dim) +
                                 kMaxParts * std::min(tokens, kSplitTokens) * a->heads * (a->head_dim + 2);
  }
  return executable;
}

int64_t attend_scratch(int64_t head_dim) {
  constexpr int64_t kWidestPanel = 32;
  const int64_t padded = round_up(head_dim, kWidestPanel);
  return round_up(
      kAttendRows * (head_dim + kAttendBlock + padded + 3) + std::max(kAttendRows, kAttendBlock) * padded,
      16);
}

namespace {

// Few rows: each weight row streams by once.
void linear_by_rows(const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const CpuExecutable& e = *work.executable;
  const int64_t k = e.graph->value(e.op().inputs[0]).cols;
  const int64_t n = e.slice.end - e.slice.begin;
  const int64_t bytes = row_bytes(e.segments[0].weight->dtype, k);
  const int64_t each = round_up(
      std::max(ceil_div(n, pool.size() * int64_t{8}), kElementsPerUnit / std::max<int64_t>(bytes, 1)), 8);
  for_units(pool, ceil_div(n, each), [&](int64_t unit, int) {
    const int64_t begin = unit * each;
    const int64_t end = std::min(n, begin + each);
    for (const LinearSegment& s : e.segments) {
      const int64_t lo = std::max(begin, s.out_begin);
      const int64_t hi = std::min(end, s.out_begin + s.rows);
      if (lo < hi) {
        const int64_t stride = row_bytes(s.weight->dtype, k);
        const WeightRows rows{s.weight->dtype, s.weight->data + (s.row_begin + lo - s.out_begin) * stride,
                              stride, hi - lo};
        kernels.gemv(rows, k, work.in[0].row<float>(0), work.in[0].stride, work.tokens,
                     e.vector.empty() ? nullptr : e.vector.data() + lo, work.out[0].row<float>(0) + lo,
                     work.out[0].stride);
      }
    }
  });
}

// Many rows: the loops of Goto and van de Geijn (ACM TOMS 34, 2008) with the roles of the operands
// exchanged. A decoded panel of weights stays in the first-level cache and meets all packed
// activations of its depth, which stay in the second-level cache; each weight is decoded once for
// up to kChunkRows rows. Sums of a group of panels stay in the second-level cache as well, packed: rows of
// the output lie so far apart that they share its sets and would push each other out.
void linear_by_tiles(const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const CpuExecutable& e = *work.executable;
  const int64_t k = e.graph->value(e.op().inputs[0]).cols;
  const int64_t mr = kernels.tile_rows;
  const int64_t chunks = ceil_div(work.tokens, kChunkRows);
  const int64_t chunk = round_up(ceil_div(work.tokens, chunks), mr);
  const int64_t depth = depth_of(k);
  const auto panel_count = static_cast<int64_t>(e.panels.size());
  const int64_t panel_cols = kernels.tile_cols;
  const int64_t worker_floats = (depth + kPanelGroup * chunk) * panel_cols;
  auto* tiles = reinterpret_cast<float*>(work.scratch->data());
  float* of_workers = tiles + chunk * k;

  for (int64_t first = 0; first < work.tokens; first += chunk) {
    const int64_t rows = std::min(chunk, work.tokens - first);
    const int64_t tile_count = ceil_div(rows, mr);
    // Tiles of one depth lie together, since a stride of whole rows would put them all into a few sets of
    // the second-level cache: [k / depth][tile][depth][mr].
    for_rows(pool, tile_count, mr * k, [&](int64_t tile, int) {
      for (int64_t at = 0; at < k; at += depth) {
        const int64_t count = std::min(depth, k - at);
        kernels.pack_tile(work.in[0].row<float>(first + tile * mr) + at, work.in[0].stride,
                          std::min(mr, rows - tile * mr), count,
                          tiles + (at * tile_count + tile * count) * mr);
      }
    });
    // Rows are cut only where there are too few panels for the threads: each part decodes its panels again.
    const int64_t cuts = pool.size() == 1 ? 1
                                          : std::clamp<int64_t>(pool.size() * int64_t{4} / panel_count, 1,
                                                                std::max<int64_t>(1, tile_count / 4));
    const int64_t part = ceil_div(tile_count, cuts);
    const auto multiply = [&](int64_t cut, int64_t panel_begin, int64_t panel_end, int worker) {
      float* const panel = of_workers + worker * worker_floats;
      float* const sums = panel + depth * panel_cols;  // [panel][row][panel_cols]
      const int64_t tile_begin = cut * part;
      const int64_t row_begin = tile_begin * mr;
      const int64_t some = std::min(rows - row_begin, part * mr);
      if (some <= 0) {
        return;
      }
      for (int64_t at = 0; at < k; at += depth) {
        const int64_t count = std::min(depth, k - at);
        for (int64_t p = panel_begin; p < panel_end; ++p) {
          const Panel& source = e.panels[static_cast<size_t>(p)];
          kernels.pack_panel(source.weight, at, count, panel);
          kernels.tiles(tiles + (at * tile_count + tile_begin * count) * mr, mr * count, panel, count, some,
                        source.weight.rows, at > 0,
                        e.vector.empty() ? nullptr : e.vector.data() + source.out_begin,
                        sums + (p - panel_begin) * some * panel_cols, panel_cols);
        }
      }
      for (int64_t row = 0; row < some; ++row) {
        float* const out = work.out[0].row<float>(first + row_begin + row);
        for (int64_t p = panel_begin; p < panel_end; ++p) {
          const Panel& source = e.panels[static_cast<size_t>(p)];
          std::copy_n(sums + ((p - panel_begin) * some + row) * panel_cols, source.weight.rows,
                      out + source.out_begin);
        }
      }
    };
    for_ranges(pool, cuts, panel_count, 1, kPanelGroup, multiply);
  }
}

void linear(const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const CpuExecutable& e = *work.executable;
  if (!e.segments.empty()) {
    work.tokens <= kernels.gemv_rows ? linear_by_rows(work, kernels, pool)
                                     : linear_by_tiles(work, kernels, pool);
  }
  if (!e.packed.empty()) {
    multiply_packed(e.packed, *kernels.int8, work.in[0].row<float>(0), work.in[0].stride, work.tokens,
                    e.graph->value(e.op().inputs[0]).cols, e.vector.empty() ? nullptr : e.vector.data(),
                    work.out[0].row<float>(0), work.out[0].stride,
                    reinterpret_cast<float*>(work.scratch->data()), pool);
  }
}

GatedKernel kernel_of(const Gated& gated, const Kernels& kernels) {
  return gated.activation == Activation::kSilu ? kernels.silu_gated : kernels.gelu_gated;
}

Status embed(const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const CpuExecutable& e = *work.executable;
  const Weight& table = e.graph->weight(e.op().weights[0]);
  for (int64_t t = 0; t < work.tokens; ++t) {
    const int32_t id = *work.in[0].row<int32_t>(t);
    if (id < 0 || id >= table.rows) {
      return invalid_argument(fmt::format("{}: token id {} at row {} is not one of the {} of {}", e.op().name,
                                          id, t, table.rows, table.name));
    }
  }
  const int64_t bytes = row_bytes(table.dtype, table.cols);
  for_rows(pool, work.tokens, table.cols, [&](int64_t t, int) {
    kernels.decode(table.dtype, table.data + *work.in[0].row<int32_t>(t) * bytes, table.cols,
                   e.op().as<Embed>()->scale, work.out[0].row<float>(t));
  });
  return {};
}

void rope_table(const RopeTable& table, const Work& work, ThreadPool& pool) {
  // A sine costs about as much as thirty simple operations.
  for_rows(pool, work.tokens, static_cast<int64_t>(table.inv_freq.size()) * 64, [&](int64_t t, int) {
    float* out = work.out[0].row<float>(t);
    for (const double frequency : table.inv_freq) {
      const double angle = static_cast<double>(work.position + t) * frequency;
      *out++ = static_cast<float>(table.magnitude * std::cos(angle));
      *out++ = static_cast<float>(table.magnitude * std::sin(angle));
    }
  });
}

void rms_norm(const RmsNorm& norm, const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const CpuExecutable& e = *work.executable;
  const bool residual = e.op().inputs.size() == 2;
  const auto cols = static_cast<int64_t>(e.vector.size());
  for_rows(pool, work.tokens, cols, [&](int64_t t, int) {
    kernels.rms_norm(work.in[0].row<float>(t), residual ? work.in[1].row<float>(t) : nullptr, e.vector.data(),
                     cols, norm.eps, work.out[0].row<float>(t),
                     residual ? work.out[1].row<float>(t) : nullptr);
  });
}

/// Element `col` of a cache's row. With blocks, `col` is the first of one.
std::byte* cache_at(const View& cache, DType dtype, int64_t row, int64_t col) {
  return cache.data + row_bytes(dtype, row * cache.stride + col);
}

void store_cache(const Kernels& kernels, DType dtype, const float* src, int64_t count, std::byte* dst) {
  switch (dtype) {
    case DType::kF32:
      std::copy_n(src, count, reinterpret_cast<float*>(dst));
      break;
    case DType::kQ8_0:
      kernels.to_q8_0(src, count, dst);
      break;
    default:
      kernels.to_f16(src, count, reinterpret_cast<uint16_t*>(dst));
  }
}

void rope(const Rope& rope, const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const CpuExecutable& e = *work.executable;
  const DType cache = e.graph->value(e.op().outputs[1]).dtype;
  const bool halves = rope.pairs == RopePairs::kHalves;
  const int64_t hd = rope.head_dim;
  const int64_t kv_cols = rope.kv_heads * hd;
  const float* q_norm = e.vector.empty() ? nullptr : e.vector.data();
  const float* k_norm = e.vector.empty() ? nullptr : e.vector.data() + hd;
  for_rows(pool, work.tokens, rope.heads * hd + 2 * kv_cols, [&](int64_t t, int worker) {
    float* head = reinterpret_cast<float*>(work.scratch->data()) + worker * 2 * round_up(hd, 16);
    float* normed = head + round_up(hd, 16);
    const float* q = work.in[0].row<float>(t);
    const float* k = q + rope.heads * hd;
    const float* table = work.in[1].row<float>(t);
    const auto rotate = [&](const float* in, const float* norm, float* out) {
      if (norm != nullptr) {
        kernels.rms_norm(in, nullptr, norm, hd, rope.norm_eps, normed, nullptr);
        in = normed;
      }
      kernels.rotate(in, table, hd, rope.rotary_dims, halves, out);
    };
    for (int64_t h = 0; h < rope.heads; ++h) {
      rotate(q + h * hd, q_norm, work.out[0].row<float>(t) + h * hd);
    }
    const int64_t row = work.position + t;
    for (int64_t h = 0; h < rope.kv_heads; ++h) {
      rotate(k + h * hd, k_norm, head);
      store_cache(kernels, cache, head, hd, cache_at(work.out[1], cache, row, h * hd));
    }
    store_cache(kernels, cache, k + kv_cols, kv_cols, cache_at(work.out[2], cache, row, 0));
  });
}

void attention(const Attention& a, const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const CpuExecutable& e = *work.executable;
  const int64_t hd = a.head_dim;
  const int64_t group = a.heads / a.kv_heads;
  // Query heads of one kv head go together, as far as they fit, and as many tokens as fit then.
  const int64_t heads = std::min(group, kAttendRows);
  const int64_t head_parts = ceil_div(group, heads);
  const int64_t tokens = std::max<int64_t>(1, kAttendRows / heads);
  const int64_t blocks = ceil_div(work.tokens, tokens);
  // What any row sees. With a window, cache rows before it are not looked at.
  const int64_t first_seen = a.window > 0 ? std::max<int64_t>(0, work.position + 1 - a.window) : 0;
  const int64_t seen = work.position + work.tokens - first_seen;
  const int64_t wanted = work.tokens <= kSplitTokens ? std::min(kMaxParts, ceil_div(seen, kPartRows)) : 1;
  const int64_t part_rows = round_up(ceil_div(seen, wanted), kAttendBlock);
  const int64_t parts = ceil_div(seen, part_rows);
  const int64_t partial_row = hd + 2;
  const int64_t partial_part = work.tokens * a.heads * partial_row;

  auto* scratch = reinterpret_cast<float*>(work.scratch->data());
  float* partial = scratch + pool.size() * attend_scratch(hd);
  // Partial results of a unit lie together: [part][kv head][part of the group][token][head].
  const auto partial_of = [&](int64_t part, int64_t first_head, int64_t first_token, int64_t some) {
    return partial + part * partial_part + (first_head * work.tokens + first_token * some) * partial_row;
  };

  const DType cache = e.graph->value(e.op().inputs[1]).dtype;
  const int64_t units = a.kv_heads * head_parts * blocks * parts;
  const bool tiny = work.tokens * seen * a.heads * hd < kElementsPerUnit;
  const auto unit_body = [&](int64_t index, int worker) {
    int64_t unit = units - 1 - index;  // the last tokens see most: they start first
    const int64_t kv = unit % a.kv_heads;
    unit /= a.kv_heads;
    const int64_t head = kv * group + unit % head_parts * heads;
    unit /= head_parts;
    const int64_t part = unit % parts;
    const int64_t token = unit / parts * tokens;

    AttendArgs args;
    args.tokens = std::min(tokens, work.tokens - token);
    args.group = std::min(heads, (kv + 1) * group - head);
    args.head_dim = hd;
    args.scale = a.scale;
    args.q = work.in[0].row<float>(token) + head * hd;
    args.q_stride = work.in[0].stride;
    args.k = cache_at(work.in[1], cache, 0, kv * hd);
    args.v = cache_at(work.in[2], cache, 0, kv * hd);
    args.k_bytes = row_bytes(cache, work.in[1].stride);
    args.v_bytes = row_bytes(cache, work.in[2].stride);
    args.cache = cache;
    args.position = work.position + token;
    args.cap = a.cap;
    args.window = a.window;
    const int64_t part_begin = first_seen + part * part_rows;
    args.cache_begin = a.window > 0 ? std::max(part_begin, args.position + 1 - a.window) : part_begin;
    args.cache_end = std::min(args.position + args.tokens, part_begin + part_rows);
    args.out = work.out[0].row<float>(token) + head * hd;
    args.out_stride = work.out[0].stride;
    args.partial = parts > 1 ? partial_of(part, head, token, args.group) : nullptr;
    args.scratch = scratch + worker * attend_scratch(hd);
    kernels.attend(args);
  };
  if (tiny) {
    for (int64_t unit = 0; unit < units; ++unit) {
      unit_body(unit, 0);
    }
  } else {
    for_units(pool, units, unit_body);
  }
  if (parts > 1) {
    for_rows(pool, work.tokens * a.heads, parts * hd, [&](int64_t row, int) {
      const int64_t t = row / a.heads;
      const int64_t h = row % a.heads;
      const int64_t first = h / group * group + h % group / heads * heads;
      const int64_t some = std::min(heads, (h / group + 1) * group - first);
      kernels.merge_partials(partial_of(0, first, t, some) + (h - first) * partial_row, parts, partial_part,
                             hd, work.out[0].row<float>(t) + h * hd);
    });
  }
}

/// A product of all columns at once: no other processor reads for a part of them.
bool is_whole(const CpuExecutable& e) {
  return e.slice.end - e.slice.begin == e.graph->output_cols(e.slice.op);
}

/// Whether `after` alone reads what `before` makes.
bool leads_to(const Work& before, const Work& after) {
  return before.executable->only_reader == after.executable->slice.op && is_whole(*after.executable) &&
         before.executable->graph == after.executable->graph && before.out[0].data == after.in[0].data &&
         before.out[0].stride == after.in[0].stride && before.tokens == after.tokens;
}

}  // namespace

size_t together(std::span<const Work> queue, const Kernels& kernels) {
  const CpuExecutable& product = *queue[0].executable;
  if (queue.size() < 2 || !leads_to(queue[0], queue[1]) || !queue[1].executable->op().is<Gated>() ||
      !is_whole(product) || !product.vector.empty() ||
      !can_gate(product.packed, product.graph->output_cols(product.slice.op) / 2) ||
      !gates_tokens(*kernels.int8, queue[0].tokens)) {
    return 1;
  }
  if (queue.size() < 3 || !leads_to(queue[1], queue[2]) || queue[2].executable->packed.empty() ||
      !queue[2].executable->segments.empty() || !rounds_gated(*kernels.int8)) {
    return 2;
  }
  return 3;
}

void run_together(std::span<const Work> works, const Kernels& kernels, ThreadPool& pool) {
  const Work& product = works[0];
  const CpuExecutable& e = *product.executable;
  const View& out = works.back().out[0];
  PackedDown down;
  if (works.size() > 2) {
    const CpuExecutable& second = *works[2].executable;
    down = {&second.packed, second.vector.empty() ? nullptr : second.vector.data()};
  }
  multiply_gated(e.packed, *kernels.int8, product.in[0].row<float>(0), product.in[0].stride, product.tokens,
                 e.graph->value(e.op().inputs[0]).cols,
                 kernel_of(*works[1].executable->op().as<Gated>(), kernels),
                 works.size() > 2 ? &down : nullptr, out.row<float>(0), out.stride,
                 reinterpret_cast<float*>(product.scratch->data()), pool);
}

Status run(const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const Op& op = work.executable->op();
  if (op.is<Linear>()) {
    linear(work, kernels, pool);
  } else if (op.is<Embed>()) {
    return embed(work, kernels, pool);
  } else if (const auto* table = op.as<RopeTable>()) {
    rope_table(*table, work, pool);
  } else if (const auto* norm = op.as<RmsNorm>()) {
    rms_norm(*norm, work, kernels, pool);
  } else if (const auto* r = op.as<Rope>()) {
    rope(*r, work, kernels, pool);
  } else if (const auto* a = op.as<Attention>()) {
    attention(*a, work, kernels, pool);
  } else if (const auto* g = op.as<Gated>()) {
    const int64_t f = work.executable->graph->value(op.outputs[0]).cols;
    const GatedKernel kernel = kernel_of(*g, kernels);
    for_rows(pool, work.tokens, f, [&](int64_t t, int) {
      kernel(work.in[0].row<float>(t), work.in[0].row<float>(t) + f, f, work.out[0].row<float>(t));
    });
  } else if (const auto* c = op.as<SoftCap>()) {
    const int64_t n = work.executable->graph->value(op.outputs[0]).cols;
    for_rows(pool, work.tokens, n, [&](int64_t t, int) {
      kernels.soft_cap(work.in[0].row<float>(t), n, c->cap, work.out[0].row<float>(t));
    });
  } else if (const auto* choice = op.as<Route>()) {
    route(*choice, work, pool);
  } else if (const auto* experts = op.as<ExpertLinear>()) {
    expert_linear(*experts, work, kernels, pool);
  } else if (const auto* sum = op.as<ExpertSum>()) {
    expert_sum(*sum, work, pool);
  }
  return {};
}

}  // namespace hetero::cpu
