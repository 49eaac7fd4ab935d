// Products with the weights of the experts that each token chose. Included after blocks.cl.

#define EXPERT_ROWS 8  // rows of W of one work-group

// Work-groups for blocks of rows (dimension 0) and each choice of each token (dimension 1). w holds
// the experts' matrices [n, k] behind each other. x has one part for all choices of a token, or with
// own_x one for each.
TASK expert_linear(global const float* x, long x_offset, long x_stride,                 //
                   global const float* routes, long routes_offset, long routes_stride,  //
                   global float* y, long y_offset, long y_stride,                       //
                   global const uchar* w, long w_bytes, int experts, int used, int n, int k,
                   int own_x, int tokens AT_GROUP) {
  SHARED float shared[LANES];
  const int t = GROUP(1) / used;
  const int choice = GROUP(1) % used;
  if (t >= tokens) {
    return;
  }
  const int expert = clamp((int)routes[routes_offset + t * routes_stride + choice], 0, experts - 1);
  x += x_offset + t * x_stride + (own_x ? (long)choice * k : 0);
  y += y_offset + t * y_stride + (long)choice * n;
  const int first = GROUP(0) * EXPERT_ROWS;
  const int end = min(first + EXPERT_ROWS, n);
  w += w_bytes + ((long)expert * n + first) * row_bytes(k);
  for (int r = first; r < end; ++r, w += row_bytes(k)) {
    Floats sum = 0.0f;
    for (uint all = 0; all * UNIT < (uint)k; all += LANES) {
      const uint unit = all + get_local_id(0);
      if (unit * UNIT < (uint)k) {
        const uint i = first_element(unit);
        sum = unit_dot(unit_at(w, unit, k), row_floats(x, i, k), row_floats(x, i + SPLIT, k), sum);
      }
    }
    const float total = lanes_sum(sum_floats(sum), shared);
    if (get_local_id(0) == 0) {
      y[r] = total;
    }
  }
}
