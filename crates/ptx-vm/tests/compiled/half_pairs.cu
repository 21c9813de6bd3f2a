// Six results for each two pairs of halves: sum, product, x y + x, maximum, (x.y, y.x) through f32, and where x > y.

#include <cuda_fp16.h>

extern "C" __global__ void half_pairs(const __half2 *__restrict__ x, const __half2 *__restrict__ y, __half2 *__restrict__ out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    __half2 left = x[i], right = y[i];
    out[i] = __hadd2(left, right);
    out[n + i] = __hmul2(left, right);
    out[2 * n + i] = __hfma2(left, right, left);
    out[3 * n + i] = __hmax2(left, right);
    out[4 * n + i] = __floats2half2_rn(__high2float(left), __low2float(right));
    out[5 * n + i] = __hgt2(left, right);
}
