// The level's tables, from the functions of kernels_inl.h, rows_inl.h, attend_inl.h and int8_inl.h.
#define HETERO_INT8_TABLE                                                                         \
  {                                                                                               \
    kPanelRows, kInt8Tile, int8_panel_bytes, pack_int8_panel, quantize_int8_row, finish_int8_row, \
        multiply_int8, nullptr                                                                    \
  }
#define HETERO_KERNEL_TABLE(level, int8)                                                                  \
  {                                                                                                       \
    level, int8, kMr, kNr, kGemvRows, decode, gemv, pack_tile, pack_panel, tiles, attend, merge_partials, \
        rms_norm, gated<Silu>, gated<Gelu>, soft_cap, rotate, to_f16, to_q8_0                             \
  }
