// The level's table, from the functions of kernels_inl.h and rows_inl.h.
#define HETERO_KERNEL_TABLE(level)                                                                  \
  {                                                                                                 \
    level, kMr, kNr, kGemvRows, decode, gemv, pack_tile, pack_panel, tiles, attend, merge_partials, \
        rms_norm, gated<Silu>, gated<Gelu>, rotate, to_f16                                          \
  }
