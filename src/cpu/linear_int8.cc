#include "cpu/linear_int8.h"

#include <span>

#include "cpu/loops.h"

namespace hetero::cpu {
namespace {

// Rows of activations that are worth decoding a panel for; a multiple of all tiles.
constexpr int64_t kLeastRows = 96;
// Multiply-accumulates that are worth waking another thread for.
constexpr int64_t kMacsPerUnit = 128 * 1024;
// Panels that many rows are better read for at a time: rows are not cut where that leaves fewer. (The last
// ranges are shorter.)
constexpr int64_t kTogether = 4;
// Bytes of weights to pack before the mapped original is given back.
constexpr int64_t kPackBytes = 1024 * 1024;
// Rows from which on tile registers are faster: they are filled up to 32.
constexpr int64_t kTileTokens = 24;
// Rows from which on what a Gated reads and makes does not stay in a cache: with fewer, passes over long rows
// of it are faster.
constexpr int64_t kGatedTokens = 32;

bool in_tiles(const Int8Kernels& kernels, int64_t tokens) {
  return kernels.tiles != nullptr && tokens >= kTileTokens;
}

}  // namespace

Status pack(PackedRows& rows, const Int8Kernels& kernels, ThreadPool& pool) {
  if (rows.panels.data() != nullptr) {
    return {};
  }
  const int64_t bytes = kernels.panel_bytes(rows.source.dtype, rows.k);
  const int64_t panels = ceil_div(rows.source.rows, kernels.lanes);
  HETERO_TRY(PageMemory memory, PageMemory::allocate(panels * bytes));
  memory.use_huge_pages();
  const int64_t each = std::max<int64_t>(1, kPackBytes / bytes);
  for_units(pool, ceil_div(panels, each), [&](int64_t unit, int) {
    const int64_t end = std::min(panels, (unit + 1) * each);
    WeightRows source = rows.source;
    source.data += unit * each * kernels.lanes * source.row_bytes;
    const std::byte* const begin = source.data;
    for (int64_t p = unit * each; p < end; ++p, source.data += source.rows * source.row_bytes) {
      source.rows = std::min(kernels.lanes, rows.source.rows - p * kernels.lanes);
      kernels.pack_panel(source, rows.k, memory.data() + p * bytes);
    }
    MappedFile::release_any(begin, source.data - begin);
  });
  rows.panels = std::move(memory);
  return {};
}

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

Bytes PackedWeights::bytes() const {
  Bytes sum = 0;
  for (const auto& [key, known] : rows_) {
    if (const auto rows = known.lock(); rows != nullptr) {
      sum += rows->panels.size();
    }
  }
  return sum;
}

bool can_gate(const std::vector<PackedSegment>& segments, int64_t rows) {
  return segments.size() == 2 && segments[0].rows->source.rows == rows &&
         segments[1].rows->source.rows == rows && segments[0].out_begin == 0 &&
         segments[0].rows->source.dtype == segments[1].rows->source.dtype;
}

bool gates_tokens(const Int8Kernels& kernels, int64_t tokens) {
  return tokens >= kGatedTokens && !in_tiles(kernels, tokens);
}

bool rounds_gated(const Int8Kernels& kernels) {
  return kernels.lanes % 32 == 0;
}

int64_t packed_scratch(int64_t tokens, int64_t k, const Int8Kernels& kernels) {
  if (in_tiles(kernels, tokens)) {
    return round_up(tokens, kernels.tiles->rows) * k / 2;
  }
  const int64_t rows = round_up(tokens, std::min(tokens, kernels.tile));
  constexpr auto kEach = static_cast<int64_t>((sizeof(Int8Block) + sizeof(Int8Whole)) / sizeof(float));
  return rows * (k / 4 + k / 32 * kEach);
}

namespace {

/// Part of a product: panels of one segment by rows of activations.
struct Piece {
  DType dtype;
  const std::byte* panel;
  int64_t column;  // of the slice
  int64_t cols;
  int64_t first;  // row of the activations
  int64_t rows;
};

/// Spreads panels and rows over threads. Rows are cut, at multiples of `step`, only where there are too few
/// panels for the threads, since each part decodes them again.
template <class Body>
void for_pieces(std::span<const PackedSegment> segments, const Int8Kernels& kernels, int64_t tokens,
                int64_t k, int64_t step, ThreadPool& pool, const Body& body) {
  int64_t panels = 0;
  for (const PackedSegment& s : segments) {
    panels += ceil_div(s.rows->source.rows, kernels.lanes);
  }
  const int64_t macs = kernels.lanes * k * tokens;  // of one panel
  const int64_t wanted = pool.size() * int64_t{4};  // ranges
  const int64_t together = tokens < kLeastRows ? 1 : std::clamp<int64_t>(panels / wanted, 1, kTogether);
  const int64_t worth_waking = ceil_div(kMacsPerUnit, macs);
  const int64_t least = std::max(together, worth_waking);
  const int64_t cuts = pool.size() == 1 ? 1
                                        : std::clamp<int64_t>(wanted / std::max<int64_t>(panels / least, 1),
                                                              1, std::max<int64_t>(tokens / kLeastRows, 1));
  const int64_t part = round_up(ceil_div(tokens, cuts), step);
  // The last ranges may be single panels: of 18 in pairs, one of two threads would have 10.
  for_ranges(pool, cuts, panels, worth_waking, panels, [&](int64_t cut, int64_t begin, int64_t end, int) {
    const int64_t first = cut * part;
    const int64_t rows = std::min(part, tokens - first);
    for (const PackedSegment& s : segments) {
      const WeightRows& source = s.rows->source;
      const int64_t count = ceil_div(source.rows, kernels.lanes);
      const int64_t from = std::max<int64_t>(0, begin);
      const int64_t to = std::min(end, count);
      if (from < to && rows > 0) {
        body(Piece{source.dtype, s.rows->panels.data() + from * kernels.panel_bytes(source.dtype, k),
                   s.out_begin + from * kernels.lanes,
                   std::min(to * kernels.lanes, source.rows) - from * kernels.lanes, first, rows});
      }
      begin -= count;
      end -= count;
    }
  });
}

/// Rows of activations in scratch memory.
struct RoundedRows {
  RoundedRows(float* scratch, int64_t tokens_, int64_t k_, const Int8Kernels& kernels)
      : tokens(tokens_), k(k_) {
    all.tile = std::min(tokens, kernels.tile);
    const int64_t blocks = round_up(tokens, all.tile) * (k / 32);
    all.q = reinterpret_cast<int8_t*>(scratch);
    all.blocks = reinterpret_cast<Int8Block*>(scratch + blocks * 32 / 4);
    all.whole = reinterpret_cast<Int8Whole*>(all.blocks + blocks);
  }

  Int8Rows row(int64_t t) const { return all.at(t, 0, k / 32); }

  int64_t tokens;
  int64_t k;
  Int8Rows all;
};

RoundedRows round_rows(const float* x, int64_t x_stride, int64_t tokens, int64_t k,
                       const Int8Kernels& kernels, float* scratch, ThreadPool& pool) {
  const RoundedRows rows(scratch, tokens, k, kernels);
  for_rows(pool, tokens, k, [&](int64_t t, int) { kernels.quantize_row(x + t * x_stride, k, rows.row(t)); });
  return rows;
}

void multiply_rounded(const std::vector<PackedSegment>& segments, const Int8Kernels& kernels,
                      const RoundedRows& x, const float* bias, float* y, int64_t y_stride, ThreadPool& pool) {
  for_pieces(segments, kernels, x.tokens, x.k, kLeastRows, pool, [&](const Piece& piece) {
    kernels.multiply(piece.dtype, piece.panel, x.k, x.row(piece.first), piece.rows, piece.cols,
                     bias == nullptr ? nullptr : bias + piece.column, nullptr,
                     y + piece.first * y_stride + piece.column, y_stride);
  });
}

}  // namespace

void multiply_packed(const std::vector<PackedSegment>& segments, const Int8Kernels& kernels, const float* x,
                     int64_t x_stride, int64_t tokens, int64_t k, const float* bias, float* y,
                     int64_t y_stride, float* scratch, ThreadPool& pool) {
  if (!in_tiles(kernels, tokens)) {
    const RoundedRows rows = round_rows(x, x_stride, tokens, k, kernels, scratch, pool);
    multiply_rounded(segments, kernels, rows, bias, y, y_stride, pool);
    return;
  }
  const TileKernels& tiles = *kernels.tiles;
  auto* rounded = reinterpret_cast<uint16_t*>(scratch);
  for_rows(pool, tokens, k, [&](int64_t t, int) {
    tiles.round_row(x + t * x_stride, k, rounded + t / tiles.rows * tiles.rows * k + t % tiles.rows * 32);
  });
  for_pieces(segments, kernels, tokens, k, tiles.rows, pool, [&](const Piece& piece) {
    tiles.multiply(piece.dtype, piece.panel, k, rounded + piece.first * k, piece.rows, piece.cols,
                   bias == nullptr ? nullptr : bias + piece.column, y + piece.first * y_stride + piece.column,
                   y_stride);
  });
}

void multiply_gated(const std::vector<PackedSegment>& segments, const Int8Kernels& kernels, const float* x,
                    int64_t x_stride, int64_t tokens, int64_t k, GatedKernel act, const PackedDown* down,
                    float* y, int64_t y_stride, float* scratch, ThreadPool& pool) {
  const int64_t f = segments[0].rows->source.rows;
  const RoundedRows rows = round_rows(x, x_stride, tokens, k, kernels, scratch, pool);
  const RoundedRows gated(scratch + packed_scratch(tokens, k, kernels), tokens, f, kernels);
  for_pieces(std::span(segments).first(1), kernels, tokens, k, kLeastRows, pool, [&](const Piece& piece) {
    const std::ptrdiff_t at = piece.panel - segments[0].rows->panels.data();
    const Int8Rows to = gated.all.at(piece.first, piece.column / 32, f / 32);
    const Int8Gate gate{act, segments[1].rows->panels.data() + at, down == nullptr ? nullptr : &to, f / 32};
    kernels.multiply(piece.dtype, piece.panel, k, rows.row(piece.first), piece.rows, piece.cols, nullptr,
                     &gate, y + piece.first * y_stride + piece.column, y_stride);
  });
  if (down != nullptr) {
    for_rows(pool, tokens, f, [&](int64_t t, int) { kernels.finish_row(f, gated.row(t)); });
    multiply_rounded(*down->segments, kernels, gated, down->bias, y, y_stride, pool);
  }
}

}  // namespace hetero::cpu
