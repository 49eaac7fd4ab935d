// cos and sin of position * frequency from three tables made in double, each entry as the sum of
// two floats: position = (a * TURN + b) * TURN + c, and angles add by complex products. So no
// device needs doubles, and the result is as exact as float can say.
// parts: [3][TURN][pairs] of (cos, cos's rest, sin, sin's rest).
#define TURN 256

inline float2 two_product(float2 a, float2 b) {  // Dekker's product, by fma
  const float p = a.x * b.x;
  const float e = fma(a.x, b.x, -p) + (a.x * b.y + a.y * b.x);
  return (float2)(p, e);
}

inline float2 two_sum(float2 a, float2 b) {  // Knuth's exact sum
  const float s = a.x + b.x;
  const float v = s - a.x;
  const float e = (a.x - (s - v)) + (b.x - v) + (a.y + b.y);
  return (float2)(s, e);
}

inline float4 turn(float4 a, float4 b) {
  return (float4)(two_sum(two_product(a.lo, b.lo), -two_product(a.hi, b.hi)),
                  two_sum(two_product(a.lo, b.hi), two_product(a.hi, b.lo)));
}

// Of pair i of `pairs` at a position.
inline float2 cos_sin(global const float* parts, int pairs, int i, int position) {
  const float4 c = vload4((position % TURN) * pairs + i, parts);
  const float4 b = vload4((TURN + position / TURN % TURN) * pairs + i, parts);
  const float4 a = vload4((2 * TURN + position / TURN / TURN % TURN) * pairs + i, parts);
  const float4 r = turn(turn(a, b), c);
  return (float2)(r.x + r.y, r.z + r.w);
}
