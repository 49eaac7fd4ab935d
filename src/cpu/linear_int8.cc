#include "cpu/linear_int8.h"

#include "cpu/loops.h"

namespace hetero::cpu {
namespace {

// Bytes of quantized activations that stay in a second-level cache while panels pass by.
constexpr int64_t kRowsBytes = 512 * 1024;
// Multiply-accumulates that are worth waking another thread for.
constexpr int64_t kMacsPerUnit = 256 * 1024;

Status pack(PackedRows& rows, const Int8Kernels& kernels, ThreadPool& pool) {
  const int64_t bytes = kernels.panel_bytes(rows.source.dtype, rows.k);
  const int64_t panels = ceil_div(rows.source.rows, kernels.lanes);
  HETERO_TRY(PageMemory memory, PageMemory::allocate(panels * bytes));
  for_rows(pool, panels, kernels.lanes * rows.k, [&](int64_t p, int) {
    WeightRows source = rows.source;
    source.data += p * kernels.lanes * source.row_bytes;
    source.rows = std::min(kernels.lanes, source.rows - p * kernels.lanes);
    kernels.pack_panel(source, rows.k, memory.data() + p * bytes);
  });
  rows.panels = std::move(memory);
  return {};
}

}  // namespace

std::shared_ptr<PackedRows> PackedWeights::find(const LinearSegment& segment, int64_t k,
                                                const Int8Kernels& kernels) {
  const DType dtype = segment.weight->dtype;
  if (k % 32 != 0 || kernels.panel_bytes(dtype, k) == 0) {
    return nullptr;
  }
  const int64_t bytes = row_bytes(dtype, k);
  const std::byte* data = segment.weight->data + segment.row_begin * bytes;
  std::weak_ptr<PackedRows>& known = rows_[{data, segment.rows}];
  std::shared_ptr<PackedRows> rows = known.lock();
  if (rows == nullptr) {
    rows = std::make_shared<PackedRows>();
    rows->source = {dtype, data, bytes, segment.rows};
    rows->k = k;
    known = rows;
  }
  return rows;
}

int64_t packed_scratch(int64_t tokens, int64_t k) {
  return tokens * (k / 4 + k / 32 * static_cast<int64_t>(sizeof(Int8Block) / sizeof(float)));
}

Status multiply_packed(const std::vector<PackedSegment>& segments, const Int8Kernels& kernels, const float* x,
                       int64_t x_stride, int64_t tokens, int64_t k, const float* bias, float* y,
                       int64_t y_stride, float* scratch, ThreadPool& pool) {
  int64_t panels = 0;
  for (const PackedSegment& s : segments) {
    if (s.rows->panels.data() == nullptr) {
      HETERO_RETURN_IF_ERROR(pack(*s.rows, kernels, pool));
    }
    panels += ceil_div(s.rows->source.rows, kernels.lanes);
  }
  const int64_t row_blocks = k / 32;
  const Int8Rows all{reinterpret_cast<int8_t*>(scratch),
                     reinterpret_cast<Int8Block*>(scratch + tokens * k / 4)};
  for_rows(pool, tokens, k, [&](int64_t t, int) {
    kernels.quantize_row(x + t * x_stride, k, all.q + t * k, all.blocks + t * row_blocks);
  });

  // A unit is a group of panels. Few enough for the threads to end together, each large enough.
  const int64_t macs = kernels.lanes * k * tokens;  // of one panel
  const int64_t group = std::clamp<int64_t>(panels / (pool.size() * int64_t{8}),
                                            std::max<int64_t>(1, kMacsPerUnit / std::max<int64_t>(macs, 1)),
                                            std::max<int64_t>(panels, 1));
  const int64_t chunk = round_up(std::max<int64_t>(1, kRowsBytes / k), 12);
  for_units(pool, ceil_div(panels, group), [&](int64_t unit, int) {
    for (int64_t first = 0; first < tokens; first += chunk) {
      const int64_t rows = std::min(chunk, tokens - first);
      const Int8Rows some{all.q + first * k, all.blocks + first * row_blocks};
      int64_t before = 0;  // panels of the segments before
      for (const PackedSegment& s : segments) {
        const WeightRows& source = s.rows->source;
        const int64_t bytes = kernels.panel_bytes(source.dtype, k);
        const int64_t count = ceil_div(source.rows, kernels.lanes);
        const int64_t end = std::min((unit + 1) * group - before, count);
        for (int64_t p = std::max<int64_t>(0, unit * group - before); p < end; ++p) {
          const int64_t column = s.out_begin + p * kernels.lanes;
          kernels.multiply(source.dtype, s.rows->panels.data() + p * bytes, k, some, rows,
                           std::min(kernels.lanes, source.rows - p * kernels.lanes),
                           bias == nullptr ? nullptr : bias + column, y + first * y_stride + column,
                           y_stride);
        }
        before += count;
      }
    }
  });
  return {};
}

}  // namespace hetero::cpu
